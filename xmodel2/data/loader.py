"""Batches as a pure function of (seed, step, mixture): nothing to save, any step at once, the same for any number of ranks.

    row r of the run --mixture--> (source, k) --permutation of the epoch--> a row of that source (data/rows.py)

Example: with S = 4 and a stream  <s> a b </s> <s> c d </s> ...  a row has inputs  <s> a b </s>  and targets  a b </s> -,
where - (the next document's <s>) carries no loss. A source goes on in the next stage where it stopped in this one.
"""

import threading
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from queue import Queue
from typing import Any

import numpy as np

from xmodel2.data.batch import GROUP, IGNORED, Batch, BatchWriter
from xmodel2.data.mixture import Mixture
from xmodel2.data.rows import Packing, SourceRows, announce, source_rows, stream_spans
from xmodel2.data.shards import ShardSet, SourceSplit, piece_beyond
from xmodel2.errors import XmodelError

__all__ = ["IGNORED", "Batch", "Loader", "heldout_rows", "prefetch"]
_BLOCK = 1024
"""Rows that are located at once; the latest block is kept."""
_KEPT_BYTES = 31 << 20


@dataclass
class _Stage:
    begin: int
    end: int
    asked: dict[str, float]
    """Share of tokens by source."""
    mixture: Mixture
    """Share of rows."""
    cursor: dict[str, int]
    """Rows that each source gave in earlier stages."""


