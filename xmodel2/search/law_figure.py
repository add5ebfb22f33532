"""Figures of a scaling law: loss by tokens and by parameters with bands, predicted against measured, and the optimum."""

from collections.abc import Callable, Sequence
from itertools import cycle, islice
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, FormatStrFormatter, LogLocator, NullLocator

from xmodel2.plots import GREY, ORANGE, PALETTE, svg
from xmodel2.search.law_report import LawReport, error_of

Prediction = dict[str, Any]
COUNTING = "without embeddings"
ENDS = ("low", "loss", "high")


def law_figures(report: LawReport, prediction: Prediction | None = None) -> dict[str, str]:
    """Return SVG by name; ``prediction``: of a size that was not fitted, as law.json has it."""
    return {
        "loss-by-tokens": loss_by_tokens(report, prediction),
        "loss-by-parameters": loss_by_parameters(report, prediction),
        "predicted": predicted(report, prediction),
        "optimum": optimum(report),
    }


def loss_by_tokens(report: LawReport, prediction: Prediction | None) -> str:
    """Return points and the law of each size by tokens; the predicted size dashed, what it came to as diamonds."""
    points = report.main.points
    sizes = sorted({point.parameters for point in points})
    figure, axes = _figure("tokens, decay included")
    grid = _grid([point.tokens for point in points])
    for size, color in zip(sizes, _shades(len(sizes)), strict=True):
        _curve(axes, report, grid, lambda law, size=size: law.loss(parameters=float(size), tokens=grid), color)
        _dots(axes, [(p.tokens, p.loss) for p in points if p.parameters == size], color, _parameters(size))
    if prediction:
        large = float(prediction["parameters"][COUNTING])
        _curve(axes, report, grid, lambda law: law.loss(parameters=large, tokens=grid), ORANGE, dashed=True)
        _measured(
            axes, [(row["tokens"], row) for row in prediction["lengths"]], f"{_parameters(large)}, predicted first"
        )
    figure.legend(frameon=False, loc="outside right upper", title="parameters", alignment="left")
    return svg(figure)


def loss_by_parameters(report: LawReport, prediction: Prediction | None) -> str:
    """Return points and the law of each length by parameters; the predicted size as diamonds."""
    points = report.main.points
    lengths = sorted({point.tokens for point in points})
    figure, axes = _figure("parameters, without embeddings")
    ahead = [prediction["parameters"][COUNTING]] if prediction else []
    grid = _grid([*(point.parameters for point in points), *ahead])
    for length, color in zip(lengths, _shades(len(lengths)), strict=True):
        _curve(axes, report, grid, lambda law, length=length: law.loss(parameters=grid, tokens=float(length)), color)
        label = f"{EngFormatter(places=1, sep='')(length)} tokens"
        _dots(axes, [(p.parameters, p.loss) for p in points if p.tokens == length], color, label)
    if prediction:
        _measured(axes, [(ahead[0], row) for row in prediction["lengths"]], "predicted first")
    figure.legend(frameon=False, loc="outside right upper")
    return svg(figure)


def predicted(report: LawReport, prediction: Prediction | None) -> str:
    """Return how far predictions are off: of points that were fitted, of those left out, and of the size predicted first."""
    figure, axes = _figure("measured held-out loss, nats a token", log=False)
    axes.set_ylabel("predicted loss is off by, %")
    axes.axhline(0, color=GREY, linewidth=1, linestyle=":")
    law, points = report.main.fit.law, report.main.points
    fitted = [(p.loss, error_of(law.loss(parameters=p.parameters, tokens=p.tokens), p.loss)["percent"]) for p in points]
    axes.plot(*zip(*fitted, strict=True), "o", color=GREY, markersize=4, label="fitted")
    for (what, rows), color in zip(report.main.left_out.items(), (PALETTE[2], PALETTE[4]), strict=True):
        if rows:
            pairs = [(row["measured"], row["percent"]) for row in rows]
            axes.plot(*zip(*pairs, strict=True), "s", color=color, mfc="none", label=f"{what} left out of the fit")
    said = [row[COUNTING] for row in prediction["lengths"]] if prediction else []
    ends = [[error_of(row[end], row["measured"])["percent"] for row in said if "measured" in row] for end in ENDS]
    if prediction and ends[0]:
        low, middle, high = np.array(ends)
        label = f"{prediction['size']}, predicted before training, {prediction['interval']:.0%} interval"
        measured = [row["measured"] for row in said if "measured" in row]
        bars = [middle - low, high - middle]
        axes.errorbar(measured, middle, yerr=bars, fmt="D", color=ORANGE, markersize=5, capsize=3, label=label)
    axes.legend(frameon=False, fontsize=9)
    return svg(figure)


