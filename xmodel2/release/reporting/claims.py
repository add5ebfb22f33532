"""The claims ledger: what the report claims, and what was measured of it here.

    folders of runs, searches, transfers, ratios, laws -> Evidence -> a row a claim: measured, scale, verdict, command

A verdict is said of the scale that it was measured at, and of nothing else. A claim without evidence is "not measured" and one
that no small model can show is "not testable at this scale"; neither is left out.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xmodel2.eval.calibration_page import PAPER_TASK
from xmodel2.eval.calibration_page import verdict as calibration_verdict
from xmodel2.eval.result_files import RESULTS_FILE
from xmodel2.eval.test_time import RESULT_FILE as SCALING_FILE
from xmodel2.files import read_json
from xmodel2.model.count import block_parameter_count
from xmodel2.page import table
from xmodel2.recipe import Recipe, load_recipe
from xmodel2.release.reporting.section import Section
from xmodel2.release.reporting.wind_tunnel import LAW_FILE, RATIO_FILE, interval
from xmodel2.release.results import run_results, step_folders
from xmodel2.search.coordinate_run import SUMMARY_FILE as COORDINATE_FILE
from xmodel2.search.transfer import RESULT_FILE as TRANSFER_FILE
from xmodel2.train.run_dir import RECIPE_FILE

HELD, NOT_HELD, NOT_TOLD = "held", "not held", "not told"
NOT_MEASURED, NOT_TESTABLE = "not measured", "not testable at this scale"
REPORT_SHARES = (0.60, 0.69)
"""SFT shares among which the report's search found the best."""
_LEAST_QUESTIONS = 0.02
"""Share of questions answered exactly below which a model answers none that it could not guess."""


@dataclass(frozen=True)
class Finding:
    """What was measured of a claim."""

    verdict: str
    measured: str
    scale: str


@dataclass(frozen=True)
class Claim:
    """A claim of the report."""

    text: str
    judge: Callable[["Evidence"], Finding | None]
    command: str
    """What measures it."""


@dataclass(frozen=True)
class RunFound:
    """What was measured of one run."""

    recipe: Recipe
    results: dict[str, Any]
    calibration: dict[str, Any] | None
    scaling: dict[str, Any] | None

    @property
    def scale(self) -> str:
        """Size and length of the run."""
        tokens = self.recipe.total_steps * self.recipe.train.batch_tokens
        return f"{_short(block_parameter_count(self.recipe.model))} parameters in blocks, {_short(tokens)} tokens"


@dataclass(frozen=True)
class Evidence:
    """Everything that the folders hold; None for what is in none of them."""

    coordinate: dict[str, Any] | None
    transfer: dict[str, Any] | None
    ratio: dict[str, Any] | None
    law: dict[str, Any] | None
    runs: list[RunFound]


def collect(folders: Sequence[Path]) -> Evidence:
    """Read what the folders hold; of two of a kind the first counts. Raises `XmodelError` naming a damaged file."""

    def first(name: str) -> dict[str, Any] | None:
        return next((found for folder in folders if (found := read_json(folder / name)) is not None), None)

    runs = [
        _run(folder) for folder in folders if (folder / "metrics.jsonl").exists() and (folder / RECIPE_FILE).exists()
    ]
    return Evidence(first(COORDINATE_FILE), first(TRANSFER_FILE), first(RATIO_FILE), first(LAW_FILE), runs)


def claims_section(folders: Sequence[Path]) -> Section:
    """Return the ledger of what the folders hold."""
    head = ["claim of the report", "verdict", "measured here", "at the scale of", "command"]
    return Section("claims", "Claims", table(head, ledger(folders), "Each is said of its scale alone"))


def ledger(folders: Sequence[Path]) -> list[list[str]]:
    """Return a row a claim: claim, verdict, measured, scale, command."""
    evidence = collect(folders)
    rows = []
    for claim in CLAIMS:
        found = claim.judge(evidence) or Finding(NOT_MEASURED, "", "")
        rows.append([claim.text, found.verdict, found.measured, found.scale, claim.command])
    return rows


def _steady(evidence: Evidence) -> Finding | None:
    if not (found := evidence.coordinate):
        return None
    case = found["cases"].get("all rules")
    if not case:
        return None
    sizes, seeds = case["width"]["sizes"], found["settings"]["seeds"]
    slopes = [abs(f["figure"]) for f in case["findings"] if f["criterion"] == "change over width"]
    others = [name for name in found["cases"] if name.startswith("no ")]
    needed = [name for name in others if not found["cases"][name]["held"]]
    measured = f"steepest slope of a change over width {max(slopes):.3f}; {len(needed)} of {len(others)} rules, left out, break it"
    return Finding(
        HELD if case["held"] else NOT_HELD, measured, f"widths {min(sizes)} to {max(sizes):,}, {seeds} seeds"
    )


