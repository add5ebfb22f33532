"""Interactive curves of training: what curves.js draws, as compact JSON in the page, and figures where scripts don't run.

Recorded --thinned: least and greatest of each bucket, so spikes stay; and its mean--> JSON --curves.js--> canvases
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from html import escape
from itertools import pairwise
from typing import Any

import numpy as np

from xmodel2.release.reporting.runs import ReportedRun
from xmodel2.release.reporting.section import Section
from xmodel2.release.reporting.shell import data_block
from xmodel2.release.reporting.static_curves import falls, static_curves

BUCKETS = 1500
"""Of a curve; a shorter one is kept whole, a longer one is shown with the least and greatest value of each."""
DIGITS = 5
"""Significant digits of a value."""
MOST_MARKS = 400
"""Of a run."""
CLOCK = 600
"""Points from which the script interpolates the time of a step."""

_CHARTS = (
    # column, title, unit, whether it is smoothed
    ("loss", "Training loss", "nats a token", True),
    ("learning_rate", "Learning rate", "", False),
    ("grad_norm", "Gradient norm, before clipping", "", True),
    ("tokens_per_second", "Speed", "tokens a second", True),
    ("mfu", "Share of the measured peak (MFU)", "%", True),
    ("memory_bytes", "Memory", "GB", False),
)
_TALL = ("loss", "heldout", "scores")
_SCALE = {"mfu": 100.0, "memory_bytes": 1e-9}


def curves_section(runs: Sequence[ReportedRun], live: bool = False) -> Section | None:
    """Return the curves of all runs, None if none made a step. ``live``: without the figures for readers without scripts."""
    if not any(len(run.recorded.steps) for run in runs):
        return None
    still = "" if live else "\n".join(static_curves(runs))
    body = (
        '<div id="charts"></div>'
        f'<div id="still">{still or "<noscript><p>Curves need scripts while the run goes on.</p></noscript>"}</div>'
        f"{data_block('curves-data', curve_data(runs))}{damaged_lines(runs)}"
    )
    return Section("curves", "Training curves", body)


def damaged_lines(runs: Sequence[ReportedRun]) -> str:
    """Return a note on lines of metrics.jsonl that cannot be read; empty if there are none."""
    notes = [
        f"{run.recorded.path}: {len(lines):,} of its lines cannot be read and are left out (the first: line {lines[0]:,}); "
        "a kill in the midst of writing leaves one."
        for run in runs
        if (lines := run.recorded.damaged)
    ]
    return "".join(f'<p class="sample" role="note">{escape(note)}</p>' for note in notes)


def curve_data(runs: Sequence[ReportedRun]) -> dict[str, Any]:
    """Return what curves.js draws: {"runs", "charts"}; a chart's lines name their run by its number."""
    charts = []
    for column, title, unit, smooth in _CHARTS:
        lines = [
            {"run": number, **thinned(run.recorded.steps, run.recorded.column(column) * _SCALE.get(column, 1.0))}
            for number, run in enumerate(runs)
        ]
        charts.append(_chart(column, title, unit, lines, smooth=smooth))
    measured = (
        ("heldout", "Held-out loss by source", "nats a token", _heldout),
        ("scores", "Benchmark scores while training", "%", partial(_scores, falling=False)),
        ("falling", "Perplexity while training", "a word", partial(_scores, falling=True)),
    )
    charts[1:1] = [
        _chart(name, title, unit, [line for i, run in enumerate(runs) for line in _sparse(i, points(run))])
        for name, title, unit, points in measured
    ]
    return {"runs": [_run(run) for run in runs], "charts": [chart for chart in charts if chart["lines"]]}


def _chart(name: str, title: str, unit: str, lines: Iterable[dict[str, Any]], smooth: bool = False) -> dict[str, Any]:
    height = "tall" if name in _TALL else ""
    kept = [line for line in lines if line["v"]]
    return {"id": name, "title": title, "unit": unit, "height": height, "smooth": smooth, "lines": kept}


def _run(run: ReportedRun) -> dict[str, Any]:
    recipe, recorded = run.recipe, run.recorded
    steps, seconds = recorded.steps, np.nan_to_num(recorded.column("seconds")).cumsum()
    kept = np.unique(np.linspace(0, max(0, len(steps) - 1), min(len(steps), CLOCK)).astype(int))
    marks = recorded.marks()
    return {
        "name": run.label,
        "batch": recipe.train.batch_tokens,
        "stable": recipe.stable_steps,
        "clock": [steps[kept].tolist(), [round(float(s), 1) for s in seconds[kept]]],
        "marks": [[mark.step, mark.text[:200]] for mark in marks[:MOST_MARKS]],
        "more_marks": max(0, len(marks) - MOST_MARKS),
    }


def _heldout(run: ReportedRun) -> Iterator[tuple[str, int, float]]:
    for line in run.recorded.lines("heldout"):
        for source, row in line["heldout"].items():
            yield source, line["step"], row["loss"]


def _scores(run: ReportedRun, falling: bool) -> Iterator[tuple[str, int, float]]:
    """Yield (task, step, score) of benchmarks, in percent, or of those whose perplexity falls."""
    for line in run.recorded.lines("evaluation"):
        for task, score in line.get("scores", {}).items():
            if falls(task) == falling:
                yield task, line["step"], score if falling else 100 * score


def _sparse(run: int, points: Iterable[tuple[str, int, float]]) -> list[dict[str, Any]]:
    """Return a line for each name, with a dot for each measurement."""
    by_name: dict[str, list[tuple[int, float]]] = {}
    for name, step, value in points:
        by_name.setdefault(name, []).append((step, value))
    lines = []
    for name, found in by_name.items():
        steps, values = (np.array(part) for part in zip(*found, strict=True))
        lines.append({"run": run, "name": name, "dots": True, **thinned(steps, values)})
    return lines


def thinned(steps: np.ndarray, values: np.ndarray, buckets: int = BUCKETS) -> dict[str, Any]:
    """Return "s" steps and "v" values, ascending by step; of a long curve with "m", (steps, means) of its buckets.

    Values that are not finite are left out. Of each bucket of a long curve the least and the greatest value are kept.

    >>> thinned(np.arange(1, 9), np.array([3.0, 1, 2, 9, 4, 4, 5, 4]), buckets=2)
    {'s': [2, 4, 5, 7], 'v': [1.0, 9.0, 4.0, 5.0], 'm': [[2, 6], [3.75, 4.25]]}
    """
    finite = np.isfinite(values)
    steps, values = steps[finite], values[finite]
    if len(values) <= 2 * buckets:
        return {"s": steps.tolist(), "v": [_short(value) for value in values.tolist()]}
    edges = np.linspace(0, len(values), buckets + 1).astype(int)
    kept, middle, means = list[int](), list[int](), list[float]()
    for low, high in pairwise(edges):
        part = values[low:high]
        kept += sorted({low + int(part.argmin()), low + int(part.argmax())})
        middle.append(int(steps[(low + high - 1) // 2]))
        means.append(_short(float(part.mean())))
    return {"s": steps[kept].tolist(), "v": [_short(value) for value in values[kept].tolist()], "m": [middle, means]}


def _short(value: float) -> float:
    if value == 0 or not math.isfinite(value):
        return 0.0
    return round(value, DIGITS - 1 - math.floor(math.log10(abs(value))))
