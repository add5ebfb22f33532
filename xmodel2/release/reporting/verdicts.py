"""What was measured of each claim, and its verdict: held, not held, not told, not testable at this scale.

"Held" and "not held" need an interval of 95% that has nothing else in it; what one seed, too few items or two causes at once
leave open is "not told". None: nothing was measured. Files of another version raise whatever they raise; the ledger names them.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf, nan
from typing import Any

from xmodel2.eval.calibration_page import verdict as calibration_verdict
from xmodel2.eval.result_files import RESULTS_FILE
from xmodel2.eval.test_time import RESULT_FILE as SCALING_FILE
from xmodel2.model.count import block_parameter_count
from xmodel2.release.reporting.evidence import Evidence, counted, short
from xmodel2.release.reporting.wind_tunnel import LAW_FILE, RATIO_FILE, interval
from xmodel2.search.coordinate_run import SUMMARY_FILE as COORDINATE_FILE
from xmodel2.search.over_seeds import t_interval
from xmodel2.search.transfer import RESULT_FILE as TRANSFER_FILE

HELD, NOT_HELD, NOT_TOLD = "held", "not held", "not told"
NOT_TESTABLE = "not testable at this scale"
CALIBRATION_FILE = "calibration.json"
REPORT_SHARES = (0.60, 0.69)
"""SFT shares among which the report's search found the best."""
_CHOSEN = 0.64
"""SFT share of the report's decay."""
LEAST_QUESTIONS = 0.02
"""Share of questions answered exactly below which a model answers none that it could not guess."""
_CLEARLY = 0.9
"""Ratio of two forms' errors up to which the better one is told from the other."""
_GOOD_FIT = 0.9
"""R² above which a law describes a curve."""
_NARROW = 0.1
"""Widest interval of a predicted loss, as a share of it, that a loss inside speaks for."""
_IN_ITS_PLACE = " for chain-of-thought"
_MOST_BY_CHANCE = 0.1
"""Calibration error of a calibrated model by chance above which the items are too few to tell."""


@dataclass(frozen=True)
class Finding:
    """What was measured of a claim."""

    verdict: str
    measured: str
    scale: str


def steady(evidence: Evidence) -> Finding | None:
    """Tensor programs keep activations steady: the coordinate check under all rules says so."""
    found = evidence.study(COORDINATE_FILE)
    if not found or "all rules" not in found["cases"]:
        return None
    case = found["cases"]["all rules"]
    sizes, seeds = case["width"]["sizes"], found["settings"]["seeds"]
    slopes = [abs(f["figure"]) for f in case["findings"] if f["criterion"] == "change over width"]
    others = [name for name in found["cases"] if name.startswith("no ")]
    needed = [name for name in others if not found["cases"][name]["held"]]
    measured = f"steepest slope of a change over width {max(slopes, default=nan):.3f}"
    if others:
        measured += f"; {len(needed)} of {len(others)} rules, left out, break it"
    scale = f"widths {min(sizes)} to {max(sizes):,}, {counted(seeds, 'seed')}"
    return Finding(HELD if case["held"] else NOT_HELD, measured, scale)


def carries_over(evidence: Evidence) -> Finding | None:
    """Hyperparameters carry over: the best rate over width."""
    for sweep in evidence.study(TRANSFER_FILE).get("sweeps", []):
        if sweep["sweep"] == "learning_rate-width" and sweep["parametrization"] == "tensor_program":
            kind, _, why = sweep["verdict"].partition(": ")
            if sweep["octaves"] is None:
                return Finding(kind, why, "")
            sizes = [optimum["size"] for optimum in sweep["optima"]]
            measured = f"the best rate moves {sweep['octaves']:+.2f} octaves"
            if sweep["interval"]:
                measured += f" ({interval(sweep['interval'], 2)})"
            return Finding(kind, measured + (f"; {why}" if why else ""), f"widths {min(sizes)} to {max(sizes):,}")
    return None