def _carries_over(evidence: Evidence) -> Finding | None:
    for sweep in (evidence.transfer or {"sweeps": []})["sweeps"]:
        if sweep["sweep"] == "learning_rate-width" and sweep["parametrization"] == "tensor_program":
            sizes = [optimum["size"] for optimum in sweep["optima"]]
            measured = f"the best rate moves {sweep['octaves']:+.2f} octaves"
            if sweep["interval"]:
                measured += f" ({interval(sweep['interval'], 2)})"
            kind, _, why = sweep["verdict"].partition(": ")
            return Finding(kind, measured + (f"; {why}" if why else ""), f"widths {min(sizes)} to {max(sizes):,}")
    return None


def _wsd(evidence: Evidence) -> Finding | None:
    rows = [row for row in (evidence.ratio or {"schedules": []})["schedules"] if row["difference"] is not None]
    if not rows:
        return None
    worst = max(row["difference"] + 2 * (row["error"] or 0.0) for row in rows)
    best, least = (pick(row["difference"] for row in rows) for pick in (min, max))
    measured = (
        f"WSD less cosine {best:+.3f} to {least:+.3f} nats a token at {len(rows)} lengths, from one stable run a seed"
    )
    verdict = (
        HELD if worst <= 0 else NOT_HELD if least > 0 and all(row["error"] is not None for row in rows) else NOT_TOLD
    )
    tokens = [row["tokens"] for row in rows]
    return Finding(verdict, measured, f"{_short(min(tokens))} to {_short(max(tokens))} tokens")


def _sft_lifts(evidence: Evidence) -> Finding | None:
    curve = ((evidence.ratio or {}).get("shares") or {}).get("accuracy")
    if curve:
        without, with_ = curve["fitted"][0], _at(curve, 0.64)
        apart = curve["low"][_place(curve, 0.64)] > curve["high"][0]
        measured = f"questions answered exactly: {max(0.0, without):.1%} without, {with_:.1%} at a share of 64%"
        return Finding(HELD if apart else NOT_TOLD, measured, _ratio_scale(evidence))
    for run in evidence.runs:
        questions = run.results.get("questions", {})
        if {"stable", "decay"} <= questions.keys():
            before, after = questions["stable"]["accuracy"], questions["decay"]["accuracy"]
            count = questions["decay"]["count"]
            noise = 2 * (max(after * (1 - after), before * (1 - before)) / count) ** 0.5 if count else 1.0
            verdict = HELD if after - before > noise else NOT_HELD if before - after > noise else NOT_TOLD
            share = run.recipe.stages.decay.sft_share
            measured = f"questions answered exactly: {before:.1%} before the decay, {after:.1%} after it (SFT share {share:.0%})"
            return Finding(verdict, measured, run.scale)
    return None


def _best_share(evidence: Evidence) -> Finding | None:
    curve = ((evidence.ratio or {}).get("shares") or {}).get("accuracy")
    if not curve:
        return None
    measured = (
        f"exact answers are best at {curve['optimum']:.0%} ({interval(curve['interval'], 2)}): {curve['optimum_is']}"
    )
    low, high = curve["interval"]
    if max(curve["fitted"]) < _LEAST_QUESTIONS or curve["verdict"] != "inside":
        return Finding(NOT_TESTABLE, measured, _ratio_scale(evidence))
    agrees = low <= REPORT_SHARES[1] and high >= REPORT_SHARES[0]
    return Finding(HELD if agrees else NOT_HELD, measured, _ratio_scale(evidence))


def _chain_of_thought(evidence: Evidence) -> Finding | None:
    for row in (evidence.ratio or {"mixtures": []})["mixtures"]:
        if str(row["value"]).startswith("without ") and "chain-of-thought" in str(row["value"]) and "accuracy" in row:
            cell = row["accuracy"]
            if cell["difference"] is None:
                return None
            measured = f"answered exactly without it {cell['difference']:+.1%}"
            if cell["error"] is None:
                return Finding(NOT_TOLD, f"{measured}, one seed", _ratio_scale(evidence))
            low, high = cell["difference"] - 2 * cell["error"], cell["difference"] + 2 * cell["error"]
            verdict = HELD if high < 0 else NOT_HELD if low > 0 else NOT_TOLD
            return Finding(verdict, f"{measured} ± {2 * cell['error']:.1%}", _ratio_scale(evidence))
    return None


def _law(evidence: Evidence) -> Finding | None:
    prediction = (evidence.law or {}).get("prediction")
    if not prediction:
        return None
    said = [entry["without embeddings"] for entry in prediction["lengths"] if "percent" in entry["without embeddings"]]
    if not said:
        return None
    covered, worst = sum(entry["covered"] for entry in said), max(abs(entry["percent"]) for entry in said)
    measured = f"the next size predicted within {worst:.1f}%, {covered} of {len(said)} inside their intervals"
    points = prediction["from"]["points"]
    return Finding(HELD if covered == len(said) else NOT_HELD, measured, f"{points} points, size {prediction['size']}")


