"""Figures of a calibration: the reliability diagram (Figure 4), and the subjects from the most over-confident down."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from xmodel2.plots import BLUE, GREY, ORANGE, svg

_INK = "#1b1f24"
_NAMED = {"ECE": "ece", "MCE": "mce", "Brier": "brier"}
_BACKED = {"facecolor": "white", "alpha": 0.75, "linewidth": 0, "pad": 0.6}


def reliability_figure(found: dict[str, Any], title: str) -> str:
    """Return the SVG of what `calibrate` found: accuracy by confidence above, how many items below; scaled beside it."""
    panels = [(title, found)]
    if found["temperature"]:
        scaled = found["temperature"]
        panels.append((f"temperature {temperature_text(scaled)}, each half fitted on the other", scaled["after"]))
    figure = Figure(figsize=(4.5 * len(panels), 5.4), layout="constrained")
    grid = figure.subplots(2, len(panels), squeeze=False, sharex=True, sharey="row", height_ratios=(3, 1))
    for (name, measured), upper, lower in zip(panels, grid[0], grid[1], strict=True):
        _reliability(upper, measured)
        errors = [f"{label} {measured[key]['value']:.3f}" for label, key in _NAMED.items()]
        upper.set_title(f"{name}\n{' · '.join(errors)}", fontsize=10)
        _counts(lower, measured)
    grid[0][0].set_ylabel("accuracy")
    grid[1][0].set_ylabel("items")
    grid[0][0].legend(frameon=False, fontsize=8, loc="best")
    grid[1][0].legend(frameon=False, fontsize=8, loc="best")
    return svg(figure)


def temperature_text(scaled: dict[str, Any]) -> str:
    """Return a fitted temperature in words: a bound that it hit was not measured."""
    if not scaled["determined"]:
        return "not determined"
    if scaled["at_bound"]:
        return f"{'above' if scaled['value'] > 1 else 'below'} {scaled['value']:g}"
    return f"{scaled['value']:.3g}"


def _reliability(axes: Axes, measured: dict[str, Any]) -> None:
    rows = [row for row in measured["bins"] if row["items"]]
    edges, accuracy = [row["bin"][0] for row in rows], [row["accuracy"] for row in rows]
    confidence = [row["confidence"] for row in rows]
    shared = [min(pair) for pair in zip(confidence, accuracy, strict=True)]
    over = [c - both for c, both in zip(confidence, shared, strict=True)]
    under = [a - both for a, both in zip(accuracy, shared, strict=True)]
    axes.plot([0, 1], [0, 1], linestyle="--", linewidth=1, color=GREY, label="ideal")
    for heights, bottom, colour, alpha, label in (
        (shared, 0, BLUE, 0.75, "accuracy"),
        (over, shared, ORANGE, 0.4, "less often right than it says"),
        (under, shared, BLUE, 0.4, "more often right than it says"),
    ):
        width = rows[0]["bin"][1] - rows[0]["bin"][0]
        axes.bar(edges, heights, width, bottom, align="edge", color=colour, alpha=alpha, linewidth=0, label=label)
    below = [row["accuracy"] - row["interval"][0] for row in rows]
    above = [row["interval"][1] - row["accuracy"] for row in rows]
    axes.errorbar(
        confidence, accuracy, [below, above], fmt="o", markersize=3, color=_INK, linewidth=1, capsize=2, label="95%"
    )
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    _plain(axes)


def _counts(axes: Axes, measured: dict[str, Any]) -> None:
    rows = measured["bins"]
    most = max(row["items"] for row in rows)
    for row in rows:
        low, high = row["bin"]
        axes.bar(low, row["items"], high - low, align="edge", color=GREY, alpha=0.6, edgecolor="white")
        if row["items"]:
            at, count = ((low + high) / 2, row["items"]), f"{row['items']:,}"
            axes.annotate(count, at, (0, 2), textcoords="offset points", ha="center", fontsize=7, bbox=_BACKED)
    axes.axvline(measured["accuracy"]["value"], color=BLUE, linewidth=1.4, label="mean accuracy")
    axes.axvline(measured["confidence"], color=ORANGE, linewidth=1.4, label="mean confidence")
    axes.set_ylim(0, 1.18 * most)
    axes.set_xlabel("probability of the chosen option")
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    _plain(axes)


def subjects_figure(parts: dict[str, dict[str, Any]]) -> str:
    """Return the SVG of accuracy, with intervals, and mean confidence of each subject; the most over-confident on top."""
    ranked = sorted(parts.items(), key=lambda item: item[1]["gap"]["value"])
    figure = Figure(figsize=(7.2, 1.1 + 0.2 * len(ranked)), layout="constrained")
    axes = figure.subplots()
    at = list(range(len(ranked)))
    rows = [row for _, row in ranked]
    accuracy, confidence = [row["accuracy"]["value"] for row in rows], [row["confidence"] for row in rows]
    below = [row["accuracy"]["value"] - row["accuracy"]["low"] for row in rows]
    above = [row["accuracy"]["high"] - row["accuracy"]["value"] for row in rows]
    axes.hlines(at, accuracy, confidence, color=ORANGE, alpha=0.35, linewidth=5)
    axes.errorbar(
        accuracy, at, xerr=[below, above], fmt="o", markersize=4, color=BLUE, linewidth=1, label="accuracy, 95%"
    )
    axes.plot(confidence, at, "D", markersize=4, color=ORANGE, label="mean confidence")
    axes.set_yticks(at, [f"{name} ({row['items']:,})" for name, row in ranked], fontsize=8)
    axes.set_ylim(-0.8, len(ranked) - 0.2)
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    figure.legend(frameon=False, fontsize=8, loc="outside upper right", ncols=2)
    _plain(axes)
    return svg(figure)


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
    axes.grid(color="#e6e8eb", linewidth=0.6)