def wsd(evidence: Evidence) -> Finding | None:
    """WSD is at least as good as cosine: the difference at every length, of the seeds of both, each at its own best rate."""
    found = evidence.study(RATIO_FILE)
    # Earlier versions have those of one rate alone.
    lengths = found.get("schedules_at_best", found.get("schedules", []))
    rows = [row for row in lengths if row["difference"] is not None]
    if not rows:
        return None
    apart, tokens = [row["difference"] for row in rows], [row["tokens"] for row in rows]
    seeds = [row.get("seeds", len(found["seeds"])) for row in rows]
    ends = [_ends(row["difference"], row["error"], count, len(rows)) for row, count in zip(rows, seeds, strict=True)]
    measured = (
        f"WSD less cosine {min(apart):+.3f} to {max(apart):+.3f} nats a token at {counted(len(set(tokens)), 'length')}, from one"
        f" stable run a seed ({counted(min(seeds), 'seed')})"
    )
    if (rates := len({row["rate"] for row in found["schedules"] if "rate" in row})) > 1:
        measured += f", each at the best of {rates} rates"
    verdict = NOT_HELD if any(low > 0 for low, _ in ends) else NOT_TOLD
    if all(high <= 0 for _, high in ends):
        verdict = HELD
    finding = Finding(verdict, measured, f"{short(min(tokens))} to {short(max(tokens))} tokens")
    return unless_diverged(finding, *lengths)


def sft_lifts(evidence: Evidence) -> Finding | None:
    """Instruction data lifts reasoning: with it and without it in the same decay; a run alone has only one of the two."""
    found = evidence.study(RATIO_FILE)
    curve = found.get("shares", {}).get("accuracy")
    if curve and curve["shares"][0] == 0:
        chosen = min(range(len(curve["shares"])), key=lambda place: abs(curve["shares"][place] - _CHOSEN))
        without, with_ = (max(0.0, curve["fitted"][place]) for place in (0, chosen))
        said = f"{without:.1%} without, {with_:.1%} at a share of {curve['shares'][chosen]:.0%}"
        verdict = NOT_HELD if curve["high"][chosen] < curve["low"][0] else NOT_TOLD
        if curve["low"][chosen] > curve["high"][0]:
            verdict = HELD
        finding = Finding(verdict, f"questions answered exactly: {said}", _ratio_scale(found, _seeds_of(curve, found)))
        return unless_diverged(finding, curve)
    for run in evidence.runs:
        questions, share = run.results.get("questions", {}), run.recipe.stages.decay.sft_share
        if {"stable", "decay"} <= questions.keys() and share:
            before, after = questions["stable"]["accuracy"], questions["decay"]["accuracy"]
            measured = (
                f"questions answered exactly: {before:.1%} before the decay, {after:.1%} after it (SFT share {share:.0%}), of"
                f" {questions['decay']['count']:,}; what the decay itself did is not told from what the data did"
            )
            return Finding(NOT_TOLD, measured, run.scale)
    return None


def best_share(evidence: Evidence) -> Finding | None:
    """The best share is 60 to 69%: the interval of the optimum is within, outside, or has both."""
    found = evidence.study(RATIO_FILE)
    curve = found.get("shares", {}).get("accuracy")
    if not curve:
        return None
    (low, high), (least, most), shares = curve["interval"], REPORT_SHARES, curve["shares"]
    said = f"exact answers are best at {curve['optimum']:.0%} ({interval((low, high), 2)}): {curve['optimum_is']}"
    tried = shares[0] <= least and shares[-1] >= most and curve["verdict"] != "flat"
    if max(curve["fitted"]) < LEAST_QUESTIONS:
        verdict = NOT_TESTABLE
    elif tried and (low > most or high < least):
        verdict = NOT_HELD
    else:
        verdict = HELD if tried and least <= low and high <= most else NOT_TOLD
    return unless_diverged(Finding(verdict, said, _ratio_scale(found, _seeds_of(curve, found))), curve)


