"""Figures of a comparison of decays, as SVG: curves over the share, mixtures, lengths, shapes, and the two schedules."""

from collections.abc import Callable, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, PercentFormatter

from xmodel2.plots import BLUE, GREY, ORANGE, PALETTE, colors, svg
from xmodel2.search.ratio_formats import MEASURES
from xmodel2.search.ratio_summary import OBJECTIVES
from xmodel2.train import read_metrics

Rows = Sequence[dict[str, Any]]


def figures(found: dict[str, Any], out: Path) -> dict[str, str]:
    """Return the figures by name, of those comparisons that were made; ``out`` holds the runs whose curves are drawn."""
    drawn: dict[str, Callable[[], str]] = {
        "shares": lambda: share_curves(found["shares"]),
        "sources": lambda: source_curves(found["by_source"]),
        "mixtures": lambda: mixture_points(found["mixtures"]),
        "shape": lambda: shape_curves(found["shape"], out),
        "length": lambda: length_curves(found["length"], found["equal_tokens"]),
        "schedules": lambda: schedule_curves(found["schedules"]),
        "format": lambda: format_points(found["format"]),
    }
    needs = {"sources": "shares"}
    return {name: draw() for name, draw in drawn.items() if found[needs.get(name, name)]}


def share_curves(curves: dict[str, Any]) -> str:
    """Return a panel an objective: what was measured, the curve with its band, and where its optimum lies."""
    figure, panels = _panels(len(curves), 3)
    for axes, (name, curve) in zip(panels, curves.items(), strict=True):
        axes.fill_between(curve["shares"], curve["low"], curve["high"], color=BLUE, alpha=0.15, linewidth=0)
        axes.plot(curve["shares"], curve["fitted"], color=BLUE, linewidth=1.6)
        seeds = sorted({seed for seed, _, _ in curve["points"]})
        for seed, marker in zip(seeds, "osD^vPX*" * len(seeds), strict=False):
            at = [(share, score) for number, share, score in curve["points"] if number == seed]
            axes.plot(*zip(*at, strict=True), marker, color=BLUE, markersize=3.5, alpha=0.6, label=f"seed {seed}")
        if curve["verdict"] != "flat":
            axes.axvspan(*curve["interval"], color=ORANGE, alpha=0.18, linewidth=0)
            axes.axvline(curve["optimum"], color=ORANGE, linewidth=1.4)
        low, high = curve["interval"]
        says = {"flat": "no dependence seen", "unclear": f"{curve['optimum']:.0%}, not established"}
        text = says.get(curve["verdict"], f"best at {curve['optimum']:.0%}, 95%: {low:.0%} to {high:.0%}")
        axes.set_title(f"{OBJECTIVES[name]}\n{text}", fontsize=10)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
        if name == "accuracy":
            axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        else:
            axes.set_ylabel("nats a token")
        axes.set_xlabel("instruction data in the decay")
    if len(seeds) > 1:
        panels[0].legend(frameon=False, fontsize=8)
    return svg(figure)


def source_curves(by_source: dict[str, list[tuple[float, float]]]) -> str:
    """Return the held-out loss of each source over the share, less its loss at the smallest."""
    figure, [axes] = _panels(1, 1, width=7.6, height=3.6)
    for name, color in colors(list(by_source)).items():
        shares, losses = zip(*by_source[name], strict=True)
        axes.plot(shares, [loss - losses[0] for loss in losses], color=color, marker="o", markersize=3, label=name)
    axes.axhline(0, color=GREY, linewidth=0.8)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_xlabel("instruction data in the decay")
    axes.set_ylabel(f"held-out loss less that at {shares[0]:.0%}")
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return svg(figure)


def mixture_points(rows: Rows) -> str:
    """Return a panel an objective: the scores by what the instruction data are made of; the recipe's own first."""
    names = [row["value"] for row in rows]
    objectives = [name for name in OBJECTIVES if all(name in row for row in rows)]
    figure, panels = _panels(len(objectives), len(objectives), width=2.5, height=0.8 + 0.32 * len(names), share_y=True)
    for axes, objective in zip(panels, objectives, strict=True):
        own = rows[0][objective]["mean"]
        for place, row in enumerate(rows):
            cell = row[objective]
            axes.errorbar(cell["mean"], place, xerr=cell["error"], fmt="o", color=BLUE if place else ORANGE, capsize=2)
        axes.axvline(own, color=ORANGE, linewidth=0.9, linestyle=":")
        axes.set_title(OBJECTIVES[objective], fontsize=9)
        axes.set_xlabel("" if objective == "accuracy" else "nats a token", fontsize=8)
        if objective == "accuracy":
            axes.xaxis.set_major_formatter(PercentFormatter(1.0))
        axes.tick_params(labelsize=8)
        axes.set_yticks(range(len(names)), names)
    panels[0].invert_yaxis()
    return svg(figure)


