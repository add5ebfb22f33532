"""Where a sweep's best value lies at each size, and how far it drifts, in octaves, with a bootstrap interval.

The optimum is the vertex of a parabola, in the logarithm of the value, through the best value and its two neighbours. What a
seed adds to all values alike (its data, its first weights) is taken out; what is left between seeds is the noise, pooled over
all sizes, since each alone has too few, and the source of the intervals. A size with five seeds or more has enough of them:
there the seeds themselves are redrawn, since noise differs between sizes, and rates that nearly diverge have the most of it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from xmodel2.search.sweep import Cell

_ENOUGH = 5
"""Seeds of a size from which its own are redrawn."""


@dataclass(frozen=True)
class Optimum:
    """The best value at one size."""

    size: int
    octave: float | None
    """log2 of the best value over the recipe's; None if all values diverged."""
    loss: float | None
    """The parabola's loss there, nats a token."""
    interval: tuple[float, float] | None
    """95% interval of ``octave``; None without several seeds."""
    at_edge: bool
    """Whether the best value tried is the smallest or largest one, so that the optimum may lie beyond, or beside one that
    diverged, so that it may lie between."""
    regret: float | None
    """Share by which the loss of the recipe's own value is above the best one tried; None if it was not tried or diverged."""


@dataclass(frozen=True)
class Drift:
    """How the optimum moves over the sizes of a sweep."""

    optima: list[Optimum]
    octaves: float | None
    """From the smallest size to the largest, along the straight line through all optima; None with fewer than two."""
    interval: tuple[float, float] | None
    """95% interval of ``octaves``; None without several seeds."""
    slope: float | None
    """Octaves per doubling of the size."""
    noise: float | None
    """Standard deviation of a loss between seeds, beside what a seed adds to all values alike."""


def drift(cells: Sequence[Cell], samples: int = 1000, seed: int = 0) -> Drift:
    """Return the optima of the cells of one sweep and one parametrisation, and their drift."""
    sizes = sorted({cell.size for cell in cells})
    tables = {size: curves([cell for cell in cells if cell.size == size]) for size in sizes}
    known = [size for size in sizes if np.isfinite(tables[size][1]).any()]
    noise, random = _noise(cells), np.random.default_rng(seed)
    drawn: dict[int, np.ndarray] = {}
    for size in known:
        octaves, losses, count = tables[size]
        shared, by_seed = _of_all_seeds([cell for cell in cells if cell.size == size])
        if len(by_seed) >= _ENOUGH and shared.size > 2:
            # One less than there are, so that a mean varies as that of all does.
            chosen = random.integers(len(by_seed), size=(samples, len(by_seed) - 1))
            drawn[size] = _vertices(shared, by_seed[chosen].mean(1))[0]
        elif noise is not None:
            redrawn = losses + random.normal(0, noise / np.sqrt(count), (samples, len(losses)))
            drawn[size] = _vertices(octaves, redrawn)[0]
    optima = [_optimum(size, tables[size], drawn.get(size)) for size in sizes]
    if len(known) < 2:
        return Drift(optima, None, None, None, noise)
    # Along the line and not from the lowest to the highest optimum: the range of noisy values is never 0.
    x = np.log2(known)
    slope = float(_slope(x, np.array([_vertices(*tables[size][:2])[0] for size in known])))
    doublings = float(x[-1] - x[0])
    whole = len(drawn) == len(known)
    interval = _interval(doublings * _slope(x, np.stack([drawn[size] for size in known], axis=1))) if whole else None
    return Drift(optima, slope * doublings, interval, slope, noise)


