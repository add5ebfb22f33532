"""What is in a data directory: counts, lengths and shares by source, and documents as the model sees them."""

from pathlib import Path
from typing import Any

import numpy as np

from xmodel2.data.mixture_file import stage_shares
from xmodel2.data.shards import open_shards, read_index
from xmodel2.files import as_path, read_json
from xmodel2.tokenizer import load_tokenizer

COUNTS = ("documents", "tokens", "loss_tokens", "bytes")
LENGTH_EDGES = [0, *(1 << power for power in range(4, 18))]
"""Bins of the histogram of document lengths, in tokens; the last one is open."""


def inspect_data(
    directory: str | Path, samples: int = 1, sample_tokens: int = 300, cache_dir: str | Path = ""
) -> dict[str, Any]:
    """Return counts, lengths and shares by source, and the beginnings of ``samples`` documents of each, decoded.

    Of the preparation's report, if the directory has one, what was removed is added. ``cache_dir`` is where files of an
    object store are copied to.
    """
    shards, index = open_shards(directory, cache_dir=cache_dir), read_index(directory)
    tokenizer = load_tokenizer(shards.directory / "tokenizer")
    directory = as_path(directory)
    report = read_json(directory / "report.json") or {"sources": {}, "benchmarks": {}}
    shares = stage_shares(index)
    sources: dict[str, Any] = {}
    for name, source in shards.sources.items():
        entry = index["sources"][name]
        split = source.train or source.heldout
        documents = range(min(samples, split.documents)) if split else range(0)
        sources[name] = {
            **report["sources"].get(name, {}),
            "kind": source.kind,
            "stage": entry.get("stage"),
            "shares": {stage: share[name] for stage, share in shares.items() if name in share},
            **{where: {key: entry["splits"][where][key] for key in COUNTS} for where in entry["splits"]},
            "lengths": length_statistics(document_lengths(directory / name, entry)),
            "samples": [tokenizer.decode(split.document(d)[:sample_tokens].tolist()) for d in documents if split],
        }
    return {"vocab_size": shards.vocab_size, "shares": shares, "benchmarks": report["benchmarks"], "sources": sources}


def document_lengths(folder: Path, entry: dict[str, Any]) -> np.ndarray:
    """Return int64 [documents], the tokens of each training document of a source."""
    lengths: list[np.ndarray] = []
    for shard in entry["splits"]["train"]["shards"]:
        data = (folder / shard["files"]["offsets"]["file"]).read_bytes()
        offsets = np.frombuffer(data, dtype=np.uint64).astype(np.int64)
        lengths.append(offsets[1:] - offsets[:-1])
    return np.concatenate(lengths) if lengths else np.empty(0, dtype=np.int64)


def length_statistics(lengths: np.ndarray) -> dict[str, Any]:
    """Return the median, mean, 90th percentile, longest, and a histogram over `LENGTH_EDGES`; empty without documents.

    >>> length_statistics(np.array([3, 5, 20]))["histogram"][:3]
    [2, 1, 0]
    """
    if not len(lengths):
        return {}
    histogram, _ = np.histogram(lengths, bins=[*LENGTH_EDGES, np.inf])
    return {
        "median": int(np.median(lengths)),
        "mean": float(lengths.mean()),
        "p90": int(np.percentile(lengths, 90)),
        "longest": int(lengths.max()),
        "histogram": histogram.tolist(),
    }


def repeats(tokens: int, share: float | None) -> str:
    """Return after how many tokens of a stage a source has been seen once.

    >>> repeats(2_000_000, 0.25)
    '8.0M'
    """
    if not share:
        return ""
    stage = tokens / share
    for unit, scale in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if stage >= scale:
            return f"{stage / scale:.1f}{unit}"
    return f"{stage:.0f}"
