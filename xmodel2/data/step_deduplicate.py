"""Second step, a task a table: documents that share a key, checked; then, in one piece, which documents go.

WORK/starts.npy         int64 [tasks + 1], the number of the first document of each task
WORK/heldout.npy        bool [documents]
WORK/tables/003.npy     int64 [pairs, 2], document numbers (earlier, later)
WORK/stay.npy           int64 [documents], for each document the one that stays; its own number if it does itself

Documents are numbered through all tasks, held-out ones first: of copies, what is held out stays; of `heldout` files, all of them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xmodel2.data.deduplicate import (
    Check,
    copies,
    hamming_check,
    jaccard_check,
    minhash_keys,
    pairs,
    simhash_tables,
    tables,
)
from xmodel2.data.hashing import mix
from xmodel2.data.plan import Plan
from xmodel2.data.signatures import UNSIGNED
from xmodel2.files import writing_atomic


@dataclass(frozen=True)
class TableStep:
    """A datatrove step: (data, rank, world_size) finds the pairs of table ``rank``."""

    plan: Plan
    work: Path

    def __call__(self, data: Any, rank: int, world_size: int) -> None:
        """Write the pairs of one table."""
        settings = self.plan.preparation.deduplicate
        method, number = tables(settings)[rank]
        # There may be no source of the kind that a method is for.
        found = self._pairs(method, number) if self.plan.tasks_of(method) else np.empty((0, 2), dtype=np.int64)
        with writing_atomic(self.work / "tables" / f"{rank:03d}.npy") as handle:
            np.save(handle, found)

    def _pairs(self, method: str, number: int) -> np.ndarray:
        """Return int64 [pairs, 2], document numbers."""
        ids, keys, check = self._keys(method, number)
        # Held-out documents first, then in order of preference: the first of a bucket is the one that may stay.
        order = np.argsort(~np.load(self.work / "heldout.npy")[ids], kind="stable")
        found = pairs(keys[order], lambda a, b: check(order[a], order[b]))
        return ids[order[found]]

    def _keys(self, method: str, number: int) -> tuple[np.ndarray, np.ndarray, Check]:
        """Return document numbers, their keys in the table, and the check, which takes positions among them."""
        settings = self.plan.preparation.deduplicate
        chosen = self.plan.tasks_of(method)
        starts = document_starts(self.work)
        ids = np.concatenate([np.arange(starts[n], starts[n + 1]) for n in chosen])
        signed = np.ones(len(ids), dtype=bool)  # a document without a word has nothing to be compared by
        check: Check
        if method == "minhash":
            stacked = _Stacked([self.work / "clean" / f"{n:05d}.minhash.npy" for n in chosen])
            keys = np.concatenate([minhash_keys(part, number, settings.rows) for part in stacked.parts()])
            signed = np.concatenate([(part[:, 0] != UNSIGNED) | (part[:, -1] != UNSIGNED) for part in stacked.parts()])
            check = jaccard_check(stacked, settings.min_jaccard)  # type: ignore[arg-type]
        elif method == "simhash":
            values = np.concatenate([_array(self.work, n, "simhash") for n in chosen])
            keys = mix(values & simhash_tables(settings.max_hamming)[number])
            signed = values != 0
            check = hamming_check(values, settings.max_hamming)
        else:
            digests = np.concatenate([_array(self.work, n, "digests") for n in chosen])
            keys = mix(digests[:, 0]) + digests[:, 1]
            check = lambda a, b: (digests[a] == digests[b]).all(axis=1)  # noqa: E731
        groups = [self._group(self.plan.tasks[n].source) for n in chosen]
        keys = mix(keys + mix(np.repeat(groups, [starts[n + 1] - starts[n] for n in chosen]).astype(np.uint64)))
        if not signed.all():
            [kept] = np.nonzero(signed)
            return ids[kept], keys[kept], lambda a, b: check(kept[a], kept[b])
        return ids, keys, check

    def _group(self, source: str) -> int:
        """Return a number that sources have in common whose documents are compared: of one kind, or one source."""
        sources = self.plan.preparation.sources
        if self.plan.preparation.deduplicate.scope == "within":
            return list(sources).index(source)
        return ["text", "sft"].index(sources[source].kind)


class _Stacked:
    """Arrays of many files one under the other, indexed by row: read where asked for, one file open at a time."""

    def __init__(self, files: list[Path]) -> None:
        self._files = files
        self._starts = np.cumsum([0, *(len(part) for part in self.parts())])

    def parts(self) -> Iterator[np.ndarray]:
        """Yield each file's array, mapped."""
        for file in self._files:
            yield np.load(file, mmap_mode="r")

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        part = np.searchsorted(self._starts, rows, side="right") - 1
        order = np.argsort(part, kind="stable")
        edges = np.flatnonzero(np.diff(part[order])) + 1
        found: list[np.ndarray] = []
        for group in np.split(order, edges):
            number = int(part[group[0]])
            found.append(np.load(self._files[number], mmap_mode="r")[rows[group] - self._starts[number]])
        result = np.empty((len(rows), found[0].shape[1]), dtype=found[0].dtype)
        result[order] = np.concatenate(found)
        return result


def settle(plan: Plan, work: Path) -> np.ndarray:
    """Combine all tables, write stay.npy and return it."""
    heldout = np.load(work / "heldout.npy")
    rank = np.empty(len(heldout), dtype=np.int64)
    order = np.argsort(~heldout, kind="stable")
    rank[order] = np.arange(len(heldout))
    found = [np.load(work / "tables" / f"{n:03d}.npy") for n in range(len(tables(plan.preparation.deduplicate)))]
    all_pairs = np.concatenate([np.empty((0, 2), dtype=np.int64), *found])
    stay = order[copies(len(heldout), rank[all_pairs])][rank]
    # An evaluation set is what its maker chose; of what was held out by hash, copies go as elsewhere.
    chosen = np.repeat([task.heldout for task in plan.tasks], np.diff(document_starts(work)))
    stay[chosen] = np.flatnonzero(chosen)
    with writing_atomic(work / "stay.npy") as handle:
        np.save(handle, stay)
    return stay


def number_documents(plan: Plan, work: Path) -> None:
    """Write starts.npy and heldout.npy, which the tasks of this step and the next look documents up in."""
    heldout = [_array(work, n, "heldout") for n in range(len(plan.tasks))]
    arrays = {"starts": np.cumsum([0, *map(len, heldout)]), "heldout": np.concatenate(heldout)}
    for name, array in arrays.items():
        with writing_atomic(work / f"{name}.npy") as handle:
            np.save(handle, array)


def document_starts(work: Path) -> np.ndarray:
    """Return int64 [tasks + 1]: the number of the first document of each task, and of all."""
    starts: np.ndarray = np.load(work / "starts.npy")
    return starts


def exact_copies(plan: Plan, work: Path) -> np.ndarray:
    """Return bool [documents]: whether a document is an exact copy of one before it."""
    settings = plan.preparation.deduplicate
    exact = [n for n, (method, _) in enumerate(tables(settings)) if method == "exact"]
    flags = np.zeros(document_starts(work)[-1], dtype=bool)
    for n in exact:
        flags[np.load(work / "tables" / f"{n:03d}.npy")[:, 1]] = True
    return flags


def _array(work: Path, task: int, name: str) -> np.ndarray:
    with np.load(work / "clean" / f"{task:05d}.npz") as stored:
        array: np.ndarray = stored[name]
        return array
