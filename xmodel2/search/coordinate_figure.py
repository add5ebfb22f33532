"""Figures of the coordinate check: activations over width and over depth, and what each rule that is switched off breaks."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator

from xmodel2 import plots
from xmodel2.search.coordinate import ALL_LOGITS, HIDDEN, LOGITS, Finding, Series, findings

HELD, VIOLATED = "#e6f0e9", "#eba59f"
LABEL_HEIGHT = 0.062
"""Of a panel, that a line's label takes."""

End = tuple[float, str, str]
"""Last value, label and colour of a line."""


@dataclass(frozen=True)
class Case:
    """One parametrisation, measured over both axes."""

    width: Series
    depth: Series


def figures(cases: dict[str, Case]) -> dict[str, str]:
    """Return the figures as SVG by name; the first two cases stand side by side, all of them in the table of rules."""
    pair = dict(list(cases.items())[:2])
    return {
        "coordinate-width": plots.svg(_sizes(pair, "width", lambda case: case.width)),
        "coordinate-depth": plots.svg(_sizes(pair, "layers", lambda case: case.depth)),
        "coordinate-rules": plots.svg(_rules({name: findings(case.width, case.depth) for name, case in cases.items()})),
    }


def _sizes(cases: dict[str, Case], axis: str, series_of: Callable[[Case], Series]) -> Figure:
    """RMS at the start above, of the change below, a column a case; slopes stand at the lines' ends."""
    figure = Figure(figsize=(6.4 * len(cases), 7.2), layout="constrained")
    panels = figure.subplots(2, len(cases), sharex=True, sharey="row", squeeze=False)
    for column, (title, case) in enumerate(cases.items()):
        series = series_of(case)
        last = len(series.rms[LOGITS][0]) - 1
        panels[0, column].set_title(title)
        panels[1, column].set_xlabel(axis)
        _lines(panels[0, column], series, (*HIDDEN, ALL_LOGITS), 0)
        _lines(panels[1, column], series, (*HIDDEN, LOGITS), last)
    panels[0, 0].set_ylabel("RMS at the start")
    panels[1, 0].set_ylabel(f"RMS of the change after step {last}")
    for column, case in enumerate(cases.values()):  # now that the panels' ranges are known
        _label(panels[0, column], _ends(series_of(case), (*HIDDEN, ALL_LOGITS), 0))
        _label(panels[1, column], _ends(series_of(case), (*HIDDEN, LOGITS), last))
    return figure


def _lines(axes: Axes, series: Series, names: tuple[str, ...], step: int) -> None:
    for name, color in zip(names, plots.PALETTE, strict=False):
        values = [row[step] for row in series.rms[name]]
        axes.plot(series.sizes, values, "o-", color=color, markersize=3.5, linewidth=1.4)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.xaxis.set_major_locator(FixedLocator(list(series.sizes)))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _ends(series: Series, names: tuple[str, ...], step: int) -> list[End]:
    return [
        (series.rms[name][-1][step], f"{name}  {series.slope(name, step):+z.2f}", color)
        for name, color in zip(names, plots.PALETTE, strict=False)
    ]


def _label(axes: Axes, ends: list[End]) -> None:
    """Write each line's label beside its end, none over another."""
    low, high = np.log(axes.get_ylim())
    drawn = sorted(end for end in ends if np.isfinite(end[0]) and end[0] > 0)
    places = [float(np.log(value) - low) / float(high - low) for value, _, _ in drawn]
    for i in range(1, len(places)):
        places[i] = max(places[i], places[i - 1] + LABEL_HEIGHT)
    ceiling = 1.0
    for i in reversed(range(len(places))):
        places[i] = min(places[i], ceiling)
        ceiling = places[i] - LABEL_HEIGHT
    for place, (_, text, color) in zip(places, drawn, strict=True):
        axes.annotate(text, (1.02, place), xycoords="axes fraction", va="center", fontsize=8.5, color=color)


def _rules(cases: dict[str, list[Finding]]) -> Figure:
    """Return a table: a row a criterion and layer class, a column a case, what is out of its range in red."""
    rows = next(iter(cases.values()))
    labels = [f"{row.criterion}: {row.layer_class}{' (may fall)' if row.low is None else ''}" for row in rows]
    figure = Figure(figsize=(1.35 * len(cases) + 3.6, 0.3 * len(rows) + 1.4), layout="constrained")
    axes = figure.subplots()
    broken = np.array([[not finding.held for finding in found] for found in cases.values()]).T
    colors = ListedColormap([HELD, VIOLATED])
    axes.pcolormesh(broken, cmap=colors, vmin=0, vmax=1, edgecolors="white", linewidth=1.5)
    axes.invert_yaxis()
    for column, found in enumerate(cases.values()):
        for row, finding in enumerate(found):
            text = f"{finding.figure:.2f}" if finding.criterion == "start of order one" else f"{finding.figure:+z.2f}"
            weight = "normal" if finding.held else "bold"
            axes.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=9, weight=weight)
    names = [name.replace("_", " ").replace(" ", "\n", 1) for name in cases]
    axes.set_xticks(np.arange(len(cases)) + 0.5, names)
    axes.xaxis.tick_top()
    axes.set_yticks(np.arange(len(rows)) + 0.5, labels)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    for row in range(1, len(rows)):
        if rows[row].criterion != rows[row - 1].criterion:
            axes.axhline(row, color="white", linewidth=6)
    return figure
