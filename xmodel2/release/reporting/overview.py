"""What stands on top: a run's headline figures, or those of several side by side; and what is not there, with its command."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np

from xmodel2.eval.result_files import RESULTS_FILE, read_results
from xmodel2.eval.result_tables import TITLES
from xmodel2.model.count import parameter_count
from xmodel2.page import printable, table, tiles
from xmodel2.release.reporting.runs import ReportedRun
from xmodel2.release.reporting.section import Section
from xmodel2.release.results import run_results, step_folders

LAST = 20
"""Steps whose mean loss is called the last."""

_LACKS = (
    # what, folder below the run, file pattern in it, command
    ("held-out losses and benchmarks", "evaluation", "results.json", "xmodel2 eval"),
    ("calibration (Figure 4)", "evaluation", "calibration*.json", "xmodel2 calibrate"),
    ("test-time scaling (Figure 5)", "scaling", "scaling.json", "xmodel2 scaling"),
)


def overview_section(runs: Sequence[ReportedRun]) -> Section:
    """Return the headline figures: tiles of one run, a table of several."""
    cells = {run.label: {**_training(run), **_measured(run)} for run in runs}
    if len(runs) == 1:
        body = tiles(list(cells[runs[0].label].items()))
    else:
        names = list(dict.fromkeys(name for row in cells.values() for name in row))
        rows = [[name, *(cells[run.label].get(name, "") for run in runs)] for name in names]
        body = table(["", *(run.label for run in runs)], rows, "The runs side by side")
    return Section("summary", "Summary", body + "".join(map(absent, runs) if len(runs) == 1 else map(_absent_of, runs)))


def _training(run: ReportedRun) -> dict[str, str]:
    recipe, recorded = run.recipe, run.recorded
    cells = {
        "parameters": f"{parameter_count(recipe.model):,}",
        "steps": f"{recorded.last_step:,} / {recipe.total_steps:,}",
    }
    losses, speeds = (column[np.isfinite(column)] for column in map(recorded.column, ("loss", "tokens_per_second")))
    if len(losses):
        cells["tokens"] = f"{recorded.last_step * recipe.train.batch_tokens:,}"
        cells[f"training loss, last {min(LAST, len(losses))} steps"] = f"{losses[-LAST:].mean():.3f}"
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
    for folder in step_folders(run_dir):
        if (folder / RESULTS_FILE).exists():
            for name, suite in read_results(folder).get("suites", {}).items():
                cells[f"{TITLES[name]}, average"] = f"{100 * suite['average']:.2f}%"
    return cells


def absent(run: ReportedRun) -> str:
    """Return in one line what was not measured of a run; empty if all was."""
    lacks = [
        f"{escape(what)} (<code>{command} {escape(printable(str(run.path)))}</code>)"
        for what, kind, pattern, command in _LACKS
        if not any(any(folder.glob(pattern)) for folder in step_folders(run.path, kind))
    ]
    if not len(run.recorded.steps):
        lacks.insert(0, "any step of training")
    return f'<p class="absent">Not there yet: {", ".join(lacks)}.</p>' if lacks else ""


def _absent_of(run: ReportedRun) -> str:
    return absent(run).replace("Not there yet", f"Not there yet of {escape(run.label)}", 1)


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