class Loader:
    """Batches of a run of several stages; ``stages`` are (rows, shares of tokens by source)."""

    def __init__(
        self,
        shards: ShardSet,
        stages: Sequence[tuple[int, dict[str, float]]],
        sequence_length: int,
        batch_rows: int,
        seed: int,
        loss_on: str = "assistant",
        packing: Packing = "auto",
        check_pieces: bool = False,
    ) -> None:
        """Raise `XmodelError` for a source that is not there, or has no training documents.

        ``check_pieces``: look whether the tokenizer has what is read, for shards whose checksums were not verified.
        """
        self._shards, self._check_pieces = shards, check_pieces
        self.sequence_length, self.batch_rows, self._use_loss = sequence_length, batch_rows, loss_on == "assistant"
        self._dtype = np.dtype(shards.dtype)
        self._rows: dict[str, SourceRows] = {}
        self._stages: list[_Stage] = []
        self._block: tuple[int, list[str], list[int]] = (-1, [], [])
        begin = 0
        cursor: dict[str, int] = {}
        for rows, weights in stages:
            asked = {name: weights[name] for name in Mixture(weights).names}
            for name in asked.keys() - self._rows.keys():
                source = shards.source(name)
                if source.train is None or not source.train.tokens:
                    raise XmodelError(f"{shards.directory}: source {name} has no training documents")
                self._rows[name] = source_rows(name, source, sequence_length, seed, packing)
            # A source whose rows have padding gets more of them, so that the shares hold for tokens.
            by_row = {name: weight / self._rows[name].mean_tokens for name, weight in asked.items()}
            mixture = Mixture({name: weight / sum(by_row.values()) for name, weight in by_row.items()})
            self._stages.append(_Stage(begin, begin + rows, asked, mixture, dict(cursor)))
            for name, count in mixture.counts(rows).items():
                cursor[name] = cursor.get(name, 0) + count
            begin += rows
        self.total_rows = begin
        # glibc learns from the largest block that was freed how much to keep for the next: a batch then comes from memory
        # that the last one left, not from the kernel page by page, which would take as long as filling it.
        np.empty(_KEPT_BYTES, np.uint8)

    def batch(self, step: int, part: slice = slice(None)) -> Batch:
        """Return the global batch of ``step`` (from 0), or those of its rows that a rank reads."""
        first, last, _ = part.indices(self.batch_rows)
        return self.rows(step * self.batch_rows + first, step * self.batch_rows + last)

    def rows(self, start: int, stop: int) -> Batch:
        """Return rows start..stop of the run."""
        if not 0 <= start <= stop <= self.total_rows:
            raise XmodelError(f"loader: rows {start}..{stop} are outside the run's {self.total_rows}")
        writer = BatchWriter(stop - start, self.sequence_length, self._dtype)
        names: list[str] = []
        for first in range(start, stop, GROUP):
            found = []
            for row in range(first, min(first + GROUP, stop)):
                name, place = self._locate(row)
                source = self._rows[name]
                spans = source.find(place)
                announce(source.split, spans)  # the disk works while the rows before are read
                found.append((source, spans))
                names.append(name)
            for source, spans in found:
                writer.read(source.split, spans, self._use_loss, source.whole_documents)
            writer.move()
        batch = writer.batch(names)
        if self._check_pieces:
            self._known(batch, start)
        return batch

    def _known(self, batch: Batch, start: int) -> None:
        """Raise `XmodelError` naming the documents of a row with a piece that the tokenizer lacks."""
        size = self._shards.vocab_size
        if max(batch.inputs.max(initial=0), batch.targets.max(initial=0)) < size:
            return
        row = int(np.argmax((batch.inputs >= size).any(axis=1) | (batch.targets >= size).any(axis=1)))
        documents = ", ".join(f"{name} {number}" for name, _, number in self.describe_row(start + row))
        raise piece_beyond(f"{self._shards.directory}: a row of documents {documents} has a piece", size)

    def describe_row(self, row: int) -> list[tuple[str, int, int]]:
        """Return (source, epoch, document) of everything a row holds."""
        stage = self._stage_of(row)
        [index], [number] = stage.mixture.assign(row - stage.begin, row - stage.begin + 1)
        name = stage.mixture.names[index]
        source, number = self._rows[name], stage.cursor.get(name, 0) + int(number)
        [place] = source.places(np.array([number])).tolist()
        return [(name, number // source.count, document) for document in source.documents(place)]

    def realised(self, stage: int, rows: int | None = None) -> dict[str, int]:
        """Return tokens (without padding) taken from each source in (the first ``rows`` rows of) a stage."""
        where = self._stages[stage]
        counted = where.mixture.counts(where.end - where.begin if rows is None else rows)
        result = {}
        for name, count in counted.items():
            first = where.cursor.get(name, 0)
            result[name] = self._rows[name].tokens(first, first + count)
        return result

    def epochs(self) -> dict[str, float]:
        """Return how often the whole run goes through each of its sources."""
        rows: dict[str, int] = {}
        for stage in self._stages:
            counts = stage.mixture.counts(stage.end - stage.begin)
            rows |= {name: stage.cursor.get(name, 0) + count for name, count in counts.items()}
        return {name: self._rows[name].epochs(count) for name, count in rows.items()}

    def report(self, rows: int | None = None) -> dict[str, Any]:
        """Return what (the first ``rows`` rows of) the run takes from each source in each stage, as JSON has it.

        Epochs are those that the source has gone through by then; shares are of tokens without padding.
        """
        done = self.total_rows if rows is None else rows
        cut = {name: source.cut_share() for name, source in self._rows.items()}
        stages = []
        for number, stage in enumerate(self._stages):
            taken = min(max(0, done - stage.begin), stage.end - stage.begin)
            tokens, counts = self.realised(number, taken), stage.mixture.counts(taken)
            sources = {}
            for name, count in counts.items():
                source = self._rows[name]
                sources[name] = {
                    "rows": count,
                    "tokens": tokens[name],
                    "share_asked": stage.asked[name],
                    "share_realised": tokens[name] / max(1, sum(tokens.values())),
                    "epochs": source.epochs(stage.cursor.get(name, 0) + count),
                    "padding_share": 1 - tokens[name] / (count * self.sequence_length) if count else 0.0,
                    "cut_documents_share": cut[name],
                }
            stages.append({"rows": taken, "rows_planned": stage.end - stage.begin, "sources": sources})
        return {"sequence_length": self.sequence_length, "stages": stages}

    def _stage_of(self, row: int) -> _Stage:
        for stage in self._stages:
            if stage.begin <= row < stage.end:
                return stage
        raise XmodelError(f"loader: row {row} is outside the run's {self.total_rows}")

    def _locate(self, row: int) -> tuple[str, int]:
        """Return a row's source and its place there."""
        block, at = divmod(row, _BLOCK)
        number, names, places = self._block
        if number != block:
            names, places = self._locate_block(block * _BLOCK, min((block + 1) * _BLOCK, self.total_rows))
            self._block = block, names, places
        return names[at], places[at]

    def _locate_block(self, start: int, stop: int) -> tuple[list[str], list[int]]:
        names: list[str] = []
        places = np.empty(stop - start, dtype=np.int64)
        for stage in self._stages:
            low, high = max(start, stage.begin), min(stop, stage.end)
            if low >= high:
                continue
            source, number = stage.mixture.assign(low - stage.begin, high - stage.begin)
            part = places[low - start : high - start]
            for index, name in enumerate(stage.mixture.names):
                here = source == index
                if here.any():
                    part[here] = self._rows[name].places(stage.cursor.get(name, 0) + number[here])
            names += [stage.mixture.names[index] for index in source.tolist()]
        return names, places.tolist()


def heldout_rows(split: SourceSplit, sequence_length: int, max_rows: int | None = None, name: str = "") -> Batch:
    """Return the held-out documents in order as rows; the last is padded, its padding without loss."""
    S = sequence_length
    rows = -(-max(split.tokens - 1, 1) // S)
    rows = min(rows, max_rows) if max_rows else rows
    writer = BatchWriter(rows, S, split.files["tokens"].dtype)
    for row in range(rows):
        writer.read(split, stream_spans(split, row * S, min(S + 1, split.tokens - row * S)), use_loss=True)
        if (row + 1) % GROUP == 0 or row + 1 == rows:
            writer.move()
    return writer.batch([name] * rows)


def prefetch(
    loader: Loader, start_step: int, stop_step: int, part: slice = slice(None), ahead: int = 4
) -> Generator[Batch, None, None]:
    """Yield (a rank's part of) the batches of steps start..stop, prepared by one thread ahead of time."""
    queue: Queue[Batch | BaseException] = Queue(maxsize=ahead)
    stop = threading.Event()

    def work() -> None:
        for step in range(start_step, stop_step):
            if stop.is_set():
                return
            try:
                item: Batch | BaseException = loader.batch(step, part)
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
