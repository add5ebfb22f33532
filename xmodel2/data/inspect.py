"""What is in a data directory: counts, lengths and shares by source, and documents as the model sees them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from xmodel2.data.mixture_file import stage_shares
from xmodel2.data.shard_writer import COUNTS
from xmodel2.data.shards import SourceSplit, open_shards, read_index
from xmodel2.files import as_path, read_json
from xmodel2.tokenizer import load_tokenizer

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
            "lengths": length_statistics(document_lengths(source.train)),
            "samples": [tokenizer.decode(split.document(d)[:sample_tokens].tolist()) for d in documents if split],
        }
    return {"vocab_size": shards.vocab_size, "shares": shares, "benchmarks": report["benchmarks"], "sources": sources}


def document_lengths(split: SourceSplit | None) -> np.ndarray:
    """Return int64 [documents], the tokens of each document of a split."""
    offsets = split.files["offsets"] if split else ()
    return np.concatenate([np.empty(0, dtype=np.int64), *(np.diff(offsets[shard]) for shard in range(len(offsets)))])


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


INSPECTION_HEAD = (
    "source",
    "documents",
    "tokens",
    "bytes a token",
    "median",
    "longest",
    "stable",
    "decay",
    "once in",
    "held out",
)


def inspection_rows(sources: Mapping[str, Any]) -> list[list[str]]:
    """Return what `inspect_data` found as text under `INSPECTION_HEAD`, a row a source."""
    rows = []
    for name, source in sources.items():
        train, shares, lengths = source["train"], source["shares"], source["lengths"]
        rows.append(
            [
                name,
                f"{train['documents']:,}",
                f"{train['tokens']:,}",
                f"{train['bytes'] / max(train['tokens'], 1):.2f}",
                *(f"{lengths[key]:,}" if lengths else "" for key in ("median", "longest")),
                *(f"{shares[stage]:.2%}" if stage in shares else "" for stage in ("stable", "decay")),
                repeats(train["tokens"], shares.get(source["stage"])),
                f"{source['heldout']['documents']:,}",
            ]
        )
    return rows


def removed_documents(reasons: Mapping[str, int]) -> int:
    """Return how many documents a rule removed, from its account by reason.

    >>> removed_documents({"short": 2, "long": 1, "bytes": 900})
    3
    """
    return sum(count for reason, count in reasons.items() if reason != "bytes")


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
