"""The report's figures as inline SVG: loss curve with stages and learning rate (Figure 3), held-out losses, benchmark scores."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from xmodel2.plots import BLUE, GREY, ORANGE, colors, svg

Line = dict[str, Any]


def loss_curve(steps: Sequence[Line], stable_tokens: int) -> str:
    """Return training loss by tokens, both stages shaded, with the learning rate on the right axis (Figure 3)."""
    figure, axes = _figure()
    tokens = [line["tokens"] for line in steps]
    losses = [line["loss"] for line in steps]
    axes.axvspan(0, min(stable_tokens, tokens[-1]), color=BLUE, alpha=0.06)
    if tokens[-1] > stable_tokens:
        axes.axvspan(stable_tokens, tokens[-1], color=ORANGE, alpha=0.10)
    axes.plot(tokens, losses, color=BLUE, linewidth=0.7, alpha=0.35)
    axes.plot(tokens, smoothed(losses), color=BLUE, linewidth=1.8, label="training loss")
    axes.set_xlabel("tokens")
    axes.set_ylabel("loss, nats a token")
    axes.xaxis.set_major_formatter(EngFormatter())
    above: dict[str, Any] = {"transform": axes.get_xaxis_transform(), "va": "bottom"}
    axes.text(0, 1.01, "stable", color=BLUE, **above)
    if tokens[-1] > stable_tokens:
        axes.text(stable_tokens, 1.01, "decay, with instruction data", color=ORANGE, **above)
    right = axes.twinx()
    right.plot(tokens, [line["learning_rate"] for line in steps], color=GREY, linewidth=1.2, linestyle="--")
    right.set_ylabel("learning rate (dashed)", color=GREY)
    right.set_ylim(bottom=0)
    right.spines["top"].set_visible(False)
    return svg(figure)


def heldout_curves(lines: Sequence[Line], stable_tokens: int) -> str:
    """Return held-out loss by tokens, a curve a source."""
    figure, axes = _figure()
    names = list(lines[-1]["heldout"])
    for name, color in colors(names).items():
        points = [(line["tokens"], line["heldout"][name]["loss"]) for line in lines if name in line["heldout"]]
        axes.plot(*zip(*points, strict=True), color=color, marker="o", markersize=3, linewidth=1.4, label=name)
    axes.axvline(stable_tokens, color=GREY, linewidth=1, linestyle=":")
    axes.set_xlabel("tokens (dotted: decay begins)")
    axes.set_ylabel("held-out loss, nats a token")
    axes.xaxis.set_major_formatter(EngFormatter())
    axes.legend(frameon=False)
    return svg(figure)


def score_curves(lines: Sequence[Line], stable_tokens: int, tasks: Sequence[str], axis: str) -> str:
    """Return scores of evaluations while a run trained, by tokens, a curve a task; shares are drawn in percent."""
    figure, axes = _figure()
    scale = 100 if axis.endswith("%") else 1
    for name, color in colors(tasks).items():
        points = [(line["tokens"], scale * line["scores"][name]) for line in lines if name in line["scores"]]
        axes.plot(*zip(*points, strict=True), color=color, marker="o", markersize=3, linewidth=1.4, label=name)
    axes.axvline(stable_tokens, color=GREY, linewidth=1, linestyle=":")
    axes.set_xlabel("tokens (dotted: decay begins)")
    axes.set_ylabel(axis)
    axes.xaxis.set_major_formatter(EngFormatter())
    axes.legend(frameon=False)
    return svg(figure)


def smoothed(values: Sequence[float], window: int = 15) -> list[float]:
    """Return the mean over the last ``window`` values at each point.

    >>> smoothed([1.0, 3.0, 5.0], window=2)
    [1.0, 2.0, 4.0]
    """
    result = []
    for end in range(1, len(values) + 1):
        part = values[max(0, end - window) : end]
        result.append(sum(part) / len(part))
    return result


def _figure() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(8.6, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.grid(alpha=0.25, linewidth=0.6)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure, axes
