"""Documents to shards: tokenize, drop exact duplicates, hold some out, write.

All of it is written beside and takes its place at the end, so that an interrupted preparation is never taken for data and
never costs what was there before.
"""

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from xmodel2.data.questions import is_question, write_questions
from xmodel2.data.read import Document, document_text
from xmodel2.data.shard_writer import SplitWriter
from xmodel2.data.shards import INDEX_FILE
from xmodel2.errors import XmodelError
from xmodel2.files import replaced_folder, write_json_atomic
from xmodel2.tokenizer import Tokenizer

COMMAND = "data prepare"
_BATCH = 256


@dataclass
class PrepareSource:
    """Documents of one source; without ``heldout``, ``heldout_fraction`` of them is held out by each one's hash."""

    name: str
    kind: Literal["text", "sft"]
    documents: Iterable[Document]
    heldout: Iterable[Document] | None = None
    heldout_fraction: float = 0.01
    skipped: list[str] = field(default_factory=list)
    """Filled by the reader with "file:line: reason"."""


def prepare(
    sources: Iterable[PrepareSource],
    tokenizer: Tokenizer,
    out: Path,
    shard_tokens: int = 1 << 27,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write the data directory ``out`` and return its index. Raises `XmodelError` if it exists or a source is empty."""
    dtype = "uint16" if tokenizer.vocab_size <= 1 << 16 else "uint32"
    with replaced_folder(Path(out), overwrite, COMMAND) as folder:
        shutil.copytree(tokenizer.directory, folder / "tokenizer", ignore=shutil.ignore_patterns(".*"))
        entries = {}
        for source in sources:
            entries[source.name] = _prepare_source(source, tokenizer, folder / source.name, dtype, shard_tokens)
        if not entries:
            raise XmodelError("data prepare: there is no source")
        index = {
            "format": 1,
            "dtype": dtype,
            "tokenizer": {"fingerprint": tokenizer.fingerprint, "vocab_size": tokenizer.vocab_size},
            "sources": entries,
        }
        write_json_atomic(folder / INDEX_FILE, index)
    return index


def _prepare_source(
    source: PrepareSource, tokenizer: Tokenizer, folder: Path, dtype: str, shard_tokens: int
) -> dict[str, Any]:
    writers = {
        split: SplitWriter(folder, split, dtype, source.kind == "sft", shard_tokens) for split in ("train", "heldout")
    }
    seen: set[bytes] = set()
    duplicates = 0
    questions: list[Document] = []
    for split, documents in (("heldout", source.heldout), ("train", source.documents)):
        for batch in _batches(documents or []):
            kept = []
            for document in batch:
                content = _content(source, document)
                digest = hashlib.sha256(content.encode("utf-8")).digest()
                if digest in seen:
                    duplicates += 1
                    continue
                seen.add(digest)
                held = source.heldout is None and int.from_bytes(digest[:8], "big") < source.heldout_fraction * 2**64
                kept.append(("heldout" if held else split, document, len(document_text(document).encode("utf-8"))))
                if kept[-1][0] == "heldout" and is_question(document):
                    questions.append(document)
            encoded = _encode(tokenizer, source, [document for _, document, _ in kept])
            for (where, _, size), (ids, loss) in zip(kept, encoded, strict=True):
                writers[where].add(ids, loss, size)
    splits = {split: writer.finish() for split, writer in writers.items()}
    if not splits["train"]["documents"]:
        detail = (
            f" ({len(source.skipped)} lines were skipped, the first: {source.skipped[0]})" if source.skipped else ""
        )
        raise XmodelError(f"data prepare: source {source.name} has no training document{detail}")
    return {
        "kind": source.kind,
        "duplicates": duplicates,
        "skipped_lines": len(source.skipped),
        "splits": splits,
        **({"questions": write_questions(folder, questions)} if questions else {}),
    }


def _content(source: PrepareSource, document: Document) -> str:
    """Return what will be encoded, as text that equal documents have in common."""
    if source.kind == "text":
        return document_text(document)
    if "messages" not in document:
        raise XmodelError(f"data prepare: source {source.name} is of kind sft, but a document has no messages")
    return json.dumps([[message["role"], message["content"]] for message in document["messages"]])


def _encode(
    tokenizer: Tokenizer, source: PrepareSource, documents: list[Document]
) -> Iterator[tuple[list[int], list[int] | None]]:
    if source.kind == "sft":
        for document in documents:
            yield tokenizer.encode_chat(document["messages"])
        return
    for ids in tokenizer.encode_batch([document_text(document) for document in documents]):
        yield [tokenizer.bos_id, *ids, tokenizer.eos_id], None


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    iterator = iter(documents)
    while batch := list(islice(iterator, _BATCH)):
        yield batch
