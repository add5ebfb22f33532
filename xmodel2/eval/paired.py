"""Tests of two models on the same items, and their correction for many tasks."""

from collections.abc import Sequence

import numpy as np
from scipy.special import bdtr

_BLOCK = 1000  # draws at once


def mcnemar(won: int, lost: int) -> float:
    """Return the two-sided exact p-value that as uneven a split is chance.

    >>> round(mcnemar(9, 1), 4)
    0.0215
    """
    return min(1.0, 2 * float(bdtr(min(won, lost), won + lost, 0.5)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number, in the order given.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, p_values[i] * (len(p_values) - rank)))
        corrected[i] = largest
    return corrected


def flipped_means(difference: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Return means [draws] with the sign of each item's difference [N] thrown by a coin: what they are if models are equal."""
    values, counts = np.unique(np.abs(difference), return_counts=True)
    sums = []
    for start in range(0, draws, _BLOCK):
        heads = rng.binomial(counts, 0.5, size=(min(_BLOCK, draws - start), len(values)))
        sums.append((2 * heads - counts) @ values)
    return np.concatenate(sums) / len(difference)


def flip_p(difference: float, flips: np.ndarray) -> float:
    """Return the two-sided p-value of a mean difference beside those of `flipped_means`; never 0, as draws end."""
    return float((1 + (np.abs(flips) >= abs(difference) - 1e-12).sum()) / (1 + len(flips)))
