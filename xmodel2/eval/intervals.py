"""Confidence intervals of scores: a share, a mean of several tasks' scores, a ratio such as nats a token.

    correct of n items    -> wilson           -> of an accuracy
    scores and intervals  -> average_interval -> of a suite's average, without the items
    items of each task    -> bootstrap_average -> the same from the items, whatever their scores are
    totals of documents   -> bootstrap_ratio  -> of nats a token; exp of its ends is perplexity's

Items are taken as drawn from an unlimited population (no finite-population correction): the interval speaks of the
benchmark's kind of question, also when every question of the set was asked.
"""

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

Interval = tuple[float, float]

_CELLS = 2_000_000
"""Resampled counts held at once: 16 MB."""


def wilson(correct: float, items: int, level: float = 0.95) -> Interval:
    """Return the Wilson score interval of ``correct`` / ``items`` (Wilson, JASA 22, 1927); (0, 1) without items.

    >>> [round(end, 4) for end in wilson(81, 263)]
    [0.2553, 0.3662]
    """
    if items == 0:
        return 0.0, 1.0
    z2 = NormalDist().inv_cdf((1 + level) / 2) ** 2
    share = correct / items
    centre = (share + z2 / (2 * items)) / (1 + z2 / items)
    half = math.sqrt(z2 * (share * (1 - share) / items + z2 / (4 * items**2))) / (1 + z2 / items)
    # At the ends the limit is the share itself, which rounding must not put outside its own interval.
    return max(0.0, min(centre - half, share)), min(1.0, max(centre + half, share))


def mean_interval(
    scores: Sequence[float] | np.ndarray, level: float = 0.95, draws: int = 2000, seed: int = 0
) -> Interval:
    """Return the interval of the mean of per-item scores [N]: Wilson's if all are 0 or 1, else by bootstrap."""
    values = np.asarray(scores, dtype=np.float64)
    if np.isin(values, (0.0, 1.0)).all():
        return wilson(float(values.sum()), len(values), level)
    return bootstrap_average([values], level, draws, seed)


def average_interval(scores: Sequence[float], intervals: Sequence[Interval]) -> Interval:
    """Return the interval of the mean of independent tasks' ``scores``, from each one's own interval.

    The variances are summed as each interval gives them on that side ("square and add": Zou and Donner, Statistics in
    Medicine 27, 2008), so that a task with no right answer still counts as uncertain, unlike with p (1 - p) / n.

    >>> average_interval([0.5, 0.7], [(0.4, 0.6), (0.6, 0.8)])[0]  # 0.6 - sqrt(0.1^2 + 0.1^2) / 2
    0.5292893218813453
    """
    mean = sum(scores) / len(scores)
    below = math.sqrt(sum((score - low) ** 2 for score, (low, _) in zip(scores, intervals, strict=True)))
    above = math.sqrt(sum((high - score) ** 2 for score, (_, high) in zip(scores, intervals, strict=True)))
    return mean - below / len(scores), mean + above / len(scores)


def bootstrap_average(
    tasks: Sequence[Sequence[float] | np.ndarray], level: float = 0.95, draws: int = 2000, seed: int = 0
) -> Interval:
    """Return the percentile interval of the mean of the tasks' means; items are redrawn within each task.

    ``tasks`` holds the per-item scores of each. How often each distinct score is redrawn is one multinomial draw, which
    for right and wrong answers costs the same at any number of items.
    """
    random = np.random.default_rng(seed)
    means = np.zeros(draws)
    for scores in tasks:
        values, counts = np.unique(np.asarray(scores, dtype=np.float64), return_counts=True)
        items = int(counts.sum())
        means += _redrawn(random, items, counts / items, values[:, None], draws)[:, 0] / items
    return _percentiles(means / len(tasks), level)


def bootstrap_ratio(
    totals: Sequence[float] | np.ndarray,
    weights: Sequence[float] | np.ndarray,
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> Interval:
    """Return the percentile interval of sum(``totals``) / sum(``weights``) over documents [N], redrawn whole.

    Nats and tokens of each document give that of the loss; the ends of any rising function of it, such as perplexity,
    are that function of these ends.
    """
    pairs = np.stack([np.asarray(totals, dtype=np.float64), np.asarray(weights, dtype=np.float64)], axis=1)
    documents = len(pairs)
    sums = _redrawn(np.random.default_rng(seed), documents, np.full(documents, 1 / documents), pairs, draws)
    return _percentiles(sums[:, 0] / sums[:, 1], level)


def _redrawn(random: np.random.Generator, items: int, shares: np.ndarray, values: np.ndarray, draws: int) -> np.ndarray:
    """Return sums [draws, C] of ``items`` rows of ``values`` [K, C], drawn with probabilities ``shares`` [K]."""
    step = max(1, _CELLS // len(shares))
    parts = [random.multinomial(items, shares, size=min(step, draws - at)) @ values for at in range(0, draws, step)]
    return np.concatenate(parts)


def _percentiles(values: np.ndarray, level: float) -> Interval:
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
