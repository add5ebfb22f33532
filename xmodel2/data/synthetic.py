"""Shards of random tokens, for checks and benchmarks that need data but no text."""

from pathlib import Path

import numpy as np

from xmodel2.data.shard_writer import SplitWriter
from xmodel2.data.shards import INDEX_FILE
from xmodel2.files import write_json_atomic


def write_random_shards(out: Path, vocab_size: int, seed: int, documents: int = 60, longest: int = 80) -> None:
    """Write sources `text` and `sft` with random documents of up to ``longest`` tokens, some held out."""
    random = np.random.default_rng(seed)
    sources = {}
    for name, with_loss in (("text", False), ("sft", True)):
        splits = {}
        for split, count in (("train", documents), ("heldout", max(2, documents // 10))):
            writer = SplitWriter(out / name, split, "uint16", with_loss)
            for _ in range(count):
                ids = random.integers(4, vocab_size, random.integers(3, longest)).tolist()
                loss = [int(i >= len(ids) // 2) for i in range(len(ids))] if with_loss else None
                writer.add([1, *ids, 2], [0, *loss, 1] if loss is not None else None, 3 * len(ids))
            splits[split] = writer.finish()
        sources[name] = {"kind": name, "duplicates": 0, "skipped_lines": 0, "splits": splits}
    tokenizer = {"fingerprint": "", "vocab_size": vocab_size}
    write_json_atomic(out / INDEX_FILE, {"format": 1, "dtype": "uint16", "tokenizer": tokenizer, "sources": sources})
