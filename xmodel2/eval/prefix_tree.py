"""Sequences that begin alike share one row: each common beginning is computed once.

    Q a b c x      row      Q a b c x y z w      position  0 1 2 3 4 4 5 4
    Q a b c y z    segment  0 0 0 0 1 2 2 3      (w sees Q a b c and itself; not x, y, z)
    Q a b c w

A row's segments form a tree; a token sees the tokens before it in its own segment and its ancestors'. Options of one question
share its text, and questions after the same examples share those. Positions are those of the sequence alone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

MAX_TOKENS = 1024
"""A row takes no further sequence beyond this length (one longer sequence has its row to itself): attention grows with it."""
_LEAST_SHARE = 4
"""A sequence joins a row if at least one in four of its tokens is there already."""


@dataclass
class TreeRow:
    """Tokens of several sequences, common beginnings once."""

    ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    segments: list[int] = field(default_factory=list)
    """Segment of each token."""
    parents: list[int] = field(default_factory=list)
    """Parent of each segment, -1 for the first."""
    paths: list[tuple[int, list[int]]] = field(default_factory=list)
    """(sequence, column of each of its tokens)."""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def branches(self) -> bool:
        """Whether plain causal attention would show a token what is not before it."""
        return any(parent != segment - 1 for segment, parent in enumerate(self.parents))


def tree_rows(sequences: Sequence[Sequence[int]], max_tokens: int = MAX_TOKENS) -> Iterator[TreeRow]:
    """Yield rows that hold every sequence once; equal sequences share all their columns."""
    row, columns, before = TreeRow(), list[int](), tuple[int, ...]()
    for index in sorted(range(len(sequences)), key=lambda i: tuple(sequences[i])):
        sequence = tuple(sequences[index])
        common = common_length(before, sequence)
        too_long = len(row) + len(sequence) - common > max_tokens
        if row.ids and (common * _LEAST_SHARE < len(sequence) or (too_long and common < len(sequence))):
            yield row
            row, columns, common = TreeRow(), [], 0
        columns = columns[:common]
        if common < len(sequence):
            _extend(row, columns, sequence[common:])
        row.paths.append((index, columns))
        before = sequence
    if row.ids:
        yield row


def _extend(row: TreeRow, columns: list[int], new: Sequence[int]) -> None:
    """Append a segment with the tokens ``new`` after the token in the last of ``columns``, and add its columns to them.

    If that token is inside a segment, the segment is cut in two behind it first.
    """
    parent = -1
    if columns:
        last = columns[-1]
        parent = row.segments[last]
        if last + 1 < len(row) and row.segments[last + 1] == parent:
            _cut(row, last + 1)
    segment = len(row.parents)
    row.parents.append(parent)
    start = len(row)
    row.ids += new
    row.positions += range(len(columns), len(columns) + len(new))
    row.segments += [segment] * len(new)
    columns += range(start, start + len(new))


def _cut(row: TreeRow, column: int) -> None:
    """Make the rest of a segment, from ``column`` on, a segment of its own, a child of the first part."""
    whole, first = row.segments[column], len(row.parents)
    row.parents = [first if parent == whole else parent for parent in row.parents] + [whole]
    end = column
    while end < len(row) and row.segments[end] == whole:
        row.segments[end] = first
        end += 1


def batch_tensors(rows: Sequence[TreeRow], device: torch.device | str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ids and positions [batch, seq], rows padded on the right with token 0."""
    longest = max(len(row) for row in rows)
    ids = torch.tensor([row.ids + [0] * (longest - len(row)) for row in rows])
    positions = torch.tensor([row.positions + [0] * (longest - len(row)) for row in rows])
    return ids.to(device), positions.to(device)


def batch_mask(rows: Sequence[TreeRow], device: torch.device | str) -> torch.Tensor | None:
    """Return which key each query sees [batch, 1, seq, seq], or None where causal attention alone is right."""
    if not any(row.branches for row in rows):
        return None
    longest, most = max(len(row) for row in rows), max(len(row.parents) for row in rows) + 1
    ancestors = torch.zeros(len(rows), most, most, dtype=torch.bool)
    segments = torch.full((len(rows), longest), most - 1)
    for number, row in enumerate(rows):
        segments[number, : len(row)] = torch.tensor(row.segments)
        for segment, above in enumerate(row.parents):
            ancestors[number, segment, segment] = True
            while above >= 0:
                ancestors[number, segment, above] = True
                above = row.parents[above]
    ancestors[:, most - 1, most - 1] = True  # padding sees padding, so that no softmax is over nothing
    ancestors, segments = ancestors.to(device), segments.to(device)
    batch = torch.arange(len(rows), device=device)[:, None, None]
    seen = ancestors[batch, segments[:, :, None], segments[:, None, :]]
    place = torch.arange(longest, device=device)
    return (seen & (place[None, :, None] >= place[None, None, :]))[:, None]


_BLOCK = 64


def common_length(a: Sequence[Any], b: Sequence[Any]) -> int:
    """Return the length of the common beginning."""
    length = min(len(a), len(b))
    for start in range(0, length, _BLOCK):  # slices are compared many times faster than their parts
        end = min(start + _BLOCK, length)
        if list(a[start:end]) != list(b[start:end]):
            return next(place for place in range(start, end) if a[place] != b[place])
    return length
