"""Shards of random tokens, for checks and benchmarks that need data but no text."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from xmodel2.data.shard_writer import COUNTS, SplitWriter
from xmodel2.data.shards import INDEX_FILE, read_index
from xmodel2.files import write_json_atomic

Documents = Iterable[tuple[list[int], list[int] | None]]
"""Tokens of each document and, for instruction data, which of them are targets (0 or 1 each)."""


def write_random_shards(out: Path, vocab_size: int, seed: int, documents: int = 60, longest: int = 80) -> None:
    """Write sources `text` and `sft` with random documents of up to ``longest`` tokens, some held out."""
    random = np.random.default_rng(seed)

    def made(with_loss: bool, count: int) -> Documents:
        for _ in range(count):
            ids = random.integers(4, vocab_size, random.integers(3, longest)).tolist()
            loss = [int(i >= len(ids) // 2) for i in range(len(ids))]
            yield [1, *ids, 2], [0, *loss, 1] if with_loss else None

    counts = {"train": documents, "heldout": max(2, documents // 10)}
    sources = {
        kind: (kind, {split: made(kind == "sft", count) for split, count in counts.items()}) for kind in ("text", "sft")
    }
    write_shards(out, vocab_size, sources)


def write_shards(
    out: Path, vocab_size: int, sources: Mapping[str, tuple[str, Mapping[str, Documents]]], shard_tokens: int = 1 << 27
) -> None:
    """Write a data directory, without a tokenizer, of sources {name: (kind, {split: documents})}."""
    entries = {}
    for name, (kind, documents) in sources.items():
        splits = {}
        for split, found in documents.items():
            writer = SplitWriter(out / name, split, "uint16", kind == "sft", shard_tokens)
            for ids, loss in found:
                writer.add(ids, loss, 3 * len(ids))
            splits[split] = writer.finish()
        entries[name] = {"kind": kind, "splits": splits}
    tokenizer = {"fingerprint": "", "vocab_size": vocab_size}
    write_json_atomic(out / INDEX_FILE, {"format": 1, "dtype": "uint16", "tokenizer": tokenizer, "sources": entries})


def repeat_shards(directory: Path, times: int) -> None:
    """Let the index list every shard ``times`` times: a large data set at the cost of a small one."""
    index = read_index(directory)
    for entry in index["sources"].values():
        for split in entry["splits"].values():
            split["shards"] *= times
            for key in COUNTS:
                split[key] *= times
    write_json_atomic(directory / INDEX_FILE, index)
