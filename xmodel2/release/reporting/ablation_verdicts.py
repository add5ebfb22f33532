"""Verdicts on the report's choices of architecture and method, each from the comparison that tests it.

    rival less own, seed by seed, in percent of own's loss  ->  interval of 95%  ->  own is better / costs little / is worse

Above 0 the rival is worse. No verdict rests on what a better rate could overturn (the best rate that the loser tried is at the
edge of its grid), on seeds that diverged, or on a rival that won with more parameters where sizes are to be equal: "not told".
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from xmodel2.release.reporting.evidence import Evidence, counted, short
from xmodel2.release.reporting.verdicts import (
    HELD,
    LEAST_QUESTIONS,
    NOT_HELD,
    NOT_TESTABLE,
    NOT_TOLD,
    Finding,
    listed,
    unless_diverged,
)
from xmodel2.release.reporting.wind_tunnel import RATIO_FILE
from xmodel2.search.ablation_runs import RESULT_FILE as ABLATION_FILE
from xmodel2.search.ablation_summary import UNITS
from xmodel2.search.decay import FOR, OWN
from xmodel2.search.direct import RESULT_FILE as DIRECT_FILE
from xmodel2.search.over_seeds import t_interval
from xmodel2.search.ratio_formats import MEASURES

PEER_FILE = "peer.json"
LITTLE_PERCENT = 1.0
"""Loss that "costs little" may cost."""
ANSWERS = "-answers"
"""Ends the name of a source that has another's documents without the steps to their answers."""
_SAME_SIZE = 0.01
"""Share by which the parameters of models of equal size may differ."""
Arm = dict[str, Any]


def embedding(evidence: Evidence) -> Finding | None:
    """Sharing embedding and head costs little, against a head of its own, which has more parameters: those that sharing saves."""
    return _judged(evidence, "embedding", lambda own, arm: arm["name"] == "untied", LITTLE_PERCENT)


def depth(evidence: Evidence) -> Finding | None:
    """Deep and thin beats wide and shallow: the recipe against the arms of equal blocks that are wider."""
    return _judged(evidence, "depth", lambda own, arm: bool(arm["layers"] < own["layers"]), equal_size=True)


def attention(evidence: Evidence) -> Finding | None:
    """Grouped queries cost little, against as many key/value heads as query heads in a model of equal size."""
    return _judged(evidence, "attention", lambda own, arm: arm["name"] == "multi-head-equal", LITTLE_PERCENT)


def tokenizer(evidence: Evidence) -> Finding | None:
    """Unigram serves better than BPE: bits a byte of the same text, a recipe with Unigram against the arms with BPE.

    Rows of an older version don't say what their tokenizer is: there an arm's name does.
    """

    def is_rival(own: Arm, arm: Arm) -> bool:
        if arm.get("tokenizer") and own.get("tokenizer"):
            return (own["tokenizer"], arm["tokenizer"]) == ("Unigram", "BPE")
        return "bpe" in arm["name"].lower()

    return _judged(evidence, "tokenizer", is_rival)


def formats(evidence: Evidence) -> Finding | None:
    """Instruction format beats pretraining format: loss on the same answers, each model asked in its own format."""
    found = evidence.study(RATIO_FILE)
    row = found.get("format")
    if not row:
        return None
    low, high = row["interval"] or (-float("inf"), float("inf"))
    verdict = HELD if high < 0 else NOT_HELD if low > 0 else NOT_TOLD
    measured = f"{MEASURES[row['measure']]}: trained on chats {row['chat']['own']:.3f} nats a token, on texts"
    measured += f" {row['text']['own']:.3f}; chats less texts {row['difference']:+.3f}{_between(row['interval'])}"
    if later := row["measures"].get("later_tokens"):
        measured += f", without each answer's first token {later['difference']:+.3f}{_between(later['interval'])}"
    scale = f"recipe {found['recipe']}, {counted(len(row['seeds']), 'seed')}"
    return unless_diverged(Finding(verdict, measured, scale), row)


