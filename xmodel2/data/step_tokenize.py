"""Last step, a task of files: what is left of them becomes token shards.

WORK/out/SOURCE/train-00012-000.tokens ...  (data/shards.py)
WORK/tokens/00012.json                      the task's part of the index, and its held-out questions
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from xmodel2.data.document import Document, chat_as_text, document_text
from xmodel2.data.plan import Plan
from xmodel2.data.questions import is_question
from xmodel2.data.shard_writer import SplitWriter
from xmodel2.data.step_clean import read_clean
from xmodel2.data.step_deduplicate import document_starts
from xmodel2.files import write_json_atomic
from xmodel2.tokenizer import Tokenizer, load_tokenizer

_BATCH = 256


@dataclass(frozen=True)
class TokenizeStep:
    """A datatrove step: (data, rank, world_size) does task ``rank``."""

    plan: Plan
    work: Path
    shard_tokens: int

    def __call__(self, data: Any, rank: int, world_size: int) -> None:
        """Tokenize the documents of a task that stay."""
        task = self.plan.tasks[rank]
        kind = self.plan.preparation.sources[task.source].kind
        tokenizer = load_tokenizer(self.work / "out" / "tokenizer")
        writers = {
            split: SplitWriter(
                self.work / "out" / task.source,
                f"{split}-{rank:05d}",
                token_dtype(tokenizer),
                kind == "sft",
                self.shard_tokens,
            )
            for split in ("train", "heldout")
        }
        questions: list[Document] = []
        documents = staying_documents(self.work, rank)
        if task.repeats is not None:
            documents = (document for document in staying_documents(self.work, task.repeats) if not document["heldout"])
        if kind == "text":
            documents = map(as_text, documents)
        for batch in _batches(documents):
            encoded = encode(tokenizer, kind, batch)
            for document, (ids, loss) in zip(batch, encoded, strict=True):
                heldout = document.pop("heldout")
                size = len(document_text(document).encode("utf-8"))
                writers["heldout" if heldout else "train"].add(ids, loss, size)
                if heldout and kind == "sft" and is_question(document):
                    questions.append(document)
        splits = {split: writer.finish() for split, writer in writers.items()}
        write_json_atomic(self.work / "tokens" / f"{rank:05d}.json", {"splits": splits, "questions": questions})


def staying_documents(work: Path, task: int) -> Iterator[Document]:
    """Yield the documents of a task that are no copies, with "heldout"."""
    start, stop = document_starts(work)[task : task + 2]
    stays = np.load(work / "stay.npy", mmap_mode="r")[start:stop] == np.arange(start, stop)
    for document, stay in zip(read_clean(work, task), stays, strict=True):
        if stay:
            yield document


def as_text(document: Document) -> Document:
    """Return a chat as a document of text; one of text is that."""
    if "messages" not in document:
        return document
    return {"text": chat_as_text(document["messages"]), "heldout": document["heldout"]}


def token_dtype(tokenizer: Tokenizer) -> str:
    """Return the smallest type that holds every id."""
    return "uint16" if tokenizer.vocab_size <= 1 << 16 else "uint32"


def encode(tokenizer: Tokenizer, kind: str, documents: list[Document]) -> Iterator[tuple[Any, Any]]:
    """Yield ids and, for instruction data, loss mask of each document."""
    if kind == "sft":
        for document in documents:
            yield tokenizer.encode_chat(document["messages"])
        return
    for ids in tokenizer.encode_arrays([document_text(document) for document in documents]):
        yield np.concatenate(([tokenizer.bos_id], ids, [tokenizer.eos_id])), None


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    iterator = iter(documents)
    while batch := list(islice(iterator, _BATCH)):
        yield batch