def optimum(report: LawReport) -> str:
    """Return loss by parameters at each compute budget, thick where sizes and lengths were trained, and the line of optima."""
    fit, points = report.main.fit, report.main.points
    figure, axes = _figure("parameters, without embeddings; tokens are what 6 N D leaves")
    sizes, lengths = [p.parameters for p in points], [p.tokens for p in points]
    spent = [6.0 * p.parameters * p.tokens for p in points]
    budgets = np.geomspace(min(spent), max(*report.budgets, *spent), 5)
    best = [fit.law.optimum(flops) for flops in budgets]
    sizes_shown = [*sizes, *(n for n, _ in best)]
    grid = np.geomspace(min(sizes_shown) / 2, max(sizes_shown) * 2, 300)
    for flops, (n, d), color in zip(budgets, best, _shades(len(budgets)), strict=True):
        tokens = flops / 6 / grid
        loss = fit.law.loss(parameters=grid, tokens=tokens)
        axes.plot(grid, loss, color=color, linewidth=1.2, label=f"{flops:.1e} FLOPs")
        trained = (grid >= min(sizes)) & (grid <= max(sizes)) & (tokens >= min(lengths)) & (tokens <= max(lengths))
        axes.plot(grid, np.where(trained, loss, np.nan), color=color, linewidth=5, alpha=0.4)
        low, high = fit.interval(lambda law, flops=flops: law.optimum(flops)[0])  # type: ignore[misc]
        axes.hlines(fit.law.loss(parameters=n, tokens=d), low, high, color=color, linewidth=1.2, linestyle=":")
    line = [(n, fit.law.loss(parameters=n, tokens=d)) for n, d in best]
    axes.plot(*zip(*line, strict=True), "k--o", linewidth=1, markersize=4, label="optimum, dotted: its interval")
    axes.set_xlim(grid[0], grid[-1])
    axes.set_ylim(min(loss for _, loss in line) * 0.97, max(p.loss for p in points) * 1.15)
    axes.legend(frameon=False, fontsize=9)
    return svg(figure)


def _curve(
    axes: Axes, report: LawReport, grid: Any, value: Callable[..., Any], color: str, dashed: bool = False
) -> None:
    """Draw the law along a grid, with the band of its draws."""
    low, high = report.main.fit.interval(value)
    axes.plot(grid, value(report.main.fit.law), color=color, linewidth=1.5, linestyle="--" if dashed else "-")
    axes.fill_between(grid, low, high, color=color, alpha=0.15, linewidth=0)


def _dots(axes: Axes, pairs: Sequence[tuple[float, float]], color: str, label: str) -> None:
    axes.plot(*zip(*sorted(pairs), strict=True), "o", color=color, markersize=4.5, label=label)


def _measured(axes: Axes, rows: Sequence[tuple[float, dict[str, Any]]], label: str) -> None:
    """Draw what a predicted size came to, over the interval that was written down."""
    for x, row in rows:
        said = row[COUNTING]
        axes.errorbar(
            [x], [said["loss"]], [[said["loss"] - said["low"]], [said["high"] - said["loss"]]], color=ORANGE, capsize=3
        )
        if "measured" in said:
            axes.plot([x], [said["measured"]], "D", color=ORANGE, markersize=6, markeredgecolor="white", zorder=3)
    axes.add_line(Line2D([], [], color=ORANGE, marker="D", linestyle="--", label=label))


def _figure(x_label: str, log: bool = True) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(8.0, 4.4), layout="constrained")
    axes = figure.subplots()
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel(x_label)
    axes.set_ylabel("held-out loss, nats a token")
    if log:
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=20))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.yaxis.set_major_formatter(FormatStrFormatter("%.2g"))
        axes.yaxis.set_minor_formatter(FormatStrFormatter("%.2g"))
    return figure, axes


def _grid(values: Sequence[float]) -> Any:
    return np.geomspace(min(values) / 1.15, max(values) * 1.15, 80)


def _shades(count: int) -> list[str]:
    """Return colours for the fitted sizes or lengths; the predicted one's is kept for it."""
    return list(islice(cycle(color for color in PALETTE if color != ORANGE), count))


def _parameters(count: float) -> str:
    return EngFormatter(places=2, sep="")(count)
