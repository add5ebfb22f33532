"""What values over seeds say: their mean, its standard error, and its interval by Student's t."""

import math
from collections.abc import Sequence

from scipy.special import stdtrit

LEVEL = 0.95
"""Of intervals."""


def mean_and_error(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Return the mean and its standard error; None where there are too few values.

    >>> mean_and_error([1.0, 3.0])
    (2.0, 1.0)
    """
    if not values:
        return None, None
    mean = sum(values) / len(values)
    if len(values) < 2:
        return mean, None
    return mean, math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1) / len(values))


def t_interval(mean: float | None, error: float | None, seeds: int, among: int = 1) -> tuple[float, float] | None:
    """Return the ends of the interval of a mean over ``seeds``, one of ``among`` that hold together (Bonferroni).

    None where the mean or its error is, and for fewer than two seeds.

    >>> [round(end, 2) for end in t_interval(-0.5, 0.1, 3)], [round(end, 2) for end in t_interval(-0.5, 0.1, 3, 2)]
    ([-0.93, -0.07], [-1.12, 0.12])
    """
    if mean is None or error is None or seeds < 2:
        return None
    half = float(stdtrit(seeds - 1, 1 - (1 - LEVEL) / 2 / among)) * error
    return mean - half, mean + half
