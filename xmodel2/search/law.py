"""A scaling law from training runs: small sizes are fitted, the next size up is predicted, written down, and then trained.

    sizes x lengths x seeds -> results.jsonl -> fit -> prediction-SIZE.json -> train SIZE -> law.json, figures/

Every run that finishes is a line of results.jsonl; called again, what is there is not made again.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from xmodel2.errors import XmodelError
from xmodel2.files import alone_in, read_json, write_json_atomic, write_text_atomic
from xmodel2.recipe import Recipe
from xmodel2.search.law_figure import law_figures
from xmodel2.search.law_fit import LEVEL, check_enough, fit_with_intervals
from xmodel2.search.law_points import Row, append_row, points_of, read_rows
from xmodel2.search.law_report import LawReport, constants, error_of, report_on
from xmodel2.search.law_runs import Job, jobs_of, run_job
from xmodel2.search.over_seeds import mean_and_error
from xmodel2.search.setting import same_setting

RESULTS_FILE = "results.jsonl"

Say = Callable[[str], None]


@dataclass(frozen=True)
class LawPlan:
    """What to train."""

    widths: tuple[int, ...]
    """Sizes that are fitted."""
    tokens: tuple[int, ...]
    """Lengths, decay included."""
    then: int | None = None
    """Width that is predicted before it is trained, by one run of each length."""
    seeds: int = 1
    """Runs of each size and length, with the recipe's seed and those after it."""


def run_law(
    recipe: Recipe,
    plan: LawPlan,
    out: Path,
    budgets: Sequence[float] = (),
    draws: int = 400,
    say: Say = print,
    run: Callable[[Job, Path], Row] = run_job,
) -> dict[str, Any]:
    """Train what ``out`` lacks of a plan, fit, predict, and return the contents of law.json.

    Raises `XmodelError` before anything is trained if the plan can't give a law, or ``out`` began with another recipe or
    other data; KeyboardInterrupt if a signal stopped it, saved.
    """
    small, large = _jobs(recipe, plan)
    check_enough(points_of([job.row(loss=1.0) for job in small]))
    if plan.then and plan.then <= max(plan.widths):
        raise XmodelError(f"--then {plan.then}: is not above the largest of --widths, {max(plan.widths)}")
    with alone_in(out):
        small, large = _jobs(same_setting(recipe, out), plan)
        results, progress = out / RESULTS_FILE, _Progress([*small, *large], say)
        _make(small, out, progress, run)
        report = report_on(_rows_of(results, small), budgets, draws, recipe.seed)
        prediction = _predict(report, large, out) if large else None
        _make(large, out, progress, run)
        value = report.to_dict()
        if prediction:
            value["prediction"] = _compared(prediction, _rows_of(results, large))
            every = points_of(_rows_of(results, [*small, *large]))
            value["with_the_predicted_size"] = constants(fit_with_intervals(every, draws=draws, seed=recipe.seed))
        _write(value, report, out)
    return value


def fit_points(
    path: Path, out: Path | None = None, budgets: Sequence[float] = (), draws: int = 400, seed: int = 0
) -> dict[str, Any]:
    """Fit the rows of a file and return what law.json holds; with ``out``, write it and the figures. Raises `XmodelError`."""
    rows = read_rows(path)
    try:
        report = report_on(rows, budgets, draws, seed)
    except XmodelError as error:
        raise XmodelError(f"{path}: {error}") from None
    value = report.to_dict()
    if out:
        _write(value, report, out)
    return value


def _make(jobs: Sequence[Job], out: Path, progress: "_Progress", run: Callable[[Job, Path], Row]) -> None:
    results = out / RESULTS_FILE
    for job in jobs:
        if job.key in _known(results):
            progress.passed(job)
            continue
        row = run(job, out / "runs")
        append_row(results, row)
        progress.made(job, row)


def _known(results: Path) -> dict[tuple[str, int, int], Row]:
    rows = read_rows(results, unfinished=True) if results.exists() else []
    return {(row.size, row.tokens, row.seed): row for row in rows}


def _rows_of(results: Path, jobs: Sequence[Job]) -> list[Row]:
    known = _known(results)
    return [known[job.key] for job in jobs]


