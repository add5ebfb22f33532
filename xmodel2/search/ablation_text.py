"""The same text by another tokenizer: as many bytes of every source, so other numbers of tokens, steps and shares.

    tokens of a source x (its tokens a byte by the other tokenizer / by the recipe's)  ->  stages, mixtures, warm-up, half-life

Nats a token do not compare between tokenizers; bits a byte of held-out text do.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from xmodel2.data.shards import open_shards, read_index
from xmodel2.errors import XmodelError
from xmodel2.files import as_path, read_json
from xmodel2.recipe import Recipe

Entries = Mapping[str, Any]


def at_equal_text(recipe: Recipe, name: str, folder: str) -> dict[str, Any]:
    """Return the keys in which a recipe on ``folder`` differs: data, vocabulary, and lengths and shares for equal text.

    Raises `XmodelError` if the directory is not of the same documents as the recipe's.
    """
    option = f"--data {name}={folder}"
    own, other = read_index(recipe.data.dir), read_index(folder)
    stable, decay = recipe.stages.stable, recipe.stages.decay
    trained = {*stable.mixture, *recipe.decay_mixture}
    _check_same(own["sources"], other["sources"], trained, option)
    open_shards(folder, recipe.data.verify_checksums, recipe.data.cache_dir)

    def longer(sources: Iterable[str], split: str) -> dict[str, float]:
        return {
            name: _tokens_per_byte(other["sources"][name], split) / _tokens_per_byte(own["sources"][name], split)
            for name in sources
        }

    text, stable_factor = _scaled(stable.mixture, longer(stable.mixture, "train"))
    sft, sft_factor = _scaled(decay.sft_mixture, longer(decay.sft_mixture, "train") if decay.sft_share else {})
    text_part, sft_part = (1 - decay.sft_share) * stable_factor, decay.sft_share * sft_factor
    decay_factor = text_part + sft_part
    judged = longer(text_sources(own["sources"]), "heldout")
    batch, train = recipe.train.batch_tokens, recipe.train
    stable_steps = max(1, round(recipe.stable_steps * stable_factor))
    decay_steps = max(1, round(recipe.decay_steps * decay_factor)) if recipe.decay_steps else 0
    return {
        "data.dir": folder,
        "model.vocab_size": other["tokenizer"]["vocab_size"],
        "stages.stable.tokens": stable_steps * batch,
        "stages.stable.mixture": text,
        "stages.decay.tokens": decay_steps * batch,
        "stages.decay.sft_share": sft_part / decay_factor,
        "stages.decay.sft_mixture": sft,
        "train.warmup_steps": min(stable_steps, round(train.warmup_steps * stable_factor)),
        "train.decay_half_life_steps": max(1, round(train.decay_half_life_steps * decay_factor)),
        "train.heldout_rows": max(1, round(train.heldout_rows * sum(judged.values()) / max(1, len(judged)))),
    }


def bits_per_byte(sources: Entries, heldout: Mapping[str, float]) -> float | None:
    """Return the mean bits a byte of held-out text, of losses by source in nats a token; None if no source is text."""
    found = [
        heldout[name] * _tokens_per_byte(sources[name], "heldout") / math.log(2)
        for name in text_sources(sources)
        if name in heldout
    ]
    return sum(found) / len(found) if found else None


def tokenizer_kind(folder: str) -> str | None:
    """Return what kind a prepared directory's tokenizer is, "Unigram" or "BPE"; None if it holds none."""
    found = read_json(as_path(folder) / "tokenizer" / "tokenizer.json")
    return str(found["model"]["type"]) if found else None


def text_sources(sources: Entries) -> list[str]:
    """Return the sources of text that have some held out, which losses are judged by."""
    return [
        name
        for name, entry in sources.items()
        if entry["kind"] == "text" and (entry["splits"].get("heldout") or {}).get("bytes")
    ]


def _tokens_per_byte(entry: Entries, split: str) -> float:
    """Return a source's tokens a byte, without the mark between documents, which is no text (as train/heldout.py counts)."""
    counts = entry["splits"][split]
    return float((counts["tokens"] - counts["documents"]) / counts["bytes"])


def _scaled(mixture: Mapping[str, float], factors: Mapping[str, float]) -> tuple[dict[str, float], float]:
    """Return the shares of tokens that are shares of the same text, and how many times as many tokens that are."""
    parts = {name: share * factors.get(name, 1.0) for name, share in mixture.items()}
    factor = sum(parts.values())
    return {name: part / factor for name, part in parts.items()}, factor or 1.0


def _check_same(own: Entries, other: Entries, trained: Iterable[str], option: str) -> None:
    if not text_sources(own):
        raise XmodelError(
            f"{option}: the recipe's data have no held-out text, and tokenizers compare by its bits a byte"
        )
    for name in sorted({*trained, *text_sources(own)}):
        if name not in other or other[name]["kind"] != own[name]["kind"]:
            raise XmodelError(f"{option}: has no source {name!r}, or one of another kind; prepare the same sources")
        for split, counts in own[name]["splits"].items():
            theirs = other[name]["splits"].get(split) or {}
            if any(theirs.get(key) != counts[key] for key in ("documents", "bytes")):
                raise XmodelError(
                    f"{option}: is not of the same documents ({name}, {split}: {theirs.get('documents', 0):,} of"
                    f" {theirs.get('bytes', 0):,} bytes, the recipe's data have {counts['documents']:,} of"
                    f" {counts['bytes']:,}); prepare both from one sources file, with another [tokenizer]"
                )
    if extra := [name for name in text_sources(other) if name not in own]:
        raise XmodelError(
            f"{option}: has text that the recipe's data lack ({', '.join(extra)}); prepare the same sources"
        )
