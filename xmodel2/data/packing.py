"""Whole documents packed into rows by best-fit decreasing: none that fits a row is cut.

    documents --longer than S are cut into pieces of S--> pieces --longest first, each into the fullest row it fits--> rows

A shard is packed in blocks of 65,536 pieces. Within one length best fit fills the fullest row as often as it goes, then the
next, so that whole runs of equal pieces are placed at once: O(n log S) at worst, far less for many short documents.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from xmodel2.data.maps import ShardFiles, map_file
from xmodel2.errors import XmodelError
from xmodel2.files import write_bytes_atomic

BLOCK = 1 << 16
_COUNTS, _HEADER = 11, 14
"""Where in a stored plan its counts begin, and where its rows do, in numbers of 4 bytes."""
_FORMAT = 1
"""Raised whenever the same offsets would give another plan."""


@dataclass
class RowPlan:
    """Which stretches of a shard make up which row; row r has the pieces first[r] .. first[r + 1]."""

    first: np.ndarray
    """uint32 [rows + 1]."""
    start: np.ndarray
    """uint32 [pieces], the token of the shard that a piece starts at."""
    length: np.ndarray
    """uint32 [pieces], in tokens."""
    cut: int
    """Documents longer than a row."""

    @property
    def rows(self) -> int:
        """Rows of the shard."""
        return len(self.first) - 1

    def row_tokens(self, rows: np.ndarray) -> np.ndarray:
        """Return the tokens in each of ``rows`` (int64 [n]), int64 [n]."""
        first = self.first[rows].astype(np.int64)
        counts = self.first[rows + 1] - first
        ends = counts.cumsum()
        pieces = np.arange(counts.sum()) + np.repeat(first - ends + counts, counts)
        return np.add.reduceat(self.length[pieces], ends - counts, dtype=np.int64)


def plan_rows(offsets: np.ndarray, sequence_length: int, block: int = BLOCK) -> RowPlan:
    """Pack the documents between ``offsets`` (int64 [documents + 1]) into rows of ``sequence_length`` tokens.

    Raises `XmodelError` for a shard of 2**32 tokens or more.
    """
    S = sequence_length
    if len(offsets) and int(offsets[-1]) >= 1 << 32:
        raise XmodelError(f"packing: a shard has {int(offsets[-1]):,} tokens; best_fit takes shards below {1 << 32:,}")
    lengths = np.diff(offsets)
    pieces = -(-lengths // S)
    document = np.repeat(np.arange(len(lengths)), pieces)
    inside = (np.arange(len(document)) - np.repeat(np.cumsum(pieces) - pieces, pieces)) * S
    start = offsets[document] + inside
    length = np.minimum(lengths[document] - inside, S)
    firsts, order, rows = [np.zeros(1, np.int64)], [], 0
    for begin in range(0, len(length), block):
        row_of, longest_first = _best_fit(length[begin : begin + block], S)
        by_row = np.argsort(row_of, kind="stable")
        order.append(begin + longest_first[by_row])
        counts = np.bincount(row_of)
        firsts.append(firsts[-1][-1] + np.cumsum(counts))
        rows += len(counts)
    chosen = np.concatenate(order) if order else np.zeros(0, np.int64)
    arrays = (np.concatenate(firsts), start[chosen], length[chosen])
    first, start, length = (array.astype(np.uint32) for array in arrays)
    return RowPlan(first, start, length, int((lengths > S).sum()))


def _best_fit(lengths: np.ndarray, capacity: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the row of each piece, longest first, and the order that makes them so."""
    longest_first = np.argsort(-lengths, kind="stable")
    values, counts = np.unique(lengths, return_counts=True)
    by_room: list[list[int]] = [[] for _ in range(capacity)]  # rows with that many tokens free
    rooms = 0  # bit r is set where some row has r free
    placed: list[int] = []
    rows = 0
    for length, count in zip(values[::-1].tolist(), counts[::-1].tolist(), strict=True):
        while count:
            fitting = rooms >> length
            room = length + (fitting & -fitting).bit_length() - 1 if fitting else capacity
            each = room // length  # pieces that one such row takes
            wanted = -(-count // each)
            if fitting:
                free = by_room[room]
                chosen = free[-wanted:]
                del free[-wanted:]
                if not free:
                    rooms ^= 1 << room
            else:
                chosen = list(range(rows, rows + wanted))
                rows += wanted
            spare = len(chosen) * each - count  # pieces that the last row could take and does not get
            if spare > 0:
                last = chosen.pop()
                placed += [row for row in chosen for _ in range(each)] + [last] * (each - spare)
                rooms = _leave(by_room, rooms, room - (each - spare) * length, [last])
                count = 0
            else:
                placed += chosen if each == 1 else [row for row in chosen for _ in range(each)]
                count -= len(chosen) * each
            rooms = _leave(by_room, rooms, room - each * length, chosen)
    return np.array(placed, dtype=np.int64), longest_first


def _leave(by_room: list[list[int]], rooms: int, room: int, rows: list[int]) -> int:
    """Note rows that have ``room`` tokens left and return ``rooms`` with it."""
    if not room or not rows:
        return rooms
    by_room[room] += rows
    return rooms | 1 << room


def shard_plan(offsets: ShardFiles, shard: int, sequence_length: int, memory: dict[int, np.ndarray]) -> RowPlan:
    """Return a shard's plan: made once, kept beside its offsets, or in ``memory`` where that folder cannot be written."""

    def make() -> np.ndarray:
        path = str(offsets.folder.local / f"{offsets.name(shard).removesuffix('.offsets')}.rows-{sequence_length}")
        head = _header(sequence_length, offsets.sha256(shard))
        if (stored := _stored(path, head)) is not None:
            return stored
        # The file itself, not the cache: this runs inside it.
        made = _as_array(plan_rows(offsets.map(shard), sequence_length), head)
        try:
            write_bytes_atomic(Path(path), made.tobytes())
        except OSError:
            memory[shard] = made
        return made

    packed = memory.get(shard)
    if packed is None:
        packed = offsets.maps.get((offsets.number, shard, sequence_length), make)
    cut, rows, pieces = packed[_COUNTS:_HEADER].tolist()
    begin = _HEADER + rows + 1
    return RowPlan(packed[_HEADER:begin], packed[begin : begin + pieces], packed[begin + pieces :], cut)


def _header(sequence_length: int, sha256: str) -> bytes:
    """Return what a stored plan begins with if it is of these offsets: it cannot be stale."""
    return bytes.fromhex(sha256) + np.array([_FORMAT, BLOCK, sequence_length], dtype=np.uint32).tobytes()


def _as_array(plan: RowPlan, head: bytes) -> np.ndarray:
    counts = np.array([plan.cut, plan.rows, len(plan.start)], dtype=np.uint32)
    return np.concatenate((np.frombuffer(head, np.uint32), counts, plan.first, plan.start, plan.length))


def _stored(path: str, head: bytes) -> np.ndarray | None:
    """Return a stored plan if it is there, whole, and of the same offsets."""
    stored = map_file(path, np.dtype(np.uint32))
    if stored is None or len(stored) < _HEADER or stored[:_COUNTS].tobytes() != head:
        return None
    _, rows, pieces = stored[_COUNTS:_HEADER].tolist()
    return stored if len(stored) == _HEADER + rows + 1 + 2 * pieces else None