Table = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Octaves in order, mean loss of each (infinite if a seed diverged), and how many seeds it has."""


def curves(cells: Sequence[Cell]) -> Table:
    """Return the losses of one size by octave, means over seeds."""
    octaves, losses = _by_octave(cells)
    means = [float(np.mean(list(by_seed.values()))) for by_seed in losses]
    return np.array(octaves), np.array(means), np.array([len(by_seed) for by_seed in losses])


def _by_octave(cells: Sequence[Cell]) -> tuple[list[float], list[dict[int, float]]]:
    """Return the octaves of one size, and for each the loss by seed, without what a seed adds to all octaves it shares."""
    octaves = sorted({cell.octave for cell in cells})
    losses: list[dict[int, float]] = [{} for _ in octaves]
    for cell in cells:
        losses[octaves.index(cell.octave)][cell.seed] = cell.loss if math.isfinite(cell.loss) else math.inf
    shared = _complete(losses)
    if not shared:
        return octaves, losses
    mean = float(np.mean([list(one.values()) for one in shared]))
    added = {seed: float(np.mean([one[seed] for one in shared])) - mean for seed in shared[0]}
    return octaves, [{seed: loss - added[seed] for seed, loss in one.items()} for one in losses]


def _complete(losses: Sequence[dict[int, float]]) -> list[dict[int, float]]:
    """Return those octaves' losses by seed that have a finite one of each seed."""
    seeds = {seed for one in losses for seed in one}
    return [one for one in losses if one.keys() == seeds and all(map(math.isfinite, one.values()))]


def _of_all_seeds(cells: Sequence[Cell]) -> tuple[np.ndarray, np.ndarray]:
    """Return the octaves of one size that all of its seeds have finite losses at, and these losses [seeds, octaves]."""
    octaves, losses = _by_octave(cells)
    complete = _complete(losses)
    seeds = sorted(complete[0]) if complete else []
    shared = [octave for octave, one in zip(octaves, losses, strict=True) if one in complete]
    return np.array(shared), np.array([[one[seed] for one in complete] for seed in seeds])


def _vertices(octaves: np.ndarray, losses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return octave and loss of the lowest point of parabolas through the best value and its neighbours; losses [..., octaves].

    A best value at the edge, or beside one that diverged, is itself what is returned.

    >>> x = np.array([-1.0, 0, 1])
    >>> [float(part.round(6)) for part in _vertices(x, 3 + (x - 0.25) ** 2)]
    [0.25, 3.0]
    """
    best = losses.argmin(-1)
    middle = np.clip(best, 1, len(octaves) - 2) if len(octaves) > 2 else best
    inside = (best == middle) & (len(octaves) > 2)
    at = [np.clip(middle + shift, 0, len(octaves) - 1) for shift in (-1, 0, 1)]
    x = [octaves[index] for index in at]
    y = [np.take_along_axis(losses, index[..., None], -1)[..., 0] for index in at]
    inside &= np.isfinite(y[0]) & np.isfinite(y[2])
    with np.errstate(invalid="ignore", divide="ignore"):
        left, right = (y[1] - y[0]) / (x[1] - x[0]), (y[2] - y[1]) / (x[2] - x[1])
        bend = (right - left) / (x[2] - x[0])
        vertex = (x[0] + x[1]) / 2 - left / (2 * bend)
        lowest = y[1] - bend * (x[1] - vertex) ** 2
    inside &= bend > 0
    lowest_tried = losses.min(-1)
    return np.where(inside, vertex, octaves[best]), np.where(inside, lowest, lowest_tried)


def _optimum(size: int, table: Table, drawn: np.ndarray | None) -> Optimum:
    octaves, losses, _ = table
    best = int(np.argmin(losses))
    if not math.isfinite(losses[best]):
        return Optimum(size, None, None, None, True, None)
    at, loss = _vertices(octaves, losses)
    own = losses[octaves == 0.0]
    regret = float(own[0] / losses[best] - 1) if len(own) and math.isfinite(own[0]) else None
    interval = None if drawn is None else _interval(drawn)
    beyond = best in (0, len(losses) - 1) or not np.isfinite(losses[best - 1 : best + 2]).all()
    return Optimum(size, float(at), float(loss), interval, beyond, regret)


def _noise(cells: Sequence[Cell]) -> float | None:
    squares, freedom = 0.0, 0
    for size in {cell.size for cell in cells}:
        _, losses = _by_octave([cell for cell in cells if cell.size == size])
        several = [list(one.values()) for one in losses if len(one) > 1 and all(map(math.isfinite, one.values()))]
        squares += sum(len(values) * float(np.var(values)) for values in several)
        freedom += sum(len(values) - 1 for values in several) - (max(map(len, several)) - 1 if several else 0)
    return math.sqrt(squares / freedom) if freedom > 0 else None


def _slope(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the slopes of straight lines through y [..., points]."""
    centred = x - x.mean()
    return (y @ centred) / max(float(centred @ centred), 1e-12)


def _interval(values: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(values, (0.025, 0.975))
    return float(low), float(high)
