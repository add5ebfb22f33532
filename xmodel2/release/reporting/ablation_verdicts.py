"""Verdicts on the report's choices of architecture and method, each from the comparison that tests it.

    rival less own, seed by seed, in percent of own's loss  ->  interval of 95%  ->  own is better / costs little / is worse

A verdict holds only if a better rate could not overturn it: where the best rate that the other side tried lies at the edge of its
grid, what would favour the recipe is "not told".
"""

from collections.abc import Callable, Sequence
from typing import Any

from scipy.special import stdtrit

from xmodel2.release.reporting.evidence import Evidence, short
from xmodel2.release.reporting.verdicts import HELD, NOT_HELD, NOT_TOLD, Finding
from xmodel2.search.ablation_runs import RESULT_FILE as ABLATION_FILE
from xmodel2.search.direct import RESULT_FILE as DIRECT_FILE

PEER_FILE, RATIO_FILE = "peer.json", "ratio.json"
LITTLE_PERCENT = 1.0
"""Loss that "costs little" may cost."""
_MEASURES = {"loss": "nats a token", "bits_per_byte": "bits a byte"}


def embedding(evidence: Evidence) -> Finding | None:
    """Sharing embedding and head costs little, against a head of its own."""
    return _judged(evidence, "embedding", lambda own, arm: True, LITTLE_PERCENT)


def depth(evidence: Evidence) -> Finding | None:
    """Deep and thin beats wide and shallow: the recipe against the arms of equal size that are wider."""
    return _judged(evidence, "depth", lambda own, arm: _layers(arm) < _layers(own), 0.0)


def attention(evidence: Evidence) -> Finding | None:
    """Grouped queries cost little, against as many key/value heads as query heads in a model of equal size."""
    return _judged(evidence, "attention", lambda own, arm: arm["name"] == "multi-head-equal", LITTLE_PERCENT)


def tokenizer(evidence: Evidence) -> Finding | None:
    """Unigram serves better than BPE: bits a byte of the same text."""
    return _judged(evidence, "tokenizer", lambda own, arm: True, 0.0)


def formats(evidence: Evidence) -> Finding | None:
    """Instruction format beats pretraining format: loss on the same answers, each model asked in its own format."""
    found = evidence.study(RATIO_FILE)
    row = found.get("format")
    if not row:
        return None
    own = f"{row['chat']['own']:.3f} against {row['text']['own']:.3f} nats a token of the answers"
    measured = f"chats less texts {row['difference']:+.3f}"
    measured += _interval(row["interval"])
    low, high = row["interval"] or (-float("inf"), float("inf"))
    verdict = HELD if high < 0 else NOT_HELD if low > 0 else NOT_TOLD
    return Finding(verdict, f"{measured}: {own}", f"recipe {found['recipe']}, {len(row['seeds'])} seeds")


def steps_to_answers(evidence: Evidence) -> Finding | None:
    """Chain-of-thought data lifts reasoning: the same questions with the steps to their answers, and with the answers alone."""
    found = evidence.study(RATIO_FILE)
    for row in found.get("mixtures", []):
        if " for " in str(row["value"]) and "accuracy" in row and row["accuracy"]["difference"] is not None:
            base = next(other for other in found["mixtures"] if other["value"] == "own")["accuracy"]["mean"]
            difference, error = row["accuracy"]["difference"], row["accuracy"]["error"]
            half = float("inf") if error is None else _half(error, row["seeds"])
            low, high = difference - half, difference + half
            measured = f"answered exactly {base:.1%} with the steps, {base + difference:.1%} without"
            measured += "" if error is None else f" ({low:+.1%} to {high:+.1%})"
            verdict = HELD if high < 0 else NOT_HELD if low > 0 else NOT_TOLD
            return Finding(verdict, measured, f"recipe {found['recipe']}, {row['seeds']} seeds")
    return None


