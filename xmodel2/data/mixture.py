"""Which source a row comes from: a pure function of the row's number, with exact proportions at every length.

Sources are split off one after another. At each split the rows that go left are spread evenly, so that after n rows
exactly floor(n * p + 1/2) went left. Nothing is stored: any row of a run of any length is found at once, and after n rows
every source has its share of them to within about one row.
"""

from collections.abc import Mapping

import numpy as np

from xmodel2.errors import XmodelError

_DENOMINATOR = 10**8
MAX_ROWS = (2**63 - 1) // (2 * _DENOMINATOR) - 2
"""Rows of the longest run: beyond it the rule's products outgrow 64 bits."""


class Mixture:
    """Weights (share of rows) by source; the order in which they are given does not matter."""

    def __init__(self, weights: Mapping[str, float]) -> None:
        """Raise `XmodelError` if a weight is negative or they do not sum to 1."""
        for name, weight in weights.items():
            if not weight >= 0:
                raise XmodelError(f"mixture: the share of {name} is {weight}; it must not be negative")
        total = sum(weights.values())
        if abs(total - 1) > 1e-6:
            raise XmodelError(f"mixture: the shares sum to {total:.6g}; they must sum to 1")
        self.names = sorted(name for name, weight in weights.items() if weight > 0)
        # Parts in 1e8; each split's odds are (this one) : (all after it), in integers so that no rounding drifts.
        self._parts = [max(1, round(weights[name] / total * _DENOMINATOR)) for name in self.names]

    def _splits(self) -> list[tuple[int, int]]:
        left = sum(self._parts)
        splits = []
        for part in self._parts[:-1]:
            splits.append((part, left))
            left -= part
        return splits

    def counts(self, rows: int) -> dict[str, int]:
        """Return how many of the first ``rows`` rows come from each source. Raises `XmodelError` beyond `MAX_ROWS`."""
        if rows > MAX_ROWS:
            raise XmodelError(
                f"mixture: {rows:,} rows are more than the {MAX_ROWS:,} that a stage can have; use longer ones"
            )
        result, rest = {}, rows
        for name, (part, whole) in zip(self.names, self._splits(), strict=False):
            result[name] = (2 * rest * part + whole) // (2 * whole)
            rest -= result[name]
        result[self.names[-1]] = rest
        return result

    def assign(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Return, for rows start..stop <= `MAX_ROWS`, the index of each one's source and its own number there (int64)."""
        source = np.full(stop - start, len(self.names) - 1)
        number = np.arange(start, stop)
        left = np.arange(stop - start)  # rows that no split has taken yet
        for index, (part, whole) in enumerate(self._splits()):
            twice = 2 * part * number[left] + whole
            before = twice // (2 * whole)
            here = (twice + 2 * part) // (2 * whole) > before
            source[left[here]] = index
            number[left] = np.where(here, before, number[left] - before)
            left = left[~here]
        return source, number


def counts(weights: Mapping[str, float], rows: int) -> dict[str, int]:
    """Return how many of the first ``rows`` rows come from each source.

    >>> counts({"web": 0.6388, "code": 0.3612}, 10_000)
    {'code': 3612, 'web': 6388}
    """
    return Mixture(weights).counts(rows)
