"""A batch, and how rows read from shards become one: few passes over memory, many rows at a time."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from xmodel2.data.rows import Span, copy_spans, document_starts
from xmodel2.data.shards import SourceSplit

IGNORED = -100
GROUP = 32
"""Rows read before they are moved to the batch."""


@dataclass
class Batch:
    """Rows of S tokens."""

    inputs: np.ndarray
    """int64 [rows, S]; 0 in padding."""
    targets: np.ndarray
    """int64 [rows, S]; -100 where no loss is taken."""
    document_ids: np.ndarray
    """int32 [rows, S], counted from 0 in each row; padding has a number of its own."""
    sources: list[str]
    """Source of each row."""

    @cached_property
    def positions(self) -> np.ndarray:
        """int32 [rows, S], of each token within its document's part of the row."""
        place = np.arange(self.document_ids.shape[1], dtype=np.int32)
        starts = np.zeros_like(self.document_ids)
        starts[:, 1:] = np.where(self.document_ids[:, 1:] != self.document_ids[:, :-1], place[1:], 0)
        return place - np.maximum.accumulate(starts, axis=1)


class BatchWriter:
    """Read rows in groups of at most `GROUP`, then return the batch of them all."""

    def __init__(self, rows: int, sequence_length: int, dtype: np.dtype) -> None:
        """``dtype`` is that of the tokens as they are stored."""
        shape, group = (rows, sequence_length), (min(rows, GROUP), sequence_length + 1)
        self._inputs, self._targets = np.empty(shape, np.int64), np.empty(shape, np.int64)
        self._tokens, self._loss = np.empty(group, dtype), np.empty(group, np.uint8)
        self._moved = 0
        self._sizes: list[int] = []  # of the rows of this group, in tokens
        self._masked: list[bool] = []  # and whether not all of them are targets
        self._starts: list[np.ndarray] = []  # of all rows: where in each, from 1 to S, another document starts

    def read(self, split: SourceSplit, spans: list[Span], use_loss: bool, documents: bool = False) -> None:
        """Read the next row of the group: S + 1 tokens of the stream, or fewer and then padding.

        With ``documents`` fewer are whole documents, a span each.
        """
        row, S = len(self._sizes), self._inputs.shape[1]
        tokens, masked = self._tokens[row], use_loss and "loss" in split.files
        size = copy_spans(split, spans, tokens, self._loss[row] if masked else None)
        if size > S:
            starts = document_starts(split, spans)
        else:  # padding starts as a document does
            tokens[size:] = 0
            ends = np.cumsum([end - begin for _, begin, end in spans])
            starts = ends if documents else np.append(document_starts(split, spans), size)
        self._sizes.append(size)
        self._masked.append(masked)
        self._starts.append(starts)

    def move(self) -> None:
        """Move the group's rows to the batch."""
        count, S = len(self._sizes), self._inputs.shape[1]
        here = slice(self._moved, self._moved + count)
        inputs, targets = self._inputs[here], self._targets[here]
        inputs[:], targets[:] = self._tokens[:count, :-1], self._tokens[:count, 1:]
        for row, (size, masked) in enumerate(zip(self._sizes, self._masked, strict=True)):
            if masked:
                np.copyto(targets[row], IGNORED, where=self._loss[row, 1:] == 0)
            if size < S:
                targets[row, size:] = IGNORED
        self._moved += count
        self._sizes, self._masked = [], []

    def batch(self, sources: list[str]) -> Batch:
        """Return the rows moved."""
        rows, S = self._inputs.shape
        row_starts = np.arange(0, rows * S, S)
        counts = [len(starts) for starts in self._starts]
        starts = np.concatenate([row_starts[:0], *self._starts]) + row_starts.repeat(counts)
        self._targets.reshape(-1)[starts - 1] = IGNORED  # a document's first token follows from nothing
        # Where in all rows, end to end, another number begins; what starts at a row's end only had no target.
        begins = np.concatenate((row_starts, starts[starts % S != 0], [rows * S]))
        begins.sort()
        number = np.arange(len(begins) - 1, dtype=np.int32)
        per_row = begins.searchsorted(np.append(row_starts, rows * S))
        number -= number[per_row[:-1]].repeat(np.diff(per_row))
        documents = number.repeat(np.diff(begins)).reshape(rows, S)
        return Batch(self._inputs, self._targets, documents, sources)
