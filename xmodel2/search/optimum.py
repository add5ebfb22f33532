"""Where a sweep's best value lies at each size, and how far it drifts, in octaves, with a bootstrap interval.

The optimum is the vertex of a parabola, in the logarithm of the value, through the best value and its two neighbours. Its
uncertainty comes from the noise between seeds, pooled over all cells that have several, since each alone has too few.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from xmodel2.search.sweep import Cell


@dataclass(frozen=True)
class Optimum:
    """The best value at one size."""

    size: int
    octave: float
    """log2 of the best value over the recipe's."""
    loss: float
    """The parabola's loss there, nats a token."""
    interval: tuple[float, float] | None
    """95% interval of ``octave``; None without several seeds."""
    at_edge: bool
    """Whether the best value tried is the smallest or largest one: the optimum may lie beyond."""
    regret: float
    """Share by which the loss of the recipe's own value is above the best one tried."""


@dataclass(frozen=True)
class Drift:
    """How the optimum moves over the sizes of a sweep."""

    optima: list[Optimum]
    octaves: float
    """Largest optimum less the smallest."""
    interval: tuple[float, float] | None
    slope: float
    """Octaves per doubling of the size."""
    slope_interval: tuple[float, float] | None
    noise: float | None
    """Standard deviation of a loss between seeds."""


def drift(cells: Sequence[Cell], samples: int = 1000, seed: int = 0) -> Drift:
    """Return the optima of the cells of one sweep and one parametrisation, and their drift."""
    sizes = sorted({cell.size for cell in cells})
    tables = [_table([cell for cell in cells if cell.size == size]) for size in sizes]
    noise = _noise(cells)
    vertices = np.array([_vertex(octaves, losses)[0] for octaves, losses, _ in tables])
    drawn = None
    if noise is not None:
        random = np.random.default_rng(seed)
        drawn = np.array(
            [
                [_vertex(x, y + random.normal(0, noise / np.sqrt(count)))[0] for x, y, count in tables]
                for _ in range(samples)
            ]
        )
    doublings = np.log2(sizes)
    optima = [
        _optimum(size, table, None if drawn is None else drawn[:, column])
        for column, (size, table) in enumerate(zip(sizes, tables, strict=True))
    ]
    return Drift(
        optima,
        float(np.ptp(vertices)),
        None if drawn is None else _interval(np.ptp(drawn, axis=1)),
        _slope(doublings, vertices),
        None if drawn is None else _interval(np.array([_slope(doublings, row) for row in drawn])),
        noise,
    )


Table = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Octaves in order, mean loss of each (infinite if a seed diverged), and how many seeds it has."""


def _table(cells: Sequence[Cell]) -> Table:
    by_octave: dict[float, list[float]] = {}
    for cell in cells:
        by_octave.setdefault(cell.octave, []).append(cell.loss if math.isfinite(cell.loss) else math.inf)
    octaves = sorted(by_octave)
    losses = [float(np.mean(by_octave[octave])) for octave in octaves]
    return np.array(octaves), np.array(losses), np.array([len(by_octave[octave]) for octave in octaves])


def _vertex(octaves: np.ndarray, losses: np.ndarray) -> tuple[float, float]:
    """Return octave and loss of the parabola's lowest point, within the values tried.

    >>> x = np.array([-1.0, 0, 1])
    >>> tuple(round(v, 6) for v in _vertex(x, 3 + (x - 0.25) ** 2))
    (0.25, 3.0)
    """
    best = int(np.argmin(losses))
    near = np.isfinite(losses) & (np.abs(np.arange(len(losses)) - best) <= 1)
    if near.sum() < 3:
        return float(octaves[best]), float(losses[best])
    a, b, c = np.polyfit(octaves[near], losses[near], 2)
    if a <= 0:
        return float(octaves[best]), float(losses[best])
    at = float(np.clip(-b / (2 * a), octaves[near].min(), octaves[near].max()))
    return at, float(a * at * at + b * at + c)


def _optimum(size: int, table: Table, drawn: np.ndarray | None) -> Optimum:
    octaves, losses, _ = table
    at, loss = _vertex(octaves, losses)
    best = int(np.argmin(losses))
    own = losses[octaves == 0.0]
    regret = float(own[0] / losses[best] - 1) if len(own) and math.isfinite(own[0]) else math.nan
    interval = None if drawn is None else _interval(drawn)
    return Optimum(size, at, loss, interval, best in (0, len(losses) - 1), regret)


def _noise(cells: Sequence[Cell]) -> float | None:
    groups: dict[tuple[int, float], list[float]] = {}
    for cell in cells:
        if math.isfinite(cell.loss):
            groups.setdefault((cell.size, cell.octave), []).append(cell.loss)
    several = [losses for losses in groups.values() if len(losses) > 1]
    freedom = sum(len(losses) - 1 for losses in several)
    if not freedom:
        return None
    return math.sqrt(sum((len(losses) - 1) * float(np.var(losses, ddof=1)) for losses in several) / freedom)


def _slope(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.polyfit(x, y, 1)[0]) if len(x) > 1 else 0.0


def _interval(values: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(values, (0.025, 0.975))
    return float(low), float(high)
