"""Figure of a comparison with direct searches: all their trials at each width, and where the carried-over values stand."""

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from xmodel2.plots import BLUE, GREY, ORANGE, svg

KEY = "train.learning_rate"
"""What trials are drawn over: every space has it."""


def direct_figure(result: Mapping[str, Any]) -> str:
    """Return the SVG of a direct.json: a panel a width, loss against the learning rate."""
    sizes = result["sizes"]
    figure = Figure(figsize=(max(6.0, 3.7 * len(sizes)), 4.3), layout="constrained")
    panels = figure.subplots(1, len(sizes), squeeze=False)[0]
    for axes, size in zip(panels, sizes, strict=True):
        _panel(axes, size)
    panels[0].set_ylabel("held-out loss, nats a token")
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(sizes), frameon=False, fontsize=8
    )
    return svg(figure)


def _panel(axes: Axes, size: Mapping[str, Any]) -> None:
    carried, direct = size["carried"], size["direct"]
    points = [(point["values"][KEY], point["loss"]) for point in direct["points"]]
    axes.plot(
        *zip(*points, strict=True),
        "o",
        color=GREY,
        alpha=0.6,
        markersize=4,
        label="trial of the direct search, one seed of its own",
    )
    for side, colour, marker, label in (
        (direct, BLUE, "D", "its best values, mean and range of fresh seeds"),
        (carried, ORANGE, "*", "carried over unchanged, same seeds"),
    ):
        losses = [loss for loss in side["losses"].values() if loss is not None]
        if losses:
            rate = side["values"][KEY]
            axes.plot([rate, rate], [min(losses), max(losses)], color=colour, linewidth=1.6)
            size_of = 13 if marker == "*" else 7
            axes.plot(
                [rate], [side["mean"]], marker, color=colour, markersize=size_of, markeredgecolor="white", label=label
            )
    fresh = [loss for side in (carried, direct) for loss in side["losses"].values() if loss is not None]
    _cut(axes, [loss for _, loss in points], fresh)
    axes.set_xscale("log")
    axes.minorticks_off()
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xlabel("learning rate")
    axes.set_title(f"{size['width']} wide: {_says(size)}", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e6e8eb", linewidth=0.6)


def _cut(axes: Axes, trials: list[float], fresh: list[float]) -> None:
    """Leave out above what only tells how bad a bad trial is."""
    low, high = min(trials + fresh), max([sorted(trials)[len(trials) * 3 // 4], *fresh])
    room = max(high - low, 0.01 * low)
    axes.set_ylim(low - 0.1 * room, high + 0.1 * room)


def _says(size: Mapping[str, Any]) -> str:
    if size["percent"] is None:
        return "nothing to compare"
    interval = size["percent_interval"]
    return f"{size['percent']:+.2f}%" + (f" ({interval[0]:+.2f} to {interval[1]:+.2f})" if interval else "")