def _predict(report: LawReport, jobs: Sequence[Job], out: Path) -> dict[str, Any]:
    """Write what the law says of a size that was not trained yet, or return what it said before training began."""
    size, path = jobs[0].size, out / f"prediction-{jobs[0].size}.json"
    begun = any((out / "runs").glob(f"{size}-seed-*")) or any(key[0] == size for key in _known(out / RESULTS_FILE))
    if begun:
        before: dict[str, Any] | None = read_json(path)
        if before is None:
            raise XmodelError(
                f"{out}: size {size} is trained already and {path.name} is not there; a prediction must come before: give"
                " another --then, or another --out"
            )
        missing = {job.tokens for job in jobs} - {row["tokens"] for row in before["lengths"]}
        if missing:
            raise XmodelError(
                f"{path}: was made before training for other lengths than {', '.join(f'{t:,}' for t in sorted(missing))};"
                " give the same --tokens, or another --out"
            )
        return before
    lengths, row = [], jobs[0].row()
    sizes = {"without embeddings": row.parameters, "with embeddings": row.parameters_total or row.parameters}
    for job in jobs:
        entry: dict[str, Any] = {"tokens": job.tokens, "largest_fitted": _of_largest(report.rows, job.tokens)}
        for counting, counted in report.counted.items():
            values = {"parameters": float(sizes[counting]), "tokens": float(job.tokens)}
            loss, low, high = counted.fit.predict(**values)
            by_squares = counted.squares.loss(**values)
            entry[counting] = {"loss": loss, "low": low, "high": high, "by_squares": by_squares}
        lengths.append(entry)
    value = {
        "size": size,
        "parameters": sizes,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "interval": LEVEL,
        "from": {"sizes": sorted({row.size for row in report.rows}), "points": len(report.main.points)},
        "laws": {counting: counted.fit.law.to_dict() for counting, counted in report.counted.items()},
        "lengths": lengths,
    }
    write_json_atomic(path, value)
    return value


def _of_largest(rows: Sequence[Row], tokens: int) -> float | None:
    """Return the mean loss of the largest size's runs of a length, which a law must predict better than; None without one."""
    largest = max(row.parameters for row in rows)
    losses = [row.loss for row in rows if (row.parameters, row.tokens, row.ended) == (largest, tokens, "")]
    return mean_and_error(losses)[0]


def _compared(prediction: dict[str, Any], rows: Sequence[Row]) -> dict[str, Any]:
    """Return the prediction beside what was measured; a run that diverged has no error."""
    measured = {row.tokens: row.loss for row in rows if not row.ended}
    lengths = []
    for entry in prediction["lengths"]:
        loss = measured.get(entry["tokens"])
        compared = dict(entry)
        for counting in prediction["laws"]:
            said = entry[counting]
            found = (
                {} if loss is None else {**error_of(said["loss"], loss), "covered": said["low"] <= loss <= said["high"]}
            )
            compared[counting] = said | found
        lengths.append(compared)
    return prediction | {"lengths": lengths}


def _write(value: dict[str, Any], report: LawReport, out: Path) -> None:
    write_json_atomic(out / "law.json", value)
    for name, figure in law_figures(report, value.get("prediction")).items():
        write_text_atomic(out / "figures" / f"{name}.svg", figure)


def _jobs(recipe: Recipe, plan: LawPlan) -> tuple[list[Job], list[Job]]:
    """Return the runs that are fitted, and those of the size that is predicted."""
    seeds = range(recipe.seed, recipe.seed + plan.seeds)
    small = [
        job for width in sorted(set(plan.widths)) for seed in seeds for job in jobs_of(recipe, width, plan.tokens, seed)
    ]
    return small, jobs_of(recipe, plan.then, plan.tokens, recipe.seed) if plan.then else []


class _Progress:
    """Says what each run gave, and how long the others will take at the pace (FLOP/s) of those made so far."""

    def __init__(self, jobs: Sequence[Job], say: Say) -> None:
        self._left = sum(job.flops for job in jobs)
        self._number, self._total, self._say = 0, len(jobs), say
        self._begin, self._done = time.perf_counter(), 0.0

    def passed(self, job: Job) -> None:
        """Count a run that an earlier call made."""
        self._number += 1
        self._left -= job.flops

    def made(self, job: Job, row: Row) -> None:
        """Say what a run gave."""
        self.passed(job)
        self._done += job.flops
        seconds = (time.perf_counter() - self._begin) / self._done * self._left
        gave = row.ended or f"loss {row.loss:.4f}"
        self._say(
            f"{self._number}/{self._total}  {job.size} seed {job.recipe.seed}, {job.tokens:,} tokens: {gave}"
            f"  ({row.seconds:.0f} s; {seconds:.0f} s left)"
        )
