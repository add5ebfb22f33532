"""The figure of a comparison with a peer: held-out loss by tokens of both sides."""

import statistics
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

from xmodel2.plots import BLUE, GREY, ORANGE, svg


def loss_by_tokens(found: dict[str, Any]) -> str:
    """Return SVG of what peer.json holds: our losses at the end of each decay, and the peer's along its run and at its end."""
    figure = Figure(figsize=(8.0, 4.6), layout="constrained")
    axes = figure.subplots()
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=20))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("tokens, decay included")
    axes.set_ylabel("held-out loss, nats a token")
    curve = _means([(row["tokens"], row["losses"]) for row in found["peer"]["curve"]])
    peer = [loss for loss in found["peer"]["losses"].values() if loss is not None]
    ours = [(row["tokens"], list(row["losses"].values())) for row in found["ours"]["lengths"]]
    axes.plot(*_columns(curve), color=ORANGE, linewidth=1.4, label="transformers Trainer, cosine, on its way")
    axes.plot([found["tokens"]] * len(peer), peer, "o", color=ORANGE, markersize=5, label="its end, a point a seed")
    axes.plot(*_columns(_means(ours)), color=BLUE, linewidth=1.4, label="ours, the end of a decay of each length")
    points = [(tokens, loss) for tokens, losses in ours for loss in losses if loss is not None]
    axes.plot(*_columns(points), "o", color=BLUE, markersize=4)
    if peer:
        level = statistics.mean(peer)
        axes.axhline(level, color=GREY, linewidth=1, linestyle=":")
        shown = [*peer, *(loss for _, loss in points), *(loss for t, loss in curve if t >= min(t for t, _ in ours))]
        margin = 0.06 * (max(shown) - min(shown))
        axes.set_ylim(min(shown) - margin, max(shown) + margin)
        if factor := found["tokens_factor"]["mean"]:
            most = "at most " if found["tokens_factor"]["at_most"] else ""
            label = f"the Trainer's loss at {most}{factor:.2f}x of its tokens"
            axes.plot([factor * found["tokens"]], [level], "D", color=GREY, markersize=6, label=label)
    axes.legend(frameon=False, fontsize=9)
    return svg(figure)


def _means(rows: list[tuple[int, list[float | None]]]) -> list[tuple[int, float]]:
    """Return the mean over seeds where none is missing."""
    whole = [(tokens, [loss for loss in losses if loss is not None]) for tokens, losses in rows if None not in losses]
    return [(tokens, statistics.mean(losses)) for tokens, losses in whole if losses]


def _columns(points: list[tuple[int, float]]) -> tuple[list[int], list[float]]:
    return [x for x, _ in points], [y for _, y in points]
