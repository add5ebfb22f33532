"""Figure 1: average score against size, the report's models and ours.

A model much smaller or larger than the report's gets a narrow panel of its own, so that theirs stay apart.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Annotation

from xmodel2.plots import BLUE, GREY, ORANGE, svg

_NEAR = (0.8, 2.3)  # billions: what fits beside the report's models
_WIDER_FONTS = 1.1  # a viewer's letters against those that are measured here
_DIRECTIONS = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))
_STEPS = (7, 14, 22, 32, 44)  # points from the mark
_PLACES = [(step, *direction) for step, direction in itertools.product(_STEPS, _DIRECTIONS)]
_ROUNDS = 4  # in which every name looks for a better place

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Point:
    """A model in the figure."""

    name: str
    billions: float | None
    """Parameters; None where unknown, which is drawn as a line across."""
    average: float
    """Percent."""
    interval: tuple[float, float] | None = None
    """95%, percent."""
    whole: bool = True
    """Whether it is over whole test sets; a hollow mark if not."""


def size_figure(rows: Sequence[Point], xmodel2: str, ours: Point | None, label: str) -> str:
    """Return an SVG of ``rows``, the one named ``xmodel2`` in blue, and ours in orange; ``label``: what is averaged."""
    figure = Figure(figsize=(8.6, 5.9), layout="constrained")
    main, own = _panels(figure, ours)
    figure.supylabel(label, fontsize=10)
    figure.supxlabel("parameters, billions", fontsize=10)
    named: list[tuple[Axes, Point, str]] = []
    for point in rows:
        color = BLUE if point.name == xmodel2 else GREY
        main.plot(
            _x(point),
            [point.average],
            "s" if color == BLUE else "o",
            color=color,
            markersize=7 if color == BLUE else 5.5,
        )
        named.append((main, point, color))
    if ours is not None and ours.billions is None:
        main.axhline(ours.average, color=ORANGE, linestyle="--", linewidth=1.3, label=f"{ours.name}, size unknown")
        main.legend(frameon=False, loc="lower right")
    elif ours is not None:
        errors = None if ours.interval is None else np.abs(np.subtract(ours.interval, ours.average))[:, None]
        face = ORANGE if ours.whole else "white"
        own.errorbar(_x(ours), [ours.average], errors, color=ORANGE, capsize=3, zorder=4)
        own.plot(_x(ours), [ours.average], "D", color=ORANGE, markersize=8, markerfacecolor=face, zorder=5)
        named.append((own, ours, "#a85a10"))
    main.margins(0.14, 0.08)
    _label(figure, named, main)
    return svg(figure)


def _x(point: Point) -> tuple[float]:
    assert point.billions is not None
    return (point.billions,)


def _panels(figure: Figure, ours: Point | None) -> tuple[Axes, Axes]:
    """Return the axes of the report's models and of ours: the same, unless ours is far away."""
    size = None if ours is None else ours.billions
    if size is None or _NEAR[0] <= size <= _NEAR[1]:
        panels = [figure.subplots()]
        main = own = panels[0]
    else:
        smaller = size < _NEAR[0]
        panels = list(figure.subplots(1, 2, sharey=True, width_ratios=(1, 5) if smaller else (5, 1)))
        own, main = panels if smaller else panels[::-1]
        own.set_xlim(size * 0.5, size * 1.5)
        own.set_xticks([size], [f"{size:.3g}"])
        for axes, side, at in ((panels[0], "right", 1), (panels[1], "left", 0)):
            axes.spines[side].set_visible(False)
            axes.plot(
                [at], [0], transform=axes.transAxes, marker=[(-1, -2), (1, 2)], markersize=9, color="k", clip_on=False
            )
        panels[1].tick_params(left=False)
    for axes in panels:
        axes.grid(alpha=0.25, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    return main, own


def _label(figure: Figure, named: Sequence[tuple[Axes, Point, str]], main: Axes) -> None:
    """Write each name near its mark, where it covers no mark and no other name, with a line to it if it is not beside it."""
    figure.draw_without_rendering()
    renderer = FigureCanvasAgg(figure).get_renderer()
    pixel = figure.dpi / 72
    edges = figure.bbox.extents
    # Ours may be written over the gap between two panels; the others stay in theirs.
    anywhere = (min(axes.bbox.x0 for axes in figure.axes), main.bbox.y0, edges[2], edges[3])
    of_main = (main.bbox.x0, main.bbox.y0, edges[2] if main is figure.axes[-1] else main.bbox.x1, edges[3])
    marks = [_mark(axes, point, pixel) for axes, point, _ in named]
    texts = [_text(axes, point, color) for axes, point, color in named]
    boxes, lines, costs = [], [], []
    for (axes, point, _), text in zip(named, texts, strict=True):
        x, y = axes.transData.transform((*_x(point), point.average))
        wide, high = np.array(text.get_window_extent(renderer).size) * _WIDER_FONTS
        bounds = of_main if axes is main else anywhere
        boxes.append(np.array([_box(x, y, wide, high, right, up, step * pixel) for step, right, up in _PLACES]))
        lines.append(np.array([_line(x, y, right, up, step * pixel) for step, right, up in _PLACES]))
        near = np.array([step + (up != 0) + (right < 0) for step, right, up in _PLACES])
        costs.append(near + 50 * np.array([_outside(box, bounds) for box in boxes[-1]]))
    chosen: dict[int, int] = {}
    for _, i in itertools.product(range(_ROUNDS), range(len(named))):
        names = [boxes[j][place] for j, place in chosen.items() if j != i]
        taken = np.array([*marks[:i], *marks[i + 1 :], *names])
        chosen[i] = int(np.argmin(costs[i] + _overlaps(boxes[i], taken) + _overlaps(lines[i], taken)))
    for i, place in chosen.items():
        step, right, up = _PLACES[place]
        texts[i].set_position((right * step, up * step))
        texts[i].set_horizontalalignment(("center", "left", "right")[right])
        texts[i].set_verticalalignment(("center", "bottom", "top")[up])
        line = texts[i].arrow_patch
        if step == _STEPS[0] and line is not None:
            line.set_visible(False)


def _mark(axes: Axes, point: Point, pixel: float) -> Box:
    """Return the room of a mark and its interval, with so much around it that another's name does not seem its own."""
    low, high = point.interval or (point.average, point.average)
    (x, bottom), (_, top) = (axes.transData.transform((*_x(point), end)) for end in (low, high))
    return x - 8 * pixel, bottom - 8 * pixel, x + 8 * pixel, top + 8 * pixel


def _text(axes: Axes, point: Point, color: str) -> Annotation:
    text = axes.annotate(
        point.name,
        (*_x(point), point.average),
        xytext=(0, 0),
        textcoords="offset points",
        fontsize=8.5,
        color="#3b444d" if color == GREY else color,
        fontweight="normal" if color == GREY else "bold",
        annotation_clip=False,
        arrowprops={"arrowstyle": "-", "color": GREY, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 4},
    )
    text.set_in_layout(False)
    return text


def _box(x: float, y: float, wide: float, high: float, right: int, up: int, away: float) -> Box:
    """Return left, bottom, right, top of a text that lies in a direction of its mark, pixels."""
    left = x + right * away - wide * (1 - right) / 2
    bottom = y + up * away - high * (1 - up) / 2
    return left, bottom, left + wide, bottom + high


def _line(x: float, y: float, right: int, up: int, away: float) -> Box:
    """Return the middle of the line from a mark to its text, which must not cross another name either."""
    x, y = x + right * away / 2, y + up * away / 2
    wide, high = (abs(side) * max(0.0, away - 20) / 2 for side in (right, up))
    return x - wide, y - high, x + wide, y + high


def _overlaps(boxes: np.ndarray, taken: np.ndarray) -> np.ndarray:
    """Return the area that each of ``boxes`` [P, 4] shares with all of ``taken`` [T, 4], and something for each it touches."""
    low = np.maximum(boxes[:, None, :2], taken[:, :2])
    sides = np.minimum(boxes[:, None, 2:], taken[:, 2:]) - low
    return np.where((sides > 0).all(-1), sides.prod(-1) + 60, 0.0).sum(-1)


def _outside(box: Sequence[float] | np.ndarray, inner: Sequence[float]) -> float:
    """Return how far a box reaches over the edges of another, pixels."""
    return max(0.0, inner[0] - box[0], inner[1] - box[1], box[2] - inner[2], box[3] - inner[3])
