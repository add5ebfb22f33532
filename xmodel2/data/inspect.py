"""What is in a data directory: counts by source and split, and documents as the model sees them."""

from pathlib import Path
from typing import Any

from xmodel2.data.shards import open_shards, read_index
from xmodel2.tokenizer import load_tokenizer

COUNTS = ("documents", "tokens", "loss_tokens", "bytes")


def inspect_data(directory: Path, samples: int = 1, sample_tokens: int = 80) -> dict[str, Any]:
    """Return counts, and the first ``sample_tokens`` tokens of ``samples`` documents a source, decoded."""
    shards, index = open_shards(directory), read_index(directory)
    tokenizer = load_tokenizer(Path(directory) / "tokenizer")
    sources: dict[str, Any] = {}
    for name, source in shards.sources.items():
        splits = index["sources"][name]["splits"]
        documents = range(min(samples, source.train.documents)) if source.train else range(0)
        sources[name] = {
            "kind": source.kind,
            **{split: {key: splits[split][key] for key in COUNTS} for split in splits},
            "samples": [
                tokenizer.decode(source.train.document(d)[:sample_tokens].tolist()) for d in documents if source.train
            ],
        }
    return {"vocab_size": shards.vocab_size, "sources": sources}
