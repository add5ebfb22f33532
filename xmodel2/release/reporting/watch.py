"""A report that follows training: written again whenever the run's files changed, and a last time when it ends."""

import time
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

import numpy as np

from xmodel2.release.reporting.build import Report
from xmodel2.release.reporting.overview import duration
from xmodel2.release.reporting.runs import ReportedRun

EVERY = 5.0
"""Seconds between looks at the files."""
SETTLED = 2
"""Looks without a change after which a run whose last step is made has ended: its last files come after that step."""
RECENT = 100
"""Steps whose median time tells the time left."""
LEAST_PATIENCE = 120.0
"""Seconds without a change after which the page says so, or 20 steps if that is more."""


def watch_report(
    paths: Sequence[Path], out: Path, every: float = EVERY, pause: Callable[[float], None] = time.sleep
) -> Path:
    """Keep ``out`` up to date until the runs have ended, or Ctrl-C; return it, then a page that no longer loads itself.

    Raises `XmodelError` as `build_report`.
    """
    report, quiet = Report(paths, out), -1
    try:
        while True:
            changed = report.read_on() or quiet < 0
            quiet = 0 if changed else quiet + 1
            if changed and not all(run.ended for run in report.runs):
                report.write(live_line(report.runs, every, time.time()))
            if quiet >= SETTLED and all(run.ended for run in report.runs):
                break
            pause(every)
    except KeyboardInterrupt:  # how a reader ends it
        report.read_on()
    return report.write()


def live_line(runs: Sequence[ReportedRun], every: float, now: float) -> str:
    """Return the line on top of a page that follows runs; watch.js reads its figures. ``now``: seconds since 1970."""
    told = "; ".join(progress(run) if len(runs) == 1 else f"{run.label}: {progress(run)}" for run in runs)
    pace = max((_pace(run) for run in runs), default=0.0)
    clock = time.strftime("%H:%M:%S", time.localtime(now))
    return (
        f'<p class="live" id="live" data-every="{every:g}" data-updated="{now:.0f}" '
        f'data-patience="{max(LEAST_PATIENCE, 20 * pace):.0f}"><b>live</b>: updated {clock}, {escape(told)}</p>'
    )


def progress(run: ReportedRun) -> str:
    """Return where a run is and, as far as its last steps tell, when it will end."""
    step, total = run.recorded.last_step, run.recipe.total_steps
    said = f"step {step:,} of {total:,}"
    left = (total - step) * _pace(run)
    return f"{said}, {duration(left)} of steps left" if left else said


def _pace(run: ReportedRun) -> float:
    """Return the median seconds of a step of late, 0 if none was made."""
    seconds = run.recorded.column("seconds")[-RECENT:]
    seconds = seconds[np.isfinite(seconds)]
    return float(np.median(seconds)) if len(seconds) else 0.0