def steps_to_answers(evidence: Evidence) -> Finding | None:
    """The steps to an answer lift reasoning: the same questions with them, and with the answers alone (NAME-answers for NAME)."""
    found = evidence.study(RATIO_FILE)
    rows = {str(row["value"]): row for row in found.get("mixtures", [])}
    for value, row in rows.items():
        new, _, old = value.partition(FOR)
        if not old or new != old + ANSWERS or "accuracy" not in row or row["accuracy"]["difference"] is None:
            continue
        difference, without = row["accuracy"]["difference"], row["accuracy"]["mean"]
        seeds = row["accuracy"].get("seeds", min(row["seeds"], rows[OWN]["seeds"]))
        ends = t_interval(difference, row["accuracy"]["error"], seeds)
        low, high = ends or (-float("inf"), float("inf"))
        verdict = HELD if high < 0 else NOT_HELD if low > 0 else NOT_TOLD
        if verdict == NOT_TOLD and max(without, without - difference) < LEAST_QUESTIONS:
            verdict = NOT_TESTABLE
        measured = f"questions answered exactly: {without - difference:.1%} with the steps, {without:.1%} without;"
        measured += f" without less with {difference:+.1%}{_between(ends, '.1%')}"
        finding = Finding(verdict, measured, f"recipe {found['recipe']}, {counted(seeds, 'seed')}")
        return unless_diverged(finding, row, rows[OWN])
    return None


def direct(evidence: Evidence) -> Finding | None:
    """Carried-over hyperparameters are within half a percent of those that a search at each size finds."""
    found = evidence.study(DIRECT_FILE)
    if not found:
        return None
    parts = []
    for size in found["sizes"]:
        said = f"at width {size['width']}"
        if size["percent"] is not None:
            said += f" {size['percent']:+.2f}%{_between(size['percent_interval'], '.2f')}"
        why = size["verdict"].partition(": ")[2]
        parts.append(said + (f", {why}" if why else ""))
    if why := found["verdict"].partition(": ")[2]:
        parts.append(why)
    trained = ", ".join(str(size["width"]) for size in found["sizes"])
    scale = (
        f"widths {trained}; {found['trials']} trials each, {counted(len(found['seeds']), 'seed')} that chose nothing"
    )
    measured = "loss of the carried-over values, less that of the values searched there: " + "; ".join(parts)
    return Finding(_kind(found["verdict"]), measured, scale)


def peer(evidence: Evidence) -> Finding | None:
    """Our recipe reaches a plain Trainer's loss in at most 0.6 of its tokens-time."""
    found = evidence.study(PEER_FILE)
    if not found:
        return None
    parts = [f"ours less the Trainer's at equal tokens {_loss_apart(found['difference'])}"]
    for name, product in found["tokens_time"].items():
        said = f"{name} Trainer: {_tokens_time(product, found['tokens_factor'], found['time_factor'][name])}"
        if product["verdict"] != found["verdict"]:
            said += f": {product['verdict']}"
        parts.append(f"{said}; at equal time {_loss_apart(found['equal_time'][name]['difference'])}")
    for side, whose in (("ours", "our"), ("peer", "the Trainer's")):
        parts += [f"{whose} best rate is at the edge of its grid, or beside one that diverged"] * found[side]["at_edge"]
    if found["diverged"]:
        parts.append(f"a run diverged with seed {listed(found['diverged'])}")
    scale = f"recipe {found['recipe']}, {short(found['tokens'])} tokens, {counted(len(found['seeds']), 'seed')}"
    return Finding(_kind(found["verdict"]), "; ".join(parts), scale)