def _test_time(evidence: Evidence) -> Finding | None:
    for run in evidence.runs:
        if run.scaling:
            fit, settings = run.scaling["fit"], run.scaling["settings"]
            scale = f"{run.scale}; context {settings['context']:,}, {_short(settings['tokens'])} tokens of text"
            if not fit["determined"]:
                return Finding(NOT_TOLD, fit["complaint"], scale)
            forms = {name: errors["on documents left out"] for name, errors in fit["forms"].items()}
            best = min(forms, key=lambda name: forms[name])
            exponent, r2 = fit["constants"]["c"]["value"], fit["goodness"]["r2"]
            measured = f"a + b t^-c with c = {exponent:.2f}, R² {r2:.3f}; best form: {best}"
            return Finding(HELD if best == "a + b t^-c" and r2 > 0.9 else NOT_HELD, measured, scale)
    return None


def _calibrated(evidence: Evidence) -> Finding | None:
    for run in evidence.runs:
        if found := run.calibration:
            within = found["ece"]["value"] <= found["ece_by_chance"]["high"]
            measured = f"calibration error {found['ece']['value']:.3f}. {calibration_verdict(found)}"
            return Finding(HELD if within else NOT_HELD, measured, f"{run.scale}; {found['task']}")
    return None


def _beside_rivals(evidence: Evidence) -> Finding | None:
    for run in evidence.runs:
        if averages := run.results.get("suites"):
            said = ", ".join(f"{name} {100 * suite['average']:.2f}" for name, suite in averages.items())
            return Finding(NOT_TESTABLE, said, run.scale)
    return None


def _no_folder_tells(evidence: Evidence) -> None:
    return None


CLAIMS = (
    Claim(
        "Tensor programs keep activations and their changes steady as width grows (Table 6)",
        _steady,
        "xmodel2 transfer RECIPE --sweeps coordinate",
    ),
    Claim(
        "Hyperparameters found on a small model carry over to larger ones",
        _carries_over,
        "xmodel2 transfer RECIPE --sweeps learning_rate-width",
    ),
    Claim(
        "WSD is at least as good as cosine, and one stable run serves many budgets",
        _wsd,
        "xmodel2 ratio RECIPE --compare cosine",
    ),
    Claim("Instruction data in the decay lifts reasoning", _sft_lifts, "xmodel2 ratio RECIPE --compare shares"),
    Claim("Its best share is 60 to 69%", _best_share, "xmodel2 ratio RECIPE --compare shares"),
    Claim("Chain-of-thought data lifts reasoning", _chain_of_thought, "xmodel2 ratio RECIPE --compare mixtures"),
    Claim("Instruction format beats pretraining format for the same facts", _no_folder_tells, ""),
    Claim("Loss follows a law of parameters and tokens", _law, "xmodel2 law RECIPE --then SIZE"),
    Claim("Loss falls as a power law of the place in the context (Figure 5)", _test_time, "xmodel2 scaling RUN"),
    Claim(f"The model is calibrated on {PAPER_TASK.upper()} (Figure 4)", _calibrated, "xmodel2 calibrate RUN"),
    Claim(
        "At 1.2B it is among the best of fourteen models of its size (Tables 2 to 4, Figure 1)",
        _beside_rivals,
        "xmodel2 eval RUN --suite commonsense,reasoning,agents",
    ),
    Claim("Sharing embedding and head costs little (0.1B parameters saved)", _no_folder_tells, ""),
    Claim("Deep and thin beats wide and shallow at equal size", _no_folder_tells, ""),
    Claim("Grouped-query attention costs little quality", _no_folder_tells, ""),
    Claim(
        "A Unigram tokenizer serves better than BPE",
        _no_folder_tells,
        "xmodel2 tokenizer inspect UNIGRAM BPE --files TEXTS",
    ),
)
"""In the order of the report."""


def _run(folder: Path) -> RunFound:
    calibration, scaling = None, None
    results = run_results(folder)
    for step in step_folders(folder):
        calibration = read_json(step / "calibration.json") or calibration
        results["suites"] = (read_json(step / RESULTS_FILE) or {}).get("suites") or results.get("suites")
    for step in step_folders(folder, "scaling"):
        scaling = read_json(step / SCALING_FILE) or scaling
    return RunFound(load_recipe(folder / RECIPE_FILE), results, calibration, scaling)


def _place(curve: dict[str, Any], share: float) -> int:
    return min(range(len(curve["shares"])), key=lambda i: abs(curve["shares"][i] - share))


def _at(curve: dict[str, Any], share: float) -> float:
    return max(0.0, float(curve["fitted"][_place(curve, share)]))


def _ratio_scale(evidence: Evidence) -> str:
    assert evidence.ratio is not None
    return f"recipe {evidence.ratio['recipe']}, {len(evidence.ratio['seeds'])} seeds"


def _short(number: float) -> str:
    """Return a count in three digits.

    >>> _short(1_251_755_520)
    '1.25B'
    """
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.0f}"
