"""What stands on top: a run's headline figures, or those of several side by side; and what is not there, with its command."""

import re
import shlex
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from xmodel2.eval.result_files import RESULTS_FILE, read_results
from xmodel2.eval.result_tables import MARKED, TITLES, suite_table
from xmodel2.model.count import parameter_count
from xmodel2.page import printable, table, tiles
from xmodel2.release.reporting.runs import ReportedRun
from xmodel2.release.reporting.section import Section
from xmodel2.release.results import run_results, step_folders

LAST = 20
"""Steps whose mean loss is called the last."""

_LACKS = {
    "calibration (`xmodel2 calibrate {}`)": "evaluation/step-*/calibration*.json",
    "test-time scaling (`xmodel2 scaling {}`)": "scaling/step-*/scaling.json",
    "quantised sizes and speeds (`xmodel2 quantize {}`)": "quantized/quantize.json",
}
"""What a run may lack, with what makes it, and the files that it is known by."""


def overview_section(runs: Sequence[ReportedRun]) -> Section:
    """Return the headline figures: tiles of one run, a table of several."""
    cells = {run.label: {**_training(run), **_measured(run)} for run in runs}
    if len(runs) == 1:
        body = tiles([_tile(*cell) for cell in cells[runs[0].label].items()])
    else:
        names = list(dict.fromkeys(name for row in cells.values() for name in row))
        rows = [[name, *(cells[run.label].get(name, "") for run in runs)] for name in names]
        body = table(["", *(run.label for run in runs)], rows, "The runs side by side")
    lacks = [absent(run, "" if len(runs) == 1 else f" of {run.label}") for run in runs]
    return Section("summary", "Summary", body + "".join(lacks))


def _tile(name: str, text: str) -> tuple[str, str]:
    """Return name and value of a tile: what a figure leaves out stands small, with its name."""
    value, found, notes = text.partition(" (")
    return (f"{name}: {notes.removesuffix(')')}", value) if found else (name, text)


def _training(run: ReportedRun) -> dict[str, str]:
    recipe, recorded = run.recipe, run.recorded
    cells = {
        "parameters": f"{parameter_count(recipe.model):,}",
        "steps": f"{recorded.last_step:,} / {recipe.total_steps:,}",
    }
    losses, speeds = (column[np.isfinite(column)] for column in map(recorded.column, ("loss", "tokens_per_second")))
    if len(losses):
        cells["tokens"] = f"{recorded.last_step * recipe.train.batch_tokens:,}"
        cells["training loss"] = f"{losses[-LAST:].mean():.3f} (last {min(LAST, len(losses))} steps)"
    if heldout := recorded.lines("heldout"):
        of = [row["loss"] for row in heldout[-1]["heldout"].values()]
        cells["held-out loss, mean of sources"] = f"{np.mean(of):.3f}"
    if len(speeds):
        cells["tokens/s, median"] = f"{np.median(speeds):,.0f}"
        cells["time in steps"] = duration(float(np.nansum(recorded.column("seconds"))))
    if marks := recorded.marks():
        cells["steps skipped or gone back to"] = f"{len(marks):,}"
    return cells


def _measured(run: ReportedRun) -> dict[str, str]:
    """Return accuracies and averages that were measured; what cannot be read is told elsewhere."""
    cells = {}
    try:
        results = run_results(run.path)
        questions = results.get("questions", {})
        if "decay" in questions and "stable" in questions:
            before, after = (questions[stage]["accuracy"] for stage in ("stable", "decay"))
            cells["reasoning questions, before → after decay"] = f"{before:.1%} → {after:.1%}"
        cells |= _averages(run.path)
    except Exception:  # the section that shows the file says what is wrong with it
        return cells
    return cells


def _averages(run_dir: Path) -> dict[str, str]:
    cells = {}
    for results in _evaluations(run_dir):
        for found in filter(None, (suite_table(results, suite) for suite in TITLES)):
            kept = [note for note in found.average.notes if note != MARKED]  # of columns that stand elsewhere
            notes = f" ({', '.join(kept)})" if kept else ""
            cells[f"{found.title}, average"] = f"{found.average.text}%{notes}"
    return cells


def _evaluations(run_dir: Path) -> Iterator[dict[str, Any]]:
    for folder in step_folders(run_dir):
        if (folder / RESULTS_FILE).exists():
            yield read_results(folder)


def absent(run: ReportedRun, of: str = "") -> str:
    """Return in one line what was not measured of a run; empty if all was."""
    name = printable(shlex.quote(str(run.path)))
    lacks = [what.format(name) for what, pattern in _LACKS.items() if not any(run.path.glob(pattern))]
    if not _has_benchmarks(run.path):
        lacks.insert(0, f"benchmarks (`xmodel2 eval {name} --suite commonsense,reasoning`)")
    if not run.recorded.lines("samples"):
        lacks.append("samples over training (`evaluation.prompts` in its recipe)")
    if not len(run.recorded.steps):
        lacks.insert(0, "any step of training")
    told = re.sub("`(.*?)`", r"<code>\1</code>", escape("; ".join(lacks)))
    return f'<p class="absent">Not there yet{escape(of)}: {told}.</p>' if lacks else ""


def _has_benchmarks(run_dir: Path) -> bool:
    """Whether a benchmark was scored, which held-out text and questions are none of."""
    try:
        return any(results["tasks"] for results in _evaluations(run_dir))
    except Exception:  # the section that shows the file says what is wrong with it
        return True


def duration(seconds: float) -> str:
    """Return a time in the two largest units that say enough.

    >>> duration(4000), duration(75), duration(300_000)
    ('1 h 7 min', '1 min 15 s', '3 d 11 h')
    """
    for size, unit, small, part in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if seconds >= size:
            whole, rest = divmod(round(seconds / small), size // small)
            return f"{whole} {unit} {rest} {part}"
    return f"{seconds:.0f} s"
