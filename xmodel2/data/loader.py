"""Batches as a pure function of (seed, step, mixture): nothing to save, any step at once, the same for any number of ranks.

    row r of the run --mixture--> (source, k) --> tokens [k*S, k*S + S] of the source's endless stream
    the stream: epoch after epoch, each a permutation of the documents drawn from (seed, source, epoch)

Example: with S = 4 and a stream  <s> a b </s> <s> c d </s> ...  row 0 has inputs  <s> a b </s>  and targets  a b </s> -,
where - (the next document's <s>) carries no loss. A source goes on in the next stage where it stopped in this one.
"""

import threading
import zlib
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from queue import Queue

import numpy as np

from xmodel2.data.mixture import Mixture
from xmodel2.data.shards import ShardSet, SourceSplit
from xmodel2.errors import XmodelError

IGNORED = -100


@dataclass
class Batch:
    """Rows of S tokens."""

    inputs: np.ndarray
    """int64 [rows, S]."""
    targets: np.ndarray
    """int64 [rows, S]; -100 where no loss is taken."""
    document_ids: np.ndarray
    """int32 [rows, S], counted from 0 in each row."""
    sources: list[str]
    """Source of each row."""


class _Stream:
    """The endless token stream of one source."""

    def __init__(self, name: str, split: SourceSplit, seed: int, shuffle: bool = True) -> None:
        self.split, self._key, self._shuffle = split, (seed, zlib.crc32(name.encode())), shuffle
        self._epochs: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def _epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the order of documents and where each starts in the epoch."""
        if epoch not in self._epochs:
            for old in [e for e in self._epochs if e < epoch - 1]:
                del self._epochs[old]
            documents = self.split.documents
            order = np.arange(documents)
            if self._shuffle:
                order = np.random.default_rng((*self._key, epoch)).permutation(documents)
            self._epochs[epoch] = order, np.concatenate(([0], np.cumsum(self.split.lengths[order])))
        return self._epochs[epoch]

    def pieces(self, start: int, stop: int) -> Iterator[tuple[int, int, int, int]]:
        """Yield (epoch, document, from, to) that cover tokens start..stop of the stream."""
        while start < stop:
            epoch, at = divmod(start, self.split.tokens)
            order, begins = self._epoch(epoch)
            slot = int(np.searchsorted(begins, at, side="right")) - 1
            inside = at - int(begins[slot])
            take = min(stop - start, int(begins[slot + 1]) - at)
            if take:
                yield epoch, int(order[slot]), inside, inside + take
            start += take

    def fill(self, start: int, tokens: np.ndarray, wanted: np.ndarray, documents: np.ndarray, use_loss: bool) -> None:
        """Write len(tokens) tokens from ``start``, whether each is a target, and the count of the document it is in."""
        at = 0
        for number, (_, document, begin, end) in enumerate(self.pieces(start, start + len(tokens))):
            ids, loss = self.split.read(document, begin, end)
            part = slice(at, at + len(ids))
            tokens[part] = ids
            documents[part] = number
            wanted[part] = loss if loss is not None and use_loss else 1
            if begin == 0:
                wanted[at] = 0  # a document's first token follows from nothing
            at += len(ids)


class Loader:
    """Batches of a run of several stages; ``stages`` are (rows, shares by source)."""

    def __init__(
        self,
        shards: ShardSet,
        stages: Sequence[tuple[int, dict[str, float]]],
        sequence_length: int,
        batch_rows: int,
        seed: int,
        loss_on: str = "assistant",
    ) -> None:
        """Raise `XmodelError` for a source that is not there, or has no training documents."""
        self.sequence_length, self.batch_rows, self._use_loss = sequence_length, batch_rows, loss_on == "assistant"
        self._stages: list[tuple[int, int, Mixture, dict[str, int]]] = []
        self._streams: dict[str, _Stream] = {}
        begin = 0
        cursor: dict[str, int] = {}
        for rows, weights in stages:
            mixture = Mixture(weights)
            for name in mixture.names:
                split = shards.source(name).train
                if split is None:
                    raise XmodelError(f"{shards.directory}: source {name} has no training documents")
                self._streams.setdefault(name, _Stream(name, split, seed))
            self._stages.append((begin, begin + rows, mixture, dict(cursor)))
            for name, count in mixture.counts(rows).items():
                cursor[name] = cursor.get(name, 0) + count
            begin += rows
        self.total_rows = begin

    def batch(self, step: int) -> Batch:
        """Return the global batch of ``step`` (from 0)."""
        return self.rows(step * self.batch_rows, (step + 1) * self.batch_rows)

    def rows(self, start: int, stop: int) -> Batch:
        """Return rows start..stop of the run; ranks take their own part of a batch."""
        located = list(self._locate(start, stop))
        S = self.sequence_length
        tokens = np.empty((len(located), S + 1), dtype=np.int64)
        wanted = np.empty((len(located), S + 1), dtype=np.uint8)
        documents = np.empty((len(located), S + 1), dtype=np.int32)
        for row, (name, number) in enumerate(located):
            self._streams[name].fill(number * S, tokens[row], wanted[row], documents[row], self._use_loss)
        return _batch(tokens, wanted, documents, [name for name, _ in located])

    def describe_row(self, row: int) -> list[tuple[str, int, int]]:
        """Return (source, epoch, document) of everything a row holds."""
        [(name, number)] = self._locate(row, row + 1)
        S = self.sequence_length
        pieces = self._streams[name].pieces(number * S, (number + 1) * S)
        return [(name, epoch, document) for epoch, document, _, _ in pieces]

    def realised(self, stage: int, rows: int | None = None) -> dict[str, int]:
        """Return tokens taken from each source in (the first ``rows`` rows of) a stage."""
        begin, end, mixture, _ = self._stages[stage]
        counted = mixture.counts(end - begin if rows is None else rows)
        return {name: count * self.sequence_length for name, count in counted.items()}

    def _locate(self, start: int, stop: int) -> Iterator[tuple[str, int]]:
        if not 0 <= start <= stop <= self.total_rows:
            raise XmodelError(f"loader: rows {start}..{stop} are outside the run's {self.total_rows}")
        for begin, end, mixture, cursor in self._stages:
            low, high = max(start, begin), min(stop, end)
            if low < high:
                source, number = mixture.assign(low - begin, high - begin)
                for s, k in zip(source, number, strict=True):
                    name = mixture.names[s]
                    yield name, cursor.get(name, 0) + int(k)


def _batch(tokens: np.ndarray, wanted: np.ndarray, documents: np.ndarray, sources: list[str]) -> Batch:
    targets = np.where(wanted[:, 1:] == 1, tokens[:, 1:], IGNORED)
    return Batch(tokens[:, :-1].copy(), targets, documents[:, :-1].copy(), sources)


def heldout_rows(split: SourceSplit, sequence_length: int, max_rows: int | None = None, name: str = "") -> Batch:
    """Return the held-out documents in order as rows; the last is padded, its padding without loss."""
    S = sequence_length
    rows = -(-max(split.tokens - 1, 1) // S)
    rows = min(rows, max_rows) if max_rows else rows
    stream = _Stream(name, split, 0, shuffle=False)
    tokens = np.zeros((rows, S + 1), dtype=np.int64)
    wanted = np.zeros((rows, S + 1), dtype=np.uint8)
    documents = np.full((rows, S + 1), -1, dtype=np.int32)
    for row in range(rows):
        size = min(S + 1, split.tokens - row * S)
        stream.fill(row * S, tokens[row, :size], wanted[row, :size], documents[row, :size], True)
    return _batch(tokens, wanted, documents, [name] * rows)


def prefetch(loader: Loader, start_step: int, stop_step: int, ahead: int = 4) -> Generator[Batch, None, None]:
    """Yield the batches of steps start..stop, prepared by one thread ahead of time."""
    queue: Queue[Batch | BaseException] = Queue(maxsize=ahead)
    stop = threading.Event()

    def work() -> None:
        for step in range(start_step, stop_step):
            if stop.is_set():
                return
            try:
                item: Batch | BaseException = loader.batch(step)
            except Exception as error:
                item = error
            queue.put(item)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        for _ in range(start_step, stop_step):
            item = queue.get()
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        while not queue.empty():
            queue.get_nowait()
        thread.join(timeout=5)
