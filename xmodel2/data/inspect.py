"""What is in a data directory: counts by source and split, and documents as the model sees them."""

from pathlib import Path
from typing import Any

from xmodel2.data.shards import open_shards, read_index
from xmodel2.tokenizer import load_tokenizer


def inspect_data(directory: Path, samples: int = 1, sample_tokens: int = 80) -> dict[str, Any]:
    """Return counts, and the first ``sample_tokens`` tokens of ``samples`` documents a source, decoded."""
    shards, index = open_shards(directory), read_index(directory)
    tokenizer = load_tokenizer(Path(directory) / "tokenizer")
    total = sum(source.train.tokens for source in shards.sources.values() if source.train)
    report: dict[str, Any] = {"vocab_size": shards.vocab_size, "training tokens": total}
    for name, source in shards.sources.items():
        entry = index["sources"][name]
        report[name] = {
            "kind": source.kind,
            **{
                split: {key: counts[key] for key in ("documents", "tokens", "loss_tokens", "bytes")}
                for split, counts in entry["splits"].items()
            },
        }
        if source.train:
            documents = range(min(samples, source.train.documents))
            texts = [tokenizer.decode(source.train.document(d)[:sample_tokens].tolist()) for d in documents]
            report[name]["samples"] = {str(d): text for d, text in zip(documents, texts, strict=True)}
    return report
