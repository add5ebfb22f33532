"""Where a sweep's best value lies at each size, and how far it drifts, in octaves, with a bootstrap interval.

The optimum is the vertex of a parabola, in the logarithm of the value, through the best value and its two neighbours. What a
seed adds to all values alike (its data, its first weights) is taken out; what is left between seeds is the noise, pooled over
all sizes, since each alone has too few, and the source of the intervals.
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
    """Standard deviation of a loss between seeds, beside what a seed adds to all values alike."""


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
    octaves, losses = _by_octave(cells)
    means = [float(np.mean(list(by_seed.values()))) for by_seed in losses]
    return np.array(octaves), np.array(means), np.array([len(by_seed) for by_seed in losses])


def _by_octave(cells: Sequence[Cell]) -> tuple[list[float], list[dict[int, float]]]:
    """Return the octaves of one size, and for each the loss by seed, without what a seed adds to all octaves it shares."""
    octaves = sorted({cell.octave for cell in cells})
    losses: list[dict[int, float]] = [{} for _ in octaves]
    for cell in cells:
        losses[octaves.index(cell.octave)][cell.seed] = cell.loss if math.isfinite(cell.loss) else math.inf
    seeds = {cell.seed for cell in cells}
    shared = [one for one in losses if one.keys() == seeds and all(map(math.isfinite, one.values()))]
    if not shared:
        return octaves, losses
    mean = float(np.mean([list(one.values()) for one in shared]))
    added = {seed: float(np.mean([one[seed] for one in shared])) - mean for seed in seeds}
    return octaves, [{seed: loss - added[seed] for seed, loss in one.items()} for one in losses]


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
    squares, freedom = 0.0, 0
    for size in {cell.size for cell in cells}:
        _, losses = _by_octave([cell for cell in cells if cell.size == size])
        several = [list(one.values()) for one in losses if len(one) > 1 and all(map(math.isfinite, one.values()))]
        squares += sum(len(values) * float(np.var(values)) for values in several)
        freedom += sum(len(values) - 1 for values in several) - (max(map(len, several)) - 1 if several else 0)
    return math.sqrt(squares / freedom) if freedom > 0 else None


def _slope(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.polyfit(x, y, 1)[0]) if len(x) > 1 else 0.0


def _interval(values: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(values, (0.025, 0.975))
    return float(low), float(high)