def direct(evidence: Evidence) -> Finding | None:
    """Carried-over hyperparameters are within half a percent of those that a search at each size finds."""
    found = evidence.study(DIRECT_FILE)
    if not found:
        return None
    parts = []
    for size in found["sizes"]:
        if size["percent"] is None:
            parts.append(f"diverged at {size['width']}")
            continue
        said = f"{size['percent']:+.2f}% at {size['width']}"
        ends = size["percent_interval"]
        parts.append(said + (f" ({ends[0]:+.2f} to {ends[1]:+.2f})" if ends else ""))
    verdict = next((word for word in (NOT_HELD, NOT_TOLD, HELD) if found["verdict"].startswith(word)), NOT_TOLD)
    widths = ", ".join(str(size["width"]) for size in found["sizes"])
    scale = f"widths {widths}; {found['trials']} trials each, {len(found['seeds'])} fresh seeds"
    return Finding(verdict, "loss against a search there: " + "; ".join(parts), scale)


def peer(evidence: Evidence) -> Finding | None:
    """Our recipe reaches a plain Trainer's loss in at most 0.6 of its tokens-time."""
    found = evidence.study(PEER_FILE)
    if not found:
        return None
    apart, tokens = found["difference"], found["tokens_factor"]
    parts = [f"at equal tokens {_number(apart['mean'], '+')} nats a token{_interval(apart['interval'])}"]
    for name, product in found["tokens_time"].items():
        time = found["time_factor"][name]["factor"]
        parts.append(
            f"{name} Trainer: tokens-time {_number(product['factor'])} = tokens {_number(tokens['mean'])} x time {time:.3f}"
        )
    measured = "; ".join(parts)
    verdict = next((word for word in (NOT_HELD, NOT_TOLD, HELD) if found["verdict"].startswith(word)), NOT_TOLD)
    return Finding(
        verdict, measured, f"recipe {found['recipe']}, {short(found['tokens'])} tokens, {len(found['seeds'])} seeds"
    )


def _judged(
    evidence: Evidence, name: str, is_rival: Callable[[dict[str, Any], dict[str, Any]], bool], percent: float
) -> Finding | None:
    """Judge whether the recipe loses no more than ``percent`` to each rival (0: it gains), looked at together (Bonferroni)."""
    found = evidence.study(ABLATION_FILE)
    comparison = found.get("comparisons", {}).get(name)
    if not comparison:
        return None
    own = next(arm for arm in comparison["arms"] if arm["own"])
    others = [arm for arm in comparison["arms"] if not arm["own"] and arm["difference"] is not None]
    rivals = [arm for arm in others if is_rival(own, arm)]
    if not rivals:
        return None
    words = [_word(own, arm, percent, len(rivals)) for arm in rivals]
    verdict = NOT_HELD if NOT_HELD in words else HELD if set(words) == {HELD} else NOT_TOLD
    said = [f"{arm['name']} {arm['percent']:+.2f}%{_ends_of(own, arm)}" for arm in (*rivals, *_without(others, rivals))]
    measured = f"{_MEASURES[comparison['measure']]}, less the recipe's {own['mean']:.3f}: " + "; ".join(said)
    size = f"{short(own['parameters'])} parameters in blocks, {short(own['tokens'])} tokens, {len(own['losses'])} seeds"
    return Finding(verdict, measured, size)


def _word(own: dict[str, Any], arm: dict[str, Any], percent: float, among: int) -> str:
    if arm["error"] is None:
        return NOT_TOLD
    half = _half(arm["error"], len(arm["losses"]), among)
    low, high = (100 * (arm["difference"] + sign * half) / own["mean"] for sign in (-1, 1))
    if low > -percent:
        return NOT_TOLD if arm["at_edge"] else HELD
    if high < -percent:
        return NOT_TOLD if own["at_edge"] else NOT_HELD
    return NOT_TOLD


def _ends_of(own: dict[str, Any], arm: dict[str, Any]) -> str:
    if not arm["interval"]:
        return ""
    low, high = (100 * end / own["mean"] for end in arm["interval"])
    return f" ({low:+.2f} to {high:+.2f})" + (", best rate at the edge" if arm["at_edge"] else "")


def _half(error: float, seeds: int, among: int = 1) -> float:
    return float(stdtrit(max(1, seeds - 1), 1 - 0.025 / among)) * error


def _layers(arm: dict[str, Any]) -> int:
    return int(arm["layers"])


def _without(arms: Sequence[dict[str, Any]], some: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [arm for arm in arms if arm not in some]


def _interval(ends: Sequence[float] | None) -> str:
    return f" ({ends[0]:+.3f} to {ends[1]:+.3f})" if ends else ""


def _number(value: float | None, sign: str = "") -> str:
    return "not known" if value is None else f"{value:{sign}.3f}"
