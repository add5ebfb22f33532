"""Which source a row comes from: a pure function of the row's number, with exact proportions at every length.

Sources are split off one after another. At each split the rows that go left are spread evenly, so that after n rows
exactly floor(n * p + 1/2) went left. Nothing is stored: any row of a run of any length is found at once, and after n rows
every source has its share of them to within about one row.
"""

from collections.abc import Mapping

import numpy as np

from xmodel2.errors import XmodelError

_DENOMINATOR = 10**9


class Mixture:
    """Weights (share of rows, and so of tokens) by source; the order in which they are given does not matter."""

    def __init__(self, weights: Mapping[str, float]) -> None:
        """Raise `XmodelError` if a weight is negative or they do not sum to 1."""
        for name, weight in weights.items():
            if not weight >= 0:
                raise XmodelError(f"mixture: the share of {name} is {weight}; it must not be negative")
        total = sum(weights.values())
        if abs(total - 1) > 1e-6:
            raise XmodelError(f"mixture: the shares sum to {total:.6g}; they must sum to 1")
        self.names = sorted(name for name, weight in weights.items() if weight > 0)
        # Parts in 1e9; each split's odds are (this one) : (all after it), in integers so that no rounding drifts.
        self._parts = [round(weights[name] / total * _DENOMINATOR) for name in self.names]

    def _splits(self) -> list[tuple[int, int]]:
        left = sum(self._parts)
        splits = []
        for part in self._parts[:-1]:
            splits.append((part, left))
            left -= part
        return splits

    def counts(self, rows: int) -> dict[str, int]:
        """Return how many of the first ``rows`` rows come from each source."""
        result, rest = {}, rows
        for name, (part, whole) in zip(self.names, self._splits(), strict=False):
            result[name] = (2 * rest * part + whole) // (2 * whole)
            rest -= result[name]
        result[self.names[-1]] = rest
        return result

    def assign(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Return, for rows start..stop, the index of each one's source and its own number within that source."""
        source = np.full(stop - start, len(self.names) - 1)
        number = np.arange(start, stop, dtype=object)  # Python integers: n * part outgrows 64 bits
        open_rows = np.ones(stop - start, dtype=bool)
        for index, (part, whole) in enumerate(self._splits()):
            before = (2 * number * part + whole) // (2 * whole)
            after = (2 * (number + 1) * part + whole) // (2 * whole)
            here = open_rows & (after > before).astype(bool)
            source[here] = index
            number = np.where(here, before, np.where(open_rows, number - before, number))
            open_rows &= ~here
        return source, number.astype(np.int64)


def counts(weights: Mapping[str, float], rows: int) -> dict[str, int]:
    """Return how many of the first ``rows`` rows come from each source.

    >>> counts({"web": 0.6388, "code": 0.3612}, 10_000)
    {'code': 3612, 'web': 6388}
    """
    return Mixture(weights).counts(rows)
