"""What a model must beat: the unigram entropy, and a 5-gram model with modified Kneser-Ney smoothing on the same tokens.

An n-gram is one 64-bit number, the running sum of its tokens' codes times an odd constant (equal numbers for different
n-grams are as unlikely as N^2 / 2^64). Counts are sorted arrays, looked up by binary search; all of it is numpy.
Smoothing: Chen and Goodman, "An empirical study of smoothing techniques for language modeling", 1999, section 3.
"""

from dataclasses import dataclass

import numpy as np

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


def unigram_entropy(train: np.ndarray, heldout: np.ndarray, vocab_size: int) -> float:
    """Return nats a token of held-out tokens [M] under the frequencies of ``train`` [N], each count plus one."""
    frequency = np.bincount(train, minlength=vocab_size) + 1.0
    return float(-np.log(frequency[heldout] / frequency.sum()).mean())


@dataclass
class _Order:
    grams: np.ndarray
    """Sorted n-grams, uint64."""
    counts: np.ndarray
    """Count of each (of distinct left neighbours below the highest order)."""
    contexts: np.ndarray
    """Sorted contexts, uint64."""
    totals: np.ndarray
    """Sum of counts by context."""
    backoff: np.ndarray
    """Probability mass left to the lower order, by context."""
    discounts: np.ndarray
    """For counts of 1, 2 and 3 or more, after a leading 0."""


class KneserNey:
    """Interpolated modified Kneser-Ney."""

    def __init__(self, vocab_size: int, order: int = 5) -> None:
        self.vocab_size, self.order = vocab_size, order
        self._levels: list[_Order] = []

    def fit(self, tokens: np.ndarray) -> "KneserNey":
        """Count the n-grams of ``tokens`` [N]."""
        keys = _keys(tokens, self.order)
        full, first, count = np.unique(keys[self.order], return_index=True, return_counts=True)
        levels = [self._level(self.order, keys, full, first + self.order - 1, count)]
        for n in range(self.order - 1, 0, -1):
            # Below the highest order an n-gram counts once for each distinct token before it.
            ends = first + n
            full, picked, count = np.unique(keys[n][ends - n + 1], return_index=True, return_counts=True)
            first = ends[picked] - n + 1
            levels.append(self._level(n, keys, full, first + n - 1, count))
        self._levels = levels[::-1]
        return self

    def _level(self, n: int, keys: list[np.ndarray], grams: np.ndarray, ends: np.ndarray, counts: np.ndarray) -> _Order:
        of_counts = [int((counts == k).sum()) for k in range(1, 5)]
        discounts = _discounts(of_counts)
        context = keys[n - 1][ends - n + 1] if n > 1 else np.zeros(len(grams), dtype=np.uint64)
        contexts, inverse = np.unique(context, return_inverse=True)
        totals = np.bincount(inverse, counts)
        removed = np.bincount(inverse, discounts[np.minimum(counts, 3)])
        return _Order(grams, counts, contexts, totals, removed / totals, discounts)

    def probabilities(self, tokens: np.ndarray) -> np.ndarray:
        """Return the probability of each token [M] after those before it (fewer at the start)."""
        keys = _keys(tokens, self.order)
        result = np.full(len(tokens), 1.0 / self.vocab_size)
        for n, level in enumerate(self._levels, 1):
            at = slice(n - 1, None)
            context = keys[n - 1][: len(tokens) - n + 1] if n > 1 else np.zeros(len(tokens), dtype=np.uint64)
            slot, known = _find(level.contexts, context)
            gram, seen = _find(level.grams, keys[n])
            count = np.where(seen, level.counts[gram], 0)
            kept = np.maximum(count - level.discounts[np.minimum(count, 3)], 0) / level.totals[slot]
            result[at] = np.where(known, kept + level.backoff[slot] * result[at], result[at])
        return result

    def score(self, tokens: np.ndarray, wanted: np.ndarray | None = None) -> float:
        """Return mean nats a token of ``tokens`` [M], over those where ``wanted`` [M] is true."""
        nats = -np.log(self.probabilities(tokens))
        return float(nats.mean() if wanted is None else nats[wanted].mean())


def _keys(tokens: np.ndarray, order: int) -> list[np.ndarray]:
    """Return, for n = 0..order, the n-gram that starts at each position."""
    codes = tokens.astype(np.uint64) + np.uint64(1)
    keys = [np.zeros(len(tokens) + 1, dtype=np.uint64)]
    with np.errstate(over="ignore"):
        for n in range(1, order + 1):
            size = max(0, len(tokens) - n + 1)
            keys.append(keys[n - 1][:size] * _MULTIPLIER + codes[n - 1 : n - 1 + size])
    return keys


def _discounts(of_counts: list[int]) -> np.ndarray:
    n1, n2, n3, n4 = of_counts
    if not (n1 and n2):
        return np.array([0.0, 0.5, 0.5, 0.5])
    y = n1 / (n1 + 2 * n2)
    d1, d2 = 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2
    d3 = 3 - 4 * y * n4 / n3 if n3 else d2
    return np.array([0.0, min(max(d1, 0.05), 1), min(max(d2, 0.05), 2), min(max(d3, 0.05), 3)])


def _find(sorted_values: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    slot = np.minimum(np.searchsorted(sorted_values, wanted), len(sorted_values) - 1)
    return slot, sorted_values[slot] == wanted