@dataclass(frozen=True)
class _Rival:
    """An arm beside the recipe's own."""

    own: Arm
    arm: Arm
    among: int = 1
    """Arms that are judged together (Bonferroni)."""

    @property
    def ends(self) -> tuple[float, float] | None:
        """Ends of the interval of 95%, in percent of own's loss with the seeds of both."""
        losses = [loss for seed, loss in self.own["losses"].items() if seed in self.arm["losses"]]
        ends = t_interval(self.arm["difference"], self.arm["error"], len(losses), self.among)
        return ends and (ends[0] * 100 * len(losses) / sum(losses), ends[1] * 100 * len(losses) / sum(losses))

    def verdict(self, percent: float, equal_size: bool) -> str:
        """Judge whether the recipe loses no more than ``percent`` to it (0: it gains)."""
        if self.ends is None or self.own["diverged"] or self.arm["diverged"]:
            return NOT_TOLD
        low, high = self.ends
        if low > -percent:
            return NOT_TOLD if self.arm["at_edge"] else HELD
        if high < -percent:
            larger = self.arm["parameters_total"] > (1 + _SAME_SIZE) * self.own["parameters_total"]
            return NOT_TOLD if self.own["at_edge"] or (equal_size and larger) else NOT_HELD
        return NOT_TOLD

    def said(self) -> str:
        """Return the arm in words, such as `untied +0.15% (-0.20 to +0.50), 1.70M parameters in all`."""
        said = [self.arm["name"]]
        if self.arm["mean"] is None:
            said[0] += " diverged at every rate"
        elif self.arm["percent"] is not None:
            said[0] += f" {self.arm['percent']:+.2f}%{_between(self.ends, '.2f')}"
        if abs(self.arm["parameters_total"] / self.own["parameters_total"] - 1) > _SAME_SIZE:
            said.append(f"{short(self.arm['parameters_total'])} parameters in all")
        return ", ".join(said + _doubts(self.arm))


def _judged(
    evidence: Evidence,
    name: str,
    is_rival: Callable[[Arm, Arm], bool],
    percent: float = 0.0,
    equal_size: bool = False,
) -> Finding | None:
    """Judge whether the recipe loses no more than ``percent`` to any rival; ``equal_size``: one may not win by being larger."""
    comparison = evidence.study(ABLATION_FILE).get("comparisons", {}).get(name)
    if not comparison:
        return None
    own, *others = sorted(comparison["arms"], key=lambda arm: not arm["own"])
    judged = [arm for arm in others if is_rival(own, arm)]
    if not judged:
        return None
    scale = f"{short(own['parameters'])} parameters in blocks, {short(own['parameters_total'])} in all,"
    scale += f" {short(own['tokens'])} tokens, {counted(len(own['losses']), 'seed')}"
    if own["mean"] is None:
        return Finding(NOT_TOLD, "the recipe diverged at every rate", scale)
    rivals = [_Rival(own, arm, len(judged)) for arm in judged]
    words = {rival.verdict(percent, equal_size) for rival in rivals}
    verdict = NOT_HELD if NOT_HELD in words else NOT_TOLD if NOT_TOLD in words else HELD
    base = ", ".join([f"{own['mean']:.3f} {UNITS[comparison['measure']]}", *_doubts(own)])
    measured = f"against the recipe's {base} (more is worse): " + "; ".join(rival.said() for rival in rivals)
    if percent:
        measured += f"; down to -{percent:g}% is little"
    if len(rivals) > 1:
        measured += "; intervals of 95% together"
    if beside := [_Rival(own, arm).said() for arm in others if arm not in judged]:
        measured += "; not judged: " + "; ".join(beside)
    return Finding(verdict, measured, scale)


def _doubts(arm: Arm) -> list[str]:
    """Return what may make an arm look worse or better than it is."""
    doubts = ["best rate at the edge or beside one that diverged"] if arm["at_edge"] else []
    return doubts + ([f"diverged with seed {listed(arm['diverged'])}"] if arm["diverged"] else [])


def _tokens_time(product: dict[str, Any], tokens: dict[str, Any], time: dict[str, Any]) -> str:
    if product["factor"] is None:
        if missed := tokens["not_reached"]:
            return f"its loss is not reached at {tokens['longest']:g}x of its tokens with seed {listed(missed)}"
        return "no seed has both losses"
    most = "at most " if tokens["at_most"] else ""
    factors = f"tokens {most}{tokens['mean']:.3f} x time {time['factor']:.3f}"
    return f"tokens-time {most}{product['factor']:.3f}{_between(product['interval'], '.3f', '')} = {factors}"


def _loss_apart(found: dict[str, Any]) -> str:
    if found["mean"] is None:
        return "not known"
    return f"{found['mean']:+.3f} nats a token{_between(found['interval'])}"


def _kind(verdict: str) -> str:
    """Return which verdict a sentence begins with."""
    return next(word for word in (NOT_HELD, NOT_TOLD, HELD) if verdict.startswith(word))


def _between(ends: Sequence[float] | None, digits: str = ".3f", sign: str = "+") -> str:
    return f" ({ends[0]:{sign}{digits}} to {ends[1]:{sign}{digits}})" if ends else ""
