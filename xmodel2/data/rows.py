"""The rows of one source: how many there are in an epoch, in which order they come, and what each one holds.

    row k of the source = row P(k % rows) of epoch k // rows, P a permutation drawn from (seed, source, epoch)

Concatenated: the source is a circle of T tokens, shard after shard; an epoch cuts it into T // S windows from a phase of its
own, so that no token comes twice in an epoch and epochs are cut at other places. Best fit: whole documents (data/packing.py).
Neither keeps anything of a document in memory.
"""

from abc import ABC, abstractmethod
from typing import Literal

import numpy as np

from xmodel2.data.packing import RowPlan, shard_plan
from xmodel2.data.permutation import epoch_keys, permuted
from xmodel2.data.shards import Source, SourceSplit

Packing = Literal["concatenate", "best_fit", "auto"]
_COUNTED_AT_ONCE = 1 << 16


class SourceRows(ABC):
    """Rows of S tokens of one source."""

    count: int
    """Rows in an epoch."""
    mean_tokens: float
    """Tokens in a row that are no padding, mean of an epoch."""

    def __init__(self, name: str, split: SourceSplit, sequence_length: int, seed: int) -> None:
        self.name, self.split, self.sequence_length, self._seed = name, split, sequence_length, seed

    def places(self, numbers: np.ndarray) -> np.ndarray:
        """Return where the source's rows ``numbers`` (int64 [n], any epochs) lie, int64 [n], for `read`."""
        epoch, index = np.divmod(numbers, self.count)
        epochs, inverse = np.unique(epoch, return_inverse=True)
        keys = np.array([epoch_keys(self._seed, self.name, int(e)) for e in epochs], dtype=np.uint64).reshape(-1, 2)
        slots = permuted(index, np.full(len(index), self.count), keys[inverse, 0])
        return self._places(slots, keys[inverse, 1])

    @abstractmethod
    def _places(self, slots: np.ndarray, phases: np.ndarray) -> np.ndarray:
        """Return the places of rows ``slots`` of epochs whose phases are drawn from all 64-bit numbers."""

    @abstractmethod
    def read(self, place: int, tokens: np.ndarray, loss: np.ndarray | None) -> tuple[np.ndarray, int]:
        """Write a row's tokens and the one after, [S + 1], and whether each counts as a target.

        Return where in the row, from 1 to S, another document (or the padding) starts, and how many tokens the row has.
        """

    @abstractmethod
    def documents(self, place: int) -> list[int]:
        """Return the numbers of the documents in a row."""

    @abstractmethod
    def tokens(self, first: int, last: int) -> int:
        """Return how many tokens, padding not counted, the source's rows first..last have."""

    @abstractmethod
    def cut_share(self) -> float:
        """Return the share of documents that are not whole in one row."""