def format_points(found: dict[str, Any]) -> str:
    """Return a panel a measure: chats less texts, each scored in its own format, by seed and with the 95% interval."""
    measures = found["measures"]
    figure, panels = _panels(len(measures), len(measures), width=2.9, height=2.2)
    for axes, (name, row) in zip(panels, measures.items(), strict=True):
        if row["interval"]:
            axes.axvspan(*row["interval"], color=ORANGE, alpha=0.18, linewidth=0)
        axes.plot(row["differences"], [f"seed {seed}" for seed in found["seeds"]], "o", color=BLUE)
        axes.axvline(row["difference"], color=ORANGE, linewidth=1.4)
        axes.axvline(0, color=GREY, linewidth=0.8)
        axes.set_title(fill(MEASURES[name], 34), fontsize=9)
        axes.set_xlabel("chat less text" + ("" if name == "accuracy" else ", nats a token"), fontsize=8)
        if name == "accuracy":
            axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    return svg(figure)


def shape_curves(rows: Rows, out: Path) -> str:
    """Return the learning rates of the shapes, their smoothed training losses, and what they end with (first seed)."""
    figure, (rates, losses, ends) = _panels(3, 3, height=3.3)
    for place, (row, color) in enumerate(zip(rows, PALETTE, strict=False)):
        steps = [line for line in read_metrics(out / "decays" / row["run"]) if "kind" not in line]
        tokens = [line["tokens"] for line in steps]
        rates.plot(tokens, [line["learning_rate"] for line in steps], color=color, label=row["value"])
        losses.plot(tokens, _smoothed([line["loss"] for line in steps]), color=color)
        ends.errorbar(row["text"]["mean"], place, xerr=row["text"]["error"], fmt="o", color=color, capsize=2)
    for axes, title in (
        (rates, "learning rate"),
        (losses, "training loss, smoothed"),
        (ends, "held-out text at the end"),
    ):
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("nats a token" if axes is ends else "tokens")
    for axes in (rates, losses):
        axes.xaxis.set_major_formatter(EngFormatter())
    ends.set_yticks(range(len(rows)), [row["value"] for row in rows])
    ends.invert_yaxis()
    rates.legend(frameon=False, fontsize=8)
    return svg(figure)


def length_curves(longer: Rows, equal_tokens: Rows) -> str:
    """Return the change of each loss with the decay's length: from one checkpoint, and with the tokens of the whole run fixed."""
    figure, panels = _panels(2, 2, width=4.3, height=3.4)
    titles = ("decays from one checkpoint", "the same tokens in all, decay begun earlier")
    for axes, rows, title in zip(panels, (longer, equal_tokens), titles, strict=True):
        for name, color in zip(("text", "sft", "answers"), PALETTE, strict=False):
            cells = [(row["value"], row[name]) for row in rows if name in row and row[name]["difference"] is not None]
            if cells:
                at, changes = [value for value, _ in cells], [cell["difference"] for _, cell in cells]
                errors = [cell["error"] or 0.0 for _, cell in cells]
                axes.errorbar(at, changes, yerr=errors, fmt="o-", color=color, capsize=2, label=OBJECTIVES[name])
        axes.axhline(0, color=GREY, linewidth=0.8)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("tokens of the decay")
        axes.set_ylabel("loss, less that of the recipe's decay")
        axes.xaxis.set_major_formatter(EngFormatter())
    panels[0].legend(frameon=False, fontsize=8)
    return svg(figure)


def schedule_curves(rows: Rows) -> str:
    """Return held-out text loss by tokens: decays from checkpoints of one stable stage, and a cosine run for each length."""
    figure, (losses, apart) = _panels(2, 2, width=4.3, height=3.4)
    rates = sorted({row["rate"] for row in rows})
    for rate, color in zip(rates, PALETTE, strict=False):
        name = "" if len(rates) == 1 else f", rate x {rate:g}"
        for schedule, style, what in (("wsd", "o-", "WSD, one stable stage"), ("cosine", "s--", "cosine, a run each")):
            at = [(row["tokens"], row[schedule]) for row in rows if row["rate"] == rate and row[schedule] is not None]
            if at:
                losses.plot(*zip(*at, strict=True), style, color=color, markersize=4, label=what + name)
        both = [row for row in rows if row["rate"] == rate and row["difference"] is not None]
        errors = [row["error"] or 0.0 for row in both]
        at = [row["tokens"] for row in both]
        apart.errorbar(at, [row["difference"] for row in both], yerr=errors, fmt="o-", color=color, capsize=2)
    apart.axhline(0, color=GREY, linewidth=0.8)
    losses.set_ylabel("held-out text, nats a token")
    apart.set_ylabel("WSD less cosine, nats a token")
    for axes in (losses, apart):
        axes.set_xlabel("tokens of the run, decay included")
        axes.xaxis.set_major_formatter(EngFormatter())
    losses.legend(frameon=False, fontsize=8)
    return svg(figure)


def _smoothed(values: Sequence[float], window: int = 9) -> list[float]:
    return [sum(values[max(0, end - window) : end]) / min(window, end) for end in range(1, len(values) + 1)]


def _panels(
    count: int, columns: int, width: float = 3.3, height: float = 2.9, share_y: bool = False
) -> tuple[Figure, list[Axes]]:
    """Return a figure and ``count`` axes in rows of ``columns``, each ``width`` x ``height`` inches."""
    lines = -(-count // columns)
    figure = Figure(figsize=(width * columns, height * lines), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False, sharey=share_y)
    panels = list(grid.flat)
    for axes in panels[count:]:
        axes.remove()
    for axes in panels[:count]:
        axes.grid(alpha=0.25, linewidth=0.6)
        axes.tick_params(labelsize=8)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    return figure, panels[:count]
