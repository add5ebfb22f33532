"""Figures of a transfer study: loss against a hyperparameter at each size, and where its optimum goes."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from xmodel2.plots import GREY, PALETTE, svg
from xmodel2.search.optimum import Drift, curves, drift
from xmodel2.search.sweep import Cell

RULES = {"tensor_program": "tensor programs", "standard": "standard parametrisation"}


def sweep_figure(cells: Sequence[Cell], key: str, axis: str) -> str:
    """Return the SVG of one sweep: a panel of curves for each parametrisation, and the optima over the sizes beside them."""
    rules = [name for name in RULES if any(cell.parametrization == name for cell in cells)]
    figure = Figure(figsize=(4.2 * (len(rules) + 1), 3.9), layout="constrained")
    panels = figure.subplots(1, len(rules) + 1, squeeze=False)[0]
    sizes = sorted({cell.size for cell in cells})
    colours = {size: PALETTE[index % len(PALETTE)] for index, size in enumerate(sizes)}
    drifts = {}
    for name, axes in zip(rules, panels, strict=False):
        own = [cell for cell in cells if cell.parametrization == name]
        drifts[name] = drift(own)
        _curves(axes, own, drifts[name], colours)
        axes.set_xlabel(key.rpartition(".")[2])
        axes.set_title(RULES[name], fontsize=10)
    panels[0].set_ylabel("held-out loss, nats a token")
    _share_losses(panels[: len(rules)])
    if panels[0].lines:
        panels[0].legend(title=axis, frameon=False, fontsize=8, title_fontsize=8)
    _optima(panels[-1], drifts, axis)
    return svg(figure)


def _curves(axes: Axes, cells: Sequence[Cell], moved: Drift, colours: dict[int, str]) -> None:
    base = next(cell.value / 2.0**cell.octave for cell in cells)
    for optimum in moved.optima:
        if optimum.octave is None or optimum.loss is None:  # it diverged at all values
            continue
        octaves, losses, _ = curves([cell for cell in cells if cell.size == optimum.size])
        finite = [(base * 2.0**x, y) for x, y in zip(octaves, losses, strict=True) if math.isfinite(y)]
        colour = colours[optimum.size]
        axes.plot(
            *zip(*finite, strict=True), marker="o", markersize=3, linewidth=1.3, color=colour, label=str(optimum.size)
        )
        axes.plot(
            [base * 2.0**optimum.octave],
            [optimum.loss],
            marker="*",
            markersize=11,
            color=colour,
            markeredgecolor="white",
        )
    axes.set_xscale("log", base=2)
    values = sorted({cell.value for cell in cells})
    axes.set_xticks(values[:: 1 + len(values) // 7])  # more do not fit beside each other
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.2g}")
    axes.tick_params(axis="x", labelsize=8)
    axes.minorticks_off()
    _plain(axes)


def _share_losses(panels: Sequence[Axes]) -> None:
    """Give all panels one scale, cut above where curves only tell of divergence."""
    lows, highs = [], []
    for axes in panels:
        for line in axes.lines:
            ys = np.asarray(line.get_ydata(), dtype=float).tolist()
            lows.append(min(ys))
            highs.append(sorted(ys)[len(ys) * 3 // 4])
    if not lows:
        return
    low, high = min(lows), max(highs)
    for axes in panels:
        axes.set_ylim(low - 0.06 * (high - low), high + 0.25 * (high - low))


def _optima(axes: Axes, drifts: dict[str, Drift], axis: str) -> None:
    colours = {"tensor_program": PALETTE[0], "standard": PALETTE[1]}
    for name, moved in drifts.items():
        found = [(optimum.size, optimum.octave) for optimum in moved.optima if optimum.octave is not None]
        label = f"{RULES[name]}: " + ("diverged" if moved.octaves is None else f"{moved.octaves:+.2f} octaves")
        axes.plot(
            *zip(*found, strict=True), marker="o", markersize=4, color=colours[name], label=label
        ) if found else None
        for optimum in moved.optima:
            if optimum.octave is None:
                continue
            if optimum.interval:
                axes.plot([optimum.size] * 2, optimum.interval, color=colours[name], linewidth=3, alpha=0.35)
            if optimum.at_edge:
                axes.plot([optimum.size], [optimum.octave], marker="o", markersize=9, fillstyle="none", color=GREY)
    axes.axhline(0, color=GREY, linewidth=0.8, linestyle=":")
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xlabel(axis)
    axes.set_ylabel("optimum, octaves from the recipe's value")
    axes.set_title("drift of the optimum", fontsize=10)
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, -2), max(high, 2) + 0.6)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=8, loc="upper right")
    _plain(axes)


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e6e8eb", linewidth=0.6)