class ConcatenatedRows(SourceRows):
    """Windows of the stream of documents one after another."""

    def __init__(self, name: str, split: SourceSplit, sequence_length: int, seed: int) -> None:
        super().__init__(name, split, sequence_length, seed)
        self.count = max(1, split.tokens // sequence_length)
        self.mean_tokens = float(sequence_length)

    def _places(self, slots: np.ndarray, phases: np.ndarray) -> np.ndarray:
        phase = (phases % np.uint64(self.split.tokens)).astype(np.int64)
        return (phase + slots * self.sequence_length) % self.split.tokens

    def read(self, place: int, tokens: np.ndarray, loss: np.ndarray | None) -> tuple[np.ndarray, int]:
        starts = copy_stream(self.split, place, tokens, loss)
        return starts[starts > 0], self.sequence_length

    def documents(self, place: int) -> list[int]:
        found: list[int] = []
        for shard, begin, end in _spans(self.split, place, self.sequence_length):
            first, last = self.split.documents_at(shard, np.array([begin, end - 1])).tolist()
            found += range(first, last + 1)
        return found

    def tokens(self, first: int, last: int) -> int:
        return (last - first) * self.sequence_length

    def cut_share(self) -> float:
        """Return the share, from the lengths of the first documents: one of n tokens has a cut at n - 1 places of S."""
        lengths = np.diff(self.split.files["offsets"][0][: 1 << 16])
        return float(np.clip((lengths - 1) / self.sequence_length, 0, 1).mean()) if len(lengths) else 0.0


class BestFitRows(SourceRows):
    """Rows of whole documents, filled up with padding."""

    def __init__(self, name: str, split: SourceSplit, sequence_length: int, seed: int) -> None:
        super().__init__(name, split, sequence_length, seed)
        self._memory: dict[int, np.ndarray] = {}
        plans = map(self._plan, range(len(split.files["offsets"])))
        counts, cut = zip(*((plan.rows, plan.cut) for plan in plans), strict=True)
        self._cut = sum(cut)
        self._row_starts = np.concatenate(([0], np.cumsum(counts, dtype=np.int64)))
        self.count = int(self._row_starts[-1])
        self.mean_tokens = split.tokens / self.count

    def _plan(self, shard: int) -> RowPlan:
        return shard_plan(self.split.files["offsets"], shard, self.sequence_length, self._memory)

    def _find(self, place: int) -> tuple[int, list[int], list[int]]:
        """Return a row's shard, and start and length of its pieces."""
        shard = int(self._row_starts.searchsorted(place, "right")) - 1
        plan = self._plan(shard)
        row = place - int(self._row_starts[shard])
        first, last = plan.first[row : row + 2]
        return shard, plan.start[first:last].tolist(), plan.length[first:last].tolist()

    def _places(self, slots: np.ndarray, phases: np.ndarray) -> np.ndarray:
        return slots

    def read(self, place: int, tokens: np.ndarray, loss: np.ndarray | None) -> tuple[np.ndarray, int]:
        shard, starts, lengths = self._find(place)
        if lengths == [self.sequence_length]:  # perhaps a piece of a longer document, whose next token is a target
            begin = int(self.split.token_starts[shard]) + starts[0]
            after = copy_stream(self.split, begin, tokens, loss)
            return after[after > 0], self.sequence_length
        stored = self.split.files["tokens"][shard]
        counted = self.split.files["loss"][shard] if loss is not None else None
        at = 0
        ends = []
        for start, length in zip(starts, lengths, strict=True):
            tokens[at : at + length] = stored[start : start + length]
            if loss is not None and counted is not None:
                loss[at : at + length] = counted[start : start + length]
            at += length
            ends.append(at)
        tokens[at:] = 0
        return np.array(ends), at

    def documents(self, place: int) -> list[int]:
        shard, starts, _ = self._find(place)
        return [int(number) for number in self.split.documents_at(shard, np.array(starts))]

    def tokens(self, first: int, last: int) -> int:
        return self._tokens_before(last) - self._tokens_before(first)

    def _tokens_before(self, row: int) -> int:
        epoch, rest = divmod(row, self.count)
        parts = (np.arange(at, min(at + _COUNTED_AT_ONCE, row)) for at in range(row - rest, row, _COUNTED_AT_ONCE))
        return epoch * self.split.tokens + sum(self._tokens_at(self.places(part)) for part in parts)

    def _tokens_at(self, places: np.ndarray) -> int:
        total = 0
        places = np.sort(places)
        bounds = places.searchsorted(self._row_starts)
        for shard in np.flatnonzero(np.diff(bounds)).tolist():
            rows = places[bounds[shard] : bounds[shard + 1]] - self._row_starts[shard]
            total += int(self._plan(shard).row_tokens()[rows].sum())
        return total

    def cut_share(self) -> float:
        return self._cut / self.split.documents


def source_rows(name: str, source: Source, sequence_length: int, seed: int, packing: Packing) -> SourceRows:
    """Return the training rows of a source; "auto" packs instruction data by best fit and concatenates text."""
    assert source.train is not None
    best_fit = packing == "best_fit" or (packing == "auto" and source.kind == "sft")
    return (BestFitRows if best_fit else ConcatenatedRows)(name, source.train, sequence_length, seed)


def copy_stream(split: SourceSplit, start: int, tokens: np.ndarray, loss: np.ndarray | None) -> np.ndarray:
    """Copy len(tokens) tokens of a split's circular stream from ``start``; return where among them documents start."""
    at = 0
    found = []
    for shard, begin, end in _spans(split, start, len(tokens)):
        after = at + end - begin
        tokens[at:after] = split.files["tokens"][shard][begin:end]
        if loss is not None:
            loss[at:after] = split.files["loss"][shard][begin:end]
        offsets = split.files["offsets"][shard]
        first, last = offsets.searchsorted((begin, end))
        found.append(offsets[first:last] + (at - begin))
        at = after
    return found[0] if len(found) == 1 else np.concatenate(found)


def _spans(split: SourceSplit, start: int, length: int) -> list[tuple[int, int, int]]:
    """Return (shard, begin, end) of what makes up ``length`` tokens of the circular stream."""
    spans = []
    while length:
        shard = int(split.token_starts.searchsorted(start, "right")) - 1
        begin = start - int(split.token_starts[shard])
        end = min(begin + length, int(split.token_starts[shard + 1] - split.token_starts[shard]))
        spans.append((shard, begin, end))
        length -= end - begin
        start = (start + end - begin) % split.tokens
    return spans
