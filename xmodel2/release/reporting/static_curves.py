"""Figures of training as SVG, for print and for readers without scripts: loss and learning rate (Figure 3), held-out, scores."""

from collections.abc import Sequence
from html import escape
from itertools import cycle, pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from xmodel2.eval.tasks import TASKS
from xmodel2.plots import BLUE, GREY, ORANGE, PALETTE, colors, svg
from xmodel2.release.reporting.runs import ReportedRun

POINTS = 1200
"""Of a curve, at most twice as many: a figure is some thousand pixels wide in print."""


def static_curves(runs: Sequence[ReportedRun]) -> list[str]:
    """Return the figures of one run, or of several: their losses in one, the rest a figure each."""
    made = [run for run in runs if len(run.recorded.steps)]
    figures = []
    if len(made) == 1:
        figures.append(figure(loss_curve(made[0]), "Training loss by tokens (as Figure 3)"))
    elif made:
        figures.append(figure(loss_curves(made), "Training loss by tokens, smoothed; dotted: decay begins"))
    for run in made:
        of = "" if len(made) == 1 else f", {run.label}"
        if lines := run.recorded.lines("heldout"):
            figures.append(figure(heldout_curves(lines, _stable(run)), f"Held-out loss by source{of}"))
        lines = [line for line in run.recorded.lines("evaluation") if line.get("scores")]
        figures += _score_figures(lines, _stable(run), run.recipe.evaluation.limit, of)
    return figures


def figure(drawing: str, caption: str) -> str:
    """Return a figure element."""
    return f'<figure role="img" aria-label="{escape(caption)}">{drawing}<figcaption>{escape(caption)}</figcaption></figure>'


def loss_curve(run: ReportedRun) -> str:
    """Return training loss by tokens, both stages shaded, with the learning rate on the right axis (Figure 3)."""
    drawing, axes = _axes()
    stable = _stable(run)
    tokens, losses, rates = _columns(run)
    end = tokens[-1]
    axes.axvspan(0, min(stable, end), color=BLUE, alpha=0.06)
    if end > stable:
        axes.axvspan(stable, end, color=ORANGE, alpha=0.10)
    axes.plot(*_thin(tokens, losses), color=BLUE, linewidth=0.7, alpha=0.35)
    axes.plot(*_thin(tokens, smoothed(losses)), color=BLUE, linewidth=1.8, label="training loss")
    axes.set_ylabel("loss, nats a token")
    above: dict[str, Any] = {"transform": axes.get_xaxis_transform(), "va": "bottom"}
    axes.text(0, 1.01, "stable", color=BLUE, **above)
    if end > stable:
        axes.text(stable, 1.01, "decay, with instruction data", color=ORANGE, **above)
    right = axes.twinx()
    right.plot(*_thin(tokens, rates), color=GREY, linewidth=1.2, linestyle="--")
    right.set_ylabel("learning rate (dashed)", color=GREY)
    right.set_ylim(bottom=0)
    right.spines["top"].set_visible(False)
    return svg(drawing)


def loss_curves(runs: Sequence[ReportedRun]) -> str:
    """Return the smoothed losses of several runs."""
    drawing, axes = _axes()
    for run, color, dash in zip(runs, cycle(PALETTE), cycle(("-", "--", "-.", ":"))):
        tokens, losses, _ = _columns(run)
        label = run.label.replace("$", r"\$")
        axes.plot(*_thin(tokens, smoothed(losses)), color=color, linestyle=dash, linewidth=1.5, label=label)
        axes.axvline(_stable(run), color=color, linewidth=1, linestyle=":")
    axes.set_ylabel("loss, nats a token")
    axes.legend(frameon=False)
    return svg(drawing)


def heldout_curves(lines: Sequence[dict[str, Any]], stable_tokens: int) -> str:
    """Return held-out loss by tokens, a curve a source."""
    measured = [(line["tokens"], name, row["loss"]) for line in lines for name, row in line["heldout"].items()]
    return _named_curves(measured, stable_tokens, "held-out loss, nats a token")


def _score_figures(lines: Sequence[dict[str, Any]], stable: int, limit: int, of: str) -> list[str]:
    """Return figures of the scores while a run trained: shares of items in one, perplexities in another."""
    measured = [(line["tokens"], name, score) for line in lines for name, score in line["scores"].items()]
    falling = [row for row in measured if falls(row[1])]
    rising = [(tokens, name, 100 * score) for tokens, name, score in measured if not falls(name)]
    figures = []
    if rising:
        noise = 196 * (0.25 / limit) ** 0.5  # of a share near one half, 95%
        caption = f"Benchmark scores while training; {limit:,} items a task give ±{noise:.0f} points at most (95%){of}"
        figures.append(figure(_named_curves(rising, stable, "score, %"), caption))
    if falling:
        figures.append(figure(_named_curves(falling, stable, "perplexity a word"), f"Perplexity while training{of}"))
    return figures


def falls(task: str) -> bool:
    """Tell whether a task's score is the better the lower it is."""
    return task in TASKS and not TASKS[task].higher_is_better


def _named_curves(measured: Sequence[tuple[int, str, float]], stable_tokens: int, axis: str) -> str:
    drawing, axes = _axes()
    names = list(dict.fromkeys(name for _, name, _ in measured))
    for name, color in colors(names).items():
        tokens, values = zip(*((at, value) for at, of, value in measured if of == name), strict=True)
        label = name.replace("$", r"\$")
        axes.plot(tokens, values, color=color, marker="o", markersize=3, linewidth=1.4, label=label)
    axes.axvline(stable_tokens, color=GREY, linewidth=1, linestyle=":")
    axes.set_xlabel("tokens (dotted: decay begins)")
    axes.set_ylabel(axis)
    axes.legend(frameon=False)
    return svg(drawing)


def smoothed(values: np.ndarray, window: int = 15) -> np.ndarray:
    """Return the mean over the last ``window`` values at each point.

    >>> smoothed(np.array([1.0, 3.0, 5.0]), window=2).tolist()
    [1.0, 2.0, 4.0]
    """
    sums = np.concatenate([[0.0], values.cumsum()])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - window)
    return (sums[ends] - sums[starts]) / (ends - starts)


def _stable(run: ReportedRun) -> int:
    return run.recipe.stable_steps * run.recipe.train.batch_tokens


def _columns(run: ReportedRun) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return tokens, losses and rates of the steps that have a loss."""
    losses, rates = run.recorded.column("loss"), run.recorded.column("learning_rate")
    there = np.isfinite(losses)
    return run.recorded.steps[there] * run.recipe.train.batch_tokens, losses[there], rates[there]


def _thin(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a curve with the least and the greatest value of each of at most `POINTS` parts."""
    if len(y) <= 2 * POINTS:
        return x, y
    edges = np.linspace(0, len(y), POINTS + 1).astype(int)
    kept = sorted({low + int(pick(y[low:high])) for low, high in pairwise(edges) for pick in (np.argmin, np.argmax)})
    return x[kept], y[kept]


def _axes() -> tuple[Figure, Axes]:
    drawing = Figure(figsize=(8.6, 3.6), layout="constrained")
    axes = drawing.subplots()
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("tokens")
    axes.xaxis.set_major_formatter(EngFormatter())
    return drawing, axes
