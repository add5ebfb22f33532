"""Loss by token index: windows on a ring of text, so that every index is measured on the same tokens; means by log-spaced bins.

    text as a ring of N tokens, windows of T from M starts N / M apart -> losses [M, T] -> sums by document and bin -> curve

Index t is the t-th token of its window, predicted after the prefix token and t - 1 others. How hard the text is must not
look like an effect of t: all windows are whole, so each index has M losses; the ring has no end, so each token is seen about
M T / N times, at spread indices. What is left is chance: the M tokens at t = 1 may be easier than the M at t = 2. It is taken
out by regression on each token's own loss late in windows, as far as above the mean of its bin there (the regression
estimator of Cochran, "Sampling Techniques", 1977, chapter 7):
curve(t) = mean of loss - slope * (mean late loss of its tokens - that of all tokens).
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

BINS_PER_DOUBLING = 4
FEWEST_DOCUMENTS = 20
"""Fewer are no sample to draw from; then the text is cut in pieces."""
_PIECES = 40


def window_starts(tokens: int, windows: int) -> Ints:
    """Return where windows begin on a ring of ``tokens``: anywhere in each of as many equal parts.

    Equal steps would tie the late indices of a token to its early ones, and a bump of the curve at t to one at t - step.
    """
    part = np.arange(windows) + np.random.default_rng(0).random(windows)
    return (part * tokens / windows).astype(np.int64)


def bin_edges(context: int) -> Ints:
    """Return the first index of each bin, and context + 1: single indices first, then even steps of log t.

    >>> bin_edges(16).tolist()
    [1, 2, 3, 4, 5, 6, 7, 9, 10, 12, 14, 17]
    """
    count = int(np.ceil(BINS_PER_DOUBLING * np.log2(context + 1)))
    return np.unique(np.round(np.geomspace(1, context + 1, count + 1)).astype(np.int64))


def sampling_units(document_of_token: Ints, starts: Ints) -> tuple[str, Ints]:
    """Return what the bootstrap draws, and that of each token: documents, or pieces if they are no sample to draw from.

    They are none if few of them have a token at one of the first indices, or if one is most of the text.
    """
    tokens = len(document_of_token)
    begun = min(len(np.unique(document_of_token[(starts + t) % tokens])) for t in range(4))
    if begun >= FEWEST_DOCUMENTS and np.bincount(document_of_token).max() <= tokens / 5:
        return "documents", document_of_token
    return "pieces", np.arange(tokens, dtype=np.int64) * _PIECES // tokens


@dataclass(frozen=True)
class Sums:
    """Losses of a text, added up by unit of sampling U and bin B: every curve, of all units or of drawn ones, is a mean of them."""

    edges: Ints
    """[B + 1], first index of each bin, and the context + 1."""
    losses_UB: Array
    counts_UB: Array
    late_UB: Array
    """Sums of the late loss of the bin's tokens."""
    slopes_B: Array
    """Of loss by late loss; 0 in the later half of the window, whose bins are what late losses are made of."""
    tokens_U: Array
    all_late_U: Array
    """Sum of the late losses of all tokens of the unit."""

    @property
    def t(self) -> Array:
        """Geometric mean of each bin's indices: t^-c there is its mean over the bin to a part in a thousand."""
        logs = np.log(np.arange(1, self.edges[-1]))
        return np.exp(np.add.reduceat(logs, self.edges[:-1] - 1) / np.diff(self.edges))

    def curve(self, weights: Any = None, adjusted: bool = True) -> Array:
        """Return mean loss by bin [..., B] with each unit counted ``weights`` [..., U] times (None: once).

        A bin that these units have no token in has the mean of all units.
        """
        weights = np.ones(len(self.tokens_U)) if weights is None else np.asarray(weights, dtype=np.float64)
        counts = weights @ self.counts_UB

        def mean(sums_UB: Array) -> Array:
            whole = sums_UB.sum(axis=0) / self.counts_UB.sum(axis=0)
            return np.where(counts > 0, (weights @ sums_UB) / np.maximum(counts, 1.0), whole)

        loss = mean(self.losses_UB)
        if not adjusted:
            return loss
        everywhere = (weights @ self.all_late_U) / (weights @ self.tokens_U)
        return loss - self.slopes_B * (mean(self.late_UB) - everywhere[..., None])

    def draws(self, count: int, seed: int) -> Array:
        """Return ``count`` curves of as many units drawn with replacement [count, B]."""
        units = len(self.tokens_U)
        return self.curve(np.random.default_rng(seed).multinomial(units, np.full(units, 1 / units), size=count))


def add_up(losses_WT: NDArray[np.float32], starts: Ints, unit_of_token: Ints) -> Sums:
    """Return the sums of windows [W, T] that begin at ``starts`` [W] on the ring of tokens [N]."""
    context, tokens, units = losses_WT.shape[1], len(unit_of_token), int(unit_of_token.max()) + 1
    edges = bin_edges(context)
    late_N = _late_losses(losses_WT, starts, tokens, edges)
    shape = units, len(edges) - 1
    losses, counts, late, slopes = np.zeros(shape), np.zeros(shape), np.zeros(shape), np.zeros(shape[1])
    for b, (first, end) in enumerate(pairwise(edges.tolist())):
        place = ((starts[:, None] + np.arange(first - 1, end - 1)) % tokens).ravel()
        y, x, unit = losses_WT[:, first - 1 : end - 1].ravel().astype(np.float64), late_N[place], unit_of_token[place]
        losses[:, b] = np.bincount(unit, y, units)
        counts[:, b] = np.bincount(unit, minlength=units)
        late[:, b] = np.bincount(unit, x, units)
        if end - 1 <= context // 2:
            x = x - x.mean()
            slopes[b] = (x @ y) / max(float(x @ x), 1e-12)
    tokens_U = np.bincount(unit_of_token, minlength=units).astype(np.float64)
    return Sums(
        edges, losses, counts, late, slopes, tokens_U, np.bincount(unit_of_token, late_N, units).astype(np.float64)
    )


def _late_losses(losses_WT: NDArray[np.float32], starts: Ints, tokens: int, edges: Ints) -> Array:
    """Return by how much each token's loss is above the mean of its bins, where it stood in the later half of a window.

    0 for a token that is never late.
    """
    context = losses_WT.shape[1]
    half = context // 2
    above_WT = losses_WT[:, half:].astype(np.float64)
    for first, end in pairwise([half + 1, *edges[edges > half + 1].tolist()]):
        above_WT[:, first - 1 - half : end - 1 - half] -= above_WT[:, first - 1 - half : end - 1 - half].mean()
    total, seen = np.zeros(tokens), np.zeros(tokens)
    for start, row in zip(starts, above_WT, strict=True):
        place = (start + np.arange(half, context)) % tokens  # all different: a window is no longer than the ring
        total[place] += row
        seen[place] += 1.0
    return total / np.maximum(seen, 1.0)
