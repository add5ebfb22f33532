"""The figure of an ablation: a panel a comparison, a row an arm, its difference to the recipe with its interval."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from xmodel2.plots import BLUE, GREY, ORANGE, svg
from xmodel2.search.ablation_summary import UNITS

_HEAD, _ROW, _FOOT = 0.45, 0.36, 0.5
"""Inches of a panel above its rows, of a row, and below them."""


def ablation_figure(found: dict[str, Any]) -> str:
    """Return the figure of what ablation.json says, as SVG."""
    comparisons = found["comparisons"]
    if not comparisons:  # arms of different calls, at different rates
        return svg(Figure(figsize=(7.2, _HEAD)))
    heights = [_HEAD + _ROW * len(comparison["arms"]) + _FOOT for comparison in comparisons.values()]
    figure = Figure(figsize=(7.2, sum(heights)), layout="constrained")
    panels = figure.subplots(len(heights), 1, squeeze=False, gridspec_kw={"height_ratios": heights})
    for axes, (name, comparison) in zip(panels.flat, comparisons.items(), strict=True):
        _panel(axes, name, comparison)
    return svg(figure)


def _panel(axes: Axes, name: str, comparison: dict[str, Any]) -> None:
    arms, unit = comparison["arms"], UNITS[comparison["measure"]]
    axes.axvline(0, color=ORANGE, linewidth=0.9, linestyle=":")
    axes.plot(0, 0, "o", color=ORANGE, markersize=5)
    for place, arm in enumerate(arms):
        if arm["difference"] is None:
            if not arm["own"]:
                why = "diverged" if arm["mean"] is None else "no seed beside the recipe's"
                axes.annotate(why, (0, place), (6, 0), textcoords="offset points", va="center", color=GREY)
            continue
        at = [loss - own for seed, loss in arm["losses"].items() if (own := arms[0]["losses"].get(seed)) is not None]
        axes.plot(at, [place] * len(at), "|", color=GREY, markersize=9)
        low, high = arm["interval"] or (arm["difference"], arm["difference"])
        ends = [[arm["difference"] - low], [high - arm["difference"]]]
        axes.errorbar(arm["difference"], place, xerr=ends, fmt="o", color=BLUE, markersize=5, capsize=3, linewidth=1.4)
    labels = [f"{arm['name']}\n{_sizes(arm)}, rate x {_rate(arm)}" for arm in arms]
    axes.set_yticks(range(len(arms)), labels, fontsize=8)
    axes.set_ylim(len(arms) - 0.5, -0.5)
    axes.set_title(name, fontsize=10, loc="left")
    axes.set_xlabel(f"{unit}, less the recipe's; 95%, a mark a seed", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(axis="x", alpha=0.25, linewidth=0.6)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _sizes(arm: dict[str, Any]) -> str:
    return f"{arm['parameters'] / 1e6:.3g}M in blocks, {arm['parameters_total'] / 1e6:.3g}M in all"


def _rate(arm: dict[str, Any]) -> str:
    if arm["rate"] is None:
        return "-"
    return f"{arm['rate']:g}" + (" (at the edge)" if arm["at_edge"] else "")
