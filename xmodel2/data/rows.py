"""The rows of one source: how many there are in an epoch, in which order they come, and what each one holds.

    row k of the source = row P(k % rows) of epoch k // rows, P a permutation drawn from (seed, source, epoch)

Concatenated: the source is a circle of T tokens, shard after shard; an epoch cuts it into T // S windows from a phase of its
own, so that no token comes twice in an epoch (unless T < S: then a row goes round) and epochs are cut at other places. Best fit:
whole documents (data/packing.py). Neither keeps anything of a document in memory.
"""

from abc import ABC, abstractmethod
from bisect import bisect_right
from typing import Literal

import numpy as np

from xmodel2.data.packing import RowPlan, shard_plan
from xmodel2.data.permutation import epoch_keys, permuted
from xmodel2.data.shards import Source, SourceSplit

Packing = Literal["concatenate", "best_fit", "auto"]
Span = tuple[int, int, int]
"""Tokens begin..end of a shard: (shard, begin, end)."""
_COUNTED = 1 << 20
"""Rows of an unfinished epoch whose tokens are counted; of more of them the mean is as good."""


class SourceRows(ABC):
    """Rows of S tokens of one source."""

    count: int
    """Rows in an epoch."""
    mean_tokens: float
    """Tokens in a row that are no padding, mean of an epoch."""
    whole_documents = False
    """Whether a row of fewer than S + 1 tokens is one of whole documents."""

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
    def find(self, place: int) -> list[Span]:
        """Return what makes up a row: S + 1 tokens of the stream (the last one only a target), or whole documents."""

    def documents(self, place: int) -> list[int]:
        """Return the numbers of the documents in a row."""
        found: list[int] = []
        left = self.sequence_length
        for shard, begin, end in self.find(place):
            last = min(end, begin + left) - 1
            left -= last + 1 - begin
            if last >= begin:
                low, high = self.split.documents_at(shard, np.array([begin, last])).tolist()
                found += range(low, high + 1)
        return found

    @abstractmethod
    def tokens(self, first: int, last: int) -> int:
        """Return how many tokens, padding not counted, the source's rows first..last have."""

    def epochs(self, rows: int) -> float:
        """Return how often the source has been gone through after so many rows."""
        return rows / self.count

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

    def find(self, place: int) -> list[Span]:
        return stream_spans(self.split, place, self.sequence_length + 1)

    def tokens(self, first: int, last: int) -> int:
        return (last - first) * self.sequence_length

    def epochs(self, rows: int) -> float:
        """Return how often each token has been seen, on average: the windows of an epoch leave out up to S - 1, or repeat."""
        return rows * self.sequence_length / self.split.tokens

    def cut_share(self) -> float:
        """Return the share, from the lengths of the first documents: one of n tokens has a cut at n - 1 places of S."""
        lengths = np.diff(self.split.files["offsets"][0][: 1 << 16])
        return float(np.clip((lengths - 1) / self.sequence_length, 0, 1).mean()) if len(lengths) else 0.0


class BestFitRows(SourceRows):
    """Rows of whole documents, filled up with padding."""

    whole_documents = True

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

    def _places(self, slots: np.ndarray, phases: np.ndarray) -> np.ndarray:
        return slots

    def find(self, place: int) -> list[Span]:
        shard = int(self._row_starts.searchsorted(place, "right")) - 1
        plan = self._plan(shard)
        row = place - int(self._row_starts[shard])
        first, last = plan.first[row : row + 2].tolist()
        starts, lengths = plan.start[first:last].tolist(), plan.length[first:last].tolist()
        if lengths == [self.sequence_length]:  # perhaps a piece of a longer document, whose next token is a target
            begin = self.split.token_starts[shard] + starts[0]
            return stream_spans(self.split, begin, self.sequence_length + 1)
        return [(shard, start, start + length) for start, length in zip(starts, lengths, strict=True)]

    def tokens(self, first: int, last: int) -> int:
        return self._tokens_before(last) - self._tokens_before(first)

    def _tokens_before(self, row: int) -> int:
        epoch, rest = divmod(row, self.count)
        if rest > _COUNTED:
            return round(row * self.mean_tokens)
        return epoch * self.split.tokens + self._tokens_at(np.sort(self.places(np.arange(row - rest, row))))

    def _tokens_at(self, places: np.ndarray) -> int:
        total = 0
        bounds = places.searchsorted(self._row_starts)
        for shard in np.flatnonzero(np.diff(bounds)).tolist():
            rows = places[bounds[shard] : bounds[shard + 1]] - self._row_starts[shard]
            total += int(self._plan(shard).row_tokens(rows).sum())
        return total

    def cut_share(self) -> float:
        return self._cut / self.split.documents


def source_rows(name: str, source: Source, sequence_length: int, seed: int, packing: Packing) -> SourceRows:
    """Return the training rows of a source; "auto" packs instruction data by best fit and concatenates text."""
    assert source.train is not None
    best_fit = packing == "best_fit" or (packing == "auto" and source.kind == "sft")
    return (BestFitRows if best_fit else ConcatenatedRows)(name, source.train, sequence_length, seed)


def announce(split: SourceSplit, spans: list[Span]) -> None:
    """Let the disk fetch what will be read."""
    for kind, files in split.files.items():
        if files.large and kind != "offsets":
            files.announce(spans)


def copy_spans(split: SourceSplit, spans: list[Span], tokens: np.ndarray, loss: np.ndarray | None) -> int:
    """Copy the tokens of the spans, and whether each counts as a target; return how many there are."""
    if len(spans) == 1:  # nearly every row of concatenated documents
        [(shard, begin, end)] = spans
        tokens[: end - begin] = split.files["tokens"][shard][begin:end]
        if loss is not None:
            loss[: end - begin] = split.files["loss"][shard][begin:end]
        return end - begin
    size = sum([end - begin for _, begin, end in spans])
    for kind, to in (("tokens", tokens), ("loss", loss)):
        if to is not None:
            maps = {shard: split.files[kind][shard] for shard in {shard for shard, _, _ in spans}}
            np.concatenate([maps[shard][begin:end] for shard, begin, end in spans], out=to[:size])
    return size


def document_starts(split: SourceSplit, spans: list[Span]) -> np.ndarray:
    """Return where among the tokens of the spans, from the second on, documents start."""
    at = 0
    found = []
    for shard, begin, end in spans:
        offsets = split.files["offsets"][shard]
        first, last = offsets.searchsorted((begin if at else begin + 1, end))
        found.append(offsets[first:last] + (at - begin))
        at += end - begin
    return found[0] if len(found) == 1 else np.concatenate(found)


def stream_spans(split: SourceSplit, start: int, length: int) -> list[Span]:
    """Return what makes up ``length`` tokens from ``start`` of a split's circular stream."""
    spans = []
    while length:
        shard = bisect_right(split.token_starts, start) - 1
        begin = start - split.token_starts[shard]
        end = min(begin + length, split.token_starts[shard + 1] - split.token_starts[shard])
        spans.append((shard, begin, end))
        length -= end - begin
        start = (start + end - begin) % split.tokens
    return spans
