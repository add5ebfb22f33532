"""Held-out documents that losses are measured on: of prepared shards, or of a text file.

Targets are the tokens that training counts: all of a text, the answers of a conversation.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from xmodel2.data.shards import SourceSplit, data_fingerprint, open_shards
from xmodel2.errors import XmodelError
from xmodel2.release.trained import Trained
from xmodel2.tokenizer import Tokenizer


@dataclass
class Documents:
    """Held-out documents of several sources."""

    origin: str
    """Where they come from, for people."""
    fingerprint: str
    """Equal for equal documents."""
    sources: list[str] = field(default_factory=list)
    """Of each document."""
    ids: list[list[int]] = field(default_factory=list)
    counted: list[np.ndarray] = field(default_factory=list)
    """Of each document [tokens - 1] whether the tokens after the first count."""

    def add(self, source: str, ids: list[int], counted: np.ndarray) -> None:
        """Add a document."""
        self.sources.append(source)
        self.ids.append(ids)
        self.counted.append(counted)

    @property
    def tokens(self) -> int:
        """Tokens that count."""
        return int(sum(mask.sum() for mask in self.counted))


def documents_of(trained: Trained, data: str, text: Path | None, limit: int | None) -> Documents | None:
    """Return what is asked for, else the held-out documents of a run's own data; None for a model without a run.

    Raises `XmodelError` if it is not there, or not of this model.
    """
    if text is not None and data:
        raise XmodelError("--data, --text: give one of them")
    if text is not None:
        return text_documents(text, trained.tokenizer, limit)
    if data:
        return heldout_documents(data, trained.settings.vocab_size, limit)
    if trained.recipe is None or trained.state is None:
        return None
    own = trained.recipe.data
    if data_fingerprint(own.dir) != trained.state["data"]:
        raise XmodelError(
            f"{own.dir}: is not the data that {trained.path} was trained on (its index differs); give that with --data"
        )
    return heldout_documents(own.dir, trained.settings.vocab_size, limit, own.cache_dir)


def heldout_documents(data: str | Path, vocab_size: int, limit: int | None = None, cache_dir: str = "") -> Documents:
    """Return held-out documents of a data directory, in order, of each source an equal part of ``limit`` tokens.

    Raises `XmodelError` if nothing is held out there, or it was made with another vocabulary.
    """
    shards = open_shards(data, cache_dir=cache_dir)
    if shards.vocab_size != vocab_size:
        raise XmodelError(
            f"{data}: has a vocabulary of {shards.vocab_size:,} and the model one of {vocab_size:,};"
            " give the --data that it was trained on"
        )
    splits = {name: source.heldout for name, source in shards.sources.items() if source.heldout}
    found = Documents(str(data), f"{shards.fingerprint}-{limit}")
    for name, split in splits.items():
        taken = 0
        for ids, mask in _documents(split):
            if limit is not None:
                ids, mask = _cut(ids, mask, -(-limit // len(splits)) - taken)
            if not mask.any():
                continue
            found.add(name, ids, mask)
            taken += int(mask.sum())
            if limit is not None and taken >= limit / len(splits):
                break
    if not found.ids:
        raise XmodelError(f"{data}: has no held-out documents; prepare it with some, or give --text")
    return found


def _documents(split: SourceSplit) -> Iterator[tuple[list[int], np.ndarray]]:
    for shard in range(len(split.files["tokens"])):
        tokens, offsets = split.files["tokens"][shard], split.files["offsets"][shard]
        loss = split.files["loss"][shard] if "loss" in split.files else None
        for start, stop in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
            mask = np.ones(stop - start, bool) if loss is None else np.asarray(loss[start:stop], bool)
            yield np.asarray(tokens[start:stop]).tolist(), mask[1:]


def text_documents(file: Path, tokenizer: Tokenizer, limit: int | None = None) -> Documents:
    """Return the paragraphs of a text file as documents. Raises `XmodelError` if it is no UTF-8 text, or empty."""
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise XmodelError(f"{file}: is not UTF-8 text ({error.reason} at byte {error.start})") from None
    found = Documents(str(file), f"{hashlib.sha256(text.encode()).hexdigest()}-{limit}")
    for paragraph in filter(None, (part.strip() for part in text.split("\n\n"))):
        if limit is not None and found.tokens >= limit:
            break
        ids = tokenizer.encode_document(paragraph)
        found.add(file.name, ids, np.ones(len(ids) - 1, bool))
    if not found.ids:
        raise XmodelError(f"{file}: holds no text")
    return found


def _cut(ids: list[int], mask: np.ndarray, tokens: int) -> tuple[list[int], np.ndarray]:
    """Return the beginning of a document that has at most so many tokens that count."""
    kept = int(np.searchsorted(mask.cumsum(), tokens, side="right"))
    return ids[: kept + 1], mask[:kept]