def chain_of_thought(evidence: Evidence) -> Finding | None:
    """Chain-of-thought data lifts reasoning: other instructions in its place, seed by seed.

    By questions answered exactly, or, where hardly any is, by the loss on their answers. Left out, its part goes to the questions'
    own kind too, which lifts them for another reason: that alone tells nothing.
    """
    found = evidence.study(RATIO_FILE)
    rows = {str(row["value"]): row for row in found.get("mixtures", []) if "accuracy" in row}
    own, swapped = rows.get("own"), next((row for name, row in rows.items() if name.endswith(_IN_ITS_PLACE)), None)
    if own is None or swapped is None:
        if (row := rows.get("without chain-of-thought")) is None or row["accuracy"]["difference"] is None:
            return None
        apart = row["accuracy"]["difference"]
        measured = f"answered exactly without it {apart:+.1%}, its part given to the questions' own kind too"
        return Finding(NOT_TOLD, measured, _ratio_scale(found, row["accuracy"].get("seeds", row["seeds"])))
    exact, loss = swapped["accuracy"], swapped.get("answers")
    if exact["difference"] is None:
        return None
    seeds = exact.get("seeds", min(own["seeds"], swapped["seeds"]))
    low, high = _ends(exact["difference"], exact["error"], seeds)
    measured = f"answered exactly {own['accuracy']['mean']:.1%} with it, {exact['mean']:.1%} with {swapped['value']}"
    measured += ", one seed" if exact["error"] is None else f" ({low:+.1%} to {high:+.1%})"
    verdict = HELD if high < 0 else NOT_HELD if low > 0 else NOT_TOLD
    if loss and max(own["accuracy"]["mean"], exact["mean"]) < LEAST_QUESTIONS:
        low, high = _ends(loss["difference"], loss["error"], seeds)
        measured += (
            f"; loss on their answers {loss['difference']:+.3f} nats a token ({low:+.3f} to {high:+.3f}), which decides"
        )
        verdict = HELD if low > 0 else NOT_HELD if high < 0 else NOT_TOLD
    return unless_diverged(Finding(verdict, measured, _ratio_scale(found, seeds)), own, swapped)


def law(evidence: Evidence) -> Finding | None:
    """Loss follows a law: a larger size was predicted before it was trained, closely, and apart from the next smaller one."""
    prediction = evidence.study(LAW_FILE).get("prediction")
    if not prediction:
        return None
    lengths = prediction["lengths"]
    said = [entry["without embeddings"] for entry in lengths if "percent" in entry["without embeddings"]]
    scale = f"{prediction['from']['points']} points, size {prediction['size']}"
    if len(said) < len(lengths):
        lacking = f"{len(lengths) - len(said)} of {len(lengths)} runs of the next size have no loss"
        return Finding(NOT_TOLD, f"{lacking}: diverged, or not made", scale)
    covered, worst = sum(entry["covered"] for entry in said), max(abs(entry["percent"]) for entry in said)
    measured = f"the next size predicted within {worst:.1f}%, {covered} of {len(said)} inside their intervals"
    if covered < len(said):
        # One outside of several may be the twentieth that an interval of 95% leaves out.
        return Finding(NOT_HELD if covered <= len(said) / 2 else NOT_TOLD, measured, scale)
    widest = max((entry["high"] - entry["low"]) / entry["loss"] for entry in said)
    if widest > _NARROW:  # anything is inside an interval that is wide enough
        return Finding(NOT_TOLD, f"{measured}, which are up to {widest:.0%} of the loss wide", scale)
    smaller = [entry["largest_fitted"] for entry in lengths if entry.get("largest_fitted")]
    if len(smaller) == len(said):  # predictions of earlier versions have none
        by_law = sum(abs(entry["percent"]) for entry in said) / len(said)
        by_size = sum(abs(100 * (loss / entry["measured"] - 1)) for loss, entry in zip(smaller, said, strict=True))
        if by_law >= by_size / len(said):
            measured += "; the losses of the largest fitted size are as near"
            return Finding(NOT_TOLD, measured, scale)
        if all(entry["low"] <= loss <= entry["high"] for loss, entry in zip(smaller, said, strict=True)):
            measured += "; so are all losses of the largest fitted size, and nothing need have changed"
            return Finding(NOT_TOLD, measured, scale)
    return Finding(HELD, measured, scale)


