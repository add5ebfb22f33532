"""Documents that hold benchmark items, by n-gram overlap.

The rule: an item's n-grams are those of `ngram` words, or all its words at once if it has fewer; an n-gram that stands in
more than `max_items` items of its benchmark is template wording and does not count. A document is contaminated by an item
if it holds at least `min_share` of the item's n-grams. Items of fewer than `min_words` words, or with nothing but template
wording, are not checked, and counted.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xmodel2.data.benchmark_items import BENCHMARKS, benchmark_items
from xmodel2.data.ngrams import ngram_hashes, word_hashes
from xmodel2.errors import XmodelError
from xmodel2.files import writing_atomic
from xmodel2.recipe.preparation import DecontaminateSettings

_PREFILTER_BITS = 24


@dataclass
class BenchmarkIndex:
    """The n-grams of all items of all benchmarks."""

    names: list[str]
    """Benchmark names."""
    benchmark: np.ndarray
    """int32 [items], index into ``names``."""
    number: np.ndarray
    """int32 [items], the item's number in its benchmark, from 0."""
    total: np.ndarray
    """int32 [items], n-grams of the item that count."""
    need: np.ndarray
    """int32 [items], how many of them make a document contaminated; 0: not checked."""
    hashes: dict[int, np.ndarray]
    """By n: uint64 [n-grams], sorted; an n-gram of several items is there several times."""
    items: dict[int, np.ndarray]
    """By n: int32 [n-grams], the item of each."""

    def __post_init__(self) -> None:
        self._maybe = {n: np.zeros(1 << _PREFILTER_BITS, dtype=bool) for n in self.hashes}
        for n, hashes in self.hashes.items():
            self._maybe[n][hashes >> np.uint64(64 - _PREFILTER_BITS)] = True

    def check(self, text: str) -> list[tuple[str, int]]:
        """Return (benchmark, item number) of every item that contaminates a text."""
        words = word_hashes(text)
        held = np.zeros(0, dtype=np.int32)
        for n, hashes in self.hashes.items():
            here = ngram_hashes(words, n)
            here = np.unique(here[self._maybe[n][here >> np.uint64(64 - _PREFILTER_BITS)]])
            if len(here):
                low, high = np.searchsorted(hashes, here, "left"), np.searchsorted(hashes, here, "right")
                held = np.concatenate([held, *(self.items[n][a:b] for a, b in zip(low, high, strict=True) if b > a)])
        found, counts = np.unique(held, return_counts=True)
        hits = found[counts >= self.need[found]]
        return [(self.names[self.benchmark[item]], int(self.number[item])) for item in hits]

    def coverage(self) -> dict[str, dict[str, int]]:
        """Return for each of the eighteen benchmarks how many items were found, and how many can be checked."""
        rows = {name: {"items": 0, "checked": 0} for name in BENCHMARKS}
        for index, name in enumerate(self.names):
            of_it = self.benchmark == index
            rows[name] = {"items": int(of_it.sum()), "checked": int((self.need[of_it] > 0).sum())}
        return rows

    def save(self, path: Path) -> None:
        """Write the index to a .npz file."""
        arrays = {key: getattr(self, key) for key in ("benchmark", "number", "total", "need")}
        for n in self.hashes:
            arrays |= {f"hashes-{n}": self.hashes[n], f"items-{n}": self.items[n]}
        with writing_atomic(path) as handle:
            np.savez(handle, names=np.array(self.names), **arrays)


def load_index(path: Path) -> BenchmarkIndex:
    """Read an index that `BenchmarkIndex.save` wrote."""
    with path.open("rb") as handle, np.load(handle) as stored:
        lengths = [int(key.removeprefix("hashes-")) for key in stored.files if key.startswith("hashes-")]
        return BenchmarkIndex(
            stored["names"].tolist(),
            stored["benchmark"],
            stored["number"],
            stored["total"],
            stored["need"],
            {n: stored[f"hashes-{n}"] for n in lengths},
            {n: stored[f"items-{n}"] for n in lengths},
        )


def read_benchmarks(directories: Iterable[Path]) -> dict[str, list[str]]:
    """Return the items of every benchmark found in the folders. Raises `XmodelError` if a folder has none."""
    found: dict[str, list[str]] = {}
    for directory in map(Path, directories):
        here = {name: list(benchmark_items(directory, name)) for name in BENCHMARKS}
        if not any(here.values()):
            raise XmodelError(f"{directory}: holds none of the benchmarks; folders are named {', '.join(BENCHMARKS)}")
        for name, texts in here.items():
            found.setdefault(name, []).extend(texts)
    return {name: texts for name, texts in found.items() if texts}


def build_index(benchmarks: Mapping[str, list[str]], settings: DecontaminateSettings) -> BenchmarkIndex:
    """Return the index of items by benchmark; of items with the same words, the first is the item."""
    owner: list[int] = []
    number: list[int] = []
    parts: dict[int, list[tuple[np.ndarray, np.ndarray, np.ndarray]]] = {}
    for index, texts in enumerate(benchmarks.values()):
        seen: set[bytes] = set()
        for at, text in enumerate(texts):
            words = word_hashes(text)
            if (same := words.tobytes()) in seen:  # FEVER has a row for each piece of evidence: no template's wording
                continue
            seen.add(same)
            n = min(settings.ngram, len(words))
            if len(words) >= settings.min_words:
                grams = np.unique(ngram_hashes(words, n))
                item, bench = np.full(len(grams), len(owner), np.int32), np.full(len(grams), index, np.uint64)
                parts.setdefault(n, []).append((grams, item, bench))
            owner.append(index)
            number.append(at)
    hashes, items = {}, {}
    total = np.zeros(len(owner), dtype=np.int32)
    for n, found in sorted(parts.items()):
        grams, item, bench = (np.concatenate(column) for column in zip(*found, strict=True))
        # The same n-gram in too many items of one benchmark is its template's.
        _, inverse, counts = np.unique(np.stack([grams, bench]), axis=1, return_inverse=True, return_counts=True)
        keep = counts[inverse.ravel()] <= settings.max_items
        order = np.argsort(grams[keep], kind="stable")
        hashes[n], items[n] = grams[keep][order], item[keep][order]
        total += np.bincount(items[n], minlength=len(owner)).astype(np.int32)
    need = np.where(total > 0, np.maximum(np.ceil(total * settings.min_share - 1e-9), 1), 0).astype(np.int32)
    arrays = np.array(owner, dtype=np.int32), np.array(number, dtype=np.int32)
    return BenchmarkIndex(list(benchmarks), *arrays, total, need, hashes, items)


def contamination(hits: Iterable[tuple[str, int]]) -> dict[str, Any]:
    """Return item numbers by benchmark, in order.

    >>> contamination([("gsm8k", 7), ("gsm8k", 3), ("piqa", 1)])
    {'gsm8k': [3, 7], 'piqa': [1]}
    """
    found: dict[str, list[int]] = {}
    for name, number in sorted(hits):
        found.setdefault(name, []).append(number)
    return found