def test_time(evidence: Evidence) -> Finding | None:
    """Loss is a power law of the place in the context: it describes documents left out better than a logarithm."""
    for run in evidence.runs:
        scale = run.scale
        if found := run.newest("scaling", SCALING_FILE):
            fit, settings = found["fit"], found["settings"]
            scale += f"; context {settings['context']:,}, {short(settings['tokens'])} tokens of text"
            if not fit["determined"]:
                return Finding(NOT_TOLD, fit["complaint"], scale)
            errors = {name: each["on documents left out"] for name, each in fit["forms"].items()}
            law = min(error for name, error in errors.items() if "t^-c" in name)
            rival = min((error for name, error in errors.items() if "t^-c" not in name), default=inf)
            exponent, r2 = fit["constants"]["c"]["value"], fit["goodness"]["r2"]
            best = min(errors, key=lambda name: errors[name])
            measured = f"a + b t^-c with c = {exponent:.2f}, R² {r2:.3f}; best form: {best}"
            verdict = NOT_HELD if rival <= _CLEARLY * law else NOT_TOLD
            if law <= _CLEARLY * rival and r2 > _GOOD_FIT:
                verdict = HELD
            return Finding(verdict, measured, scale)
    return None


def calibrated(evidence: Evidence) -> Finding | None:
    """The model is calibrated: its error is no more than chance gives a calibrated one."""
    for run in evidence.runs:
        scale = run.scale
        if found := run.newest("evaluation", CALIBRATION_FILE):
            error, chance = found["ece"]["value"], found["ece_by_chance"]["high"]
            measured = f"calibration error {error:.3f}. {calibration_verdict(found)}"
            verdict = NOT_HELD if error > chance else HELD if chance <= _MOST_BY_CHANCE else NOT_TOLD
            return Finding(verdict, measured, f"{scale}; {found['task']}")
    return None


def beside_rivals(evidence: Evidence) -> Finding | None:
    """The model is among the best of its size, of which a small one tells nothing."""
    for run in evidence.runs:
        scale = run.scale
        if averages := run.newest("evaluation", RESULTS_FILE, "suites"):
            said = ", ".join(f"{name} {100 * suite['average']:.2f}" for name, suite in averages.items())
            large = block_parameter_count(run.recipe.model) >= 1e9
            return Finding(NOT_TOLD if large else NOT_TESTABLE, said, scale)
    return None


def _ends(difference: float, error: float | None, seeds: int, among: int = 1) -> tuple[float, float]:
    """Return the interval as `t_interval`; anything for one seed."""
    return t_interval(difference, error, seeds, among) or (-inf, inf)


def unless_diverged(finding: Finding, *compared: dict[str, Any]) -> Finding:
    """Return a finding, not told if any part of the comparison has a seed that diverged: its survivors are a choice."""
    seeds = sorted({seed for part in compared for seed in part.get("diverged", [])})
    if not seeds:
        return finding
    return Finding(NOT_TOLD, f"{finding.measured}; a run diverged with seed {listed(seeds)}", finding.scale)


def listed(seeds: Iterable[int]) -> str:
    """Return seeds in words."""
    return ", ".join(map(str, seeds))


def _seeds_of(curve: dict[str, Any], ratio: dict[str, Any]) -> int:
    return len({seed for seed, _, _ in curve.get("points", [])} or ratio["seeds"])


def _ratio_scale(ratio: dict[str, Any], seeds: int) -> str:
    return f"recipe {ratio['recipe']}, {counted(seeds, 'seed')}"
