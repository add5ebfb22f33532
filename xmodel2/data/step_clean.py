"""First step, a task of files: read, clean, decontaminate, sign.

WORK/clean/00012.jsonl.zst  documents that are left, with "heldout": true where they are
              .npz          digests [documents, 2], heldout [documents], and simhash [documents] where it is asked for
              .minhash.npy  uint32 [documents, bands * rows] where it is asked for: apart, to be memory-mapped
              .json         the account of what was read and removed
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zstandard

from xmodel2.data.clean import Cleaner
from xmodel2.data.decontaminate import contamination, load_index
from xmodel2.data.document import Document, document_text
from xmodel2.data.huggingface import read_dataset
from xmodel2.data.plan import Plan, Task
from xmodel2.data.read import locate_documents, read_records
from xmodel2.data.signatures import Signer, content_digest
from xmodel2.errors import XmodelError
from xmodel2.files import write_json_atomic, writing_atomic
from xmodel2.recipe.preparation import CleanSettings

BENCHMARKS_FILE = "benchmarks.npz"
_LISTED = 1000  # skipped records that a task's account names one by one


@dataclass(frozen=True)
class CleanStep:
    """A datatrove step: (data, rank, world_size) does task ``rank``."""

    plan: Plan
    work: Path
    strict: bool

    def __call__(self, data: Any, rank: int, world_size: int) -> None:
        """Read the task's files and write what is left of them."""
        _Account(self.plan, self.work, self.strict, rank).run()


class _Account:
    """One task, and its account."""

    def __init__(self, plan: Plan, work: Path, strict: bool, number: int) -> None:
        self.task: Task = plan.tasks[number]
        self.plan, self.work, self.strict = plan, work, strict
        self.source = plan.preparation.sources[self.task.source]
        self.stem = work / "clean" / f"{number:05d}"
        self.read: Counter[str] = Counter()
        self.skipped: list[str] = []
        self.reasons: Counter[str] = Counter()
        self.contaminated: list[dict[str, Any]] = []
        self.benchmarks: Counter[str] = Counter()

    def run(self) -> None:
        preparation = self.plan.preparation
        rules = preparation.clean[self.source.clean] if self.source.clean else CleanSettings()
        cleaner = Cleaner(rules, self.source.language)
        documents = self._decontaminated(cleaner.clean(self._counted(self._documents())))
        methods = getattr(preparation.deduplicate, self.source.kind)
        signer = Signer(preparation.deduplicate, methods)
        heldout: list[bool] = []
        kept = 0
        with (
            writing_atomic(self.stem.with_suffix(".jsonl.zst")) as handle,
            zstandard.ZstdCompressor(level=1).stream_writer(handle, closefd=False) as packed,
        ):
            for document in documents:
                del document["at"]
                digest = content_digest(document)
                share = int.from_bytes(digest[:8], "little") / 2**64
                chosen = not self.source.heldout and share < self.source.heldout_fraction
                heldout.append(self.task.heldout or chosen)
                signer.add(document, digest)
                packed.write(json.dumps({**document, "heldout": heldout[-1]}).encode() + b"\n")
                kept += len(document_text(document).encode())
        signatures = signer.finish()
        arrays: dict[str, Any] = {"digests": signatures.digests, "heldout": np.array(heldout, dtype=bool)}
        if signatures.simhash is not None:
            arrays["simhash"] = signatures.simhash
        if signatures.minhash is not None:
            with writing_atomic(self.stem.with_suffix(".minhash.npy")) as handle:
                np.save(handle, signatures.minhash)
        with writing_atomic(self.stem.with_suffix(".npz")) as handle:
            np.savez(handle, **arrays)
        account = {
            "source": self.task.source,
            "read": dict(self.read),
            "skipped": dict(self.reasons),
            "skipped_records": self.skipped,
            "removed": {name: dict(counts) for name, counts in cleaner.removed.items() if counts},
            "changed": {name: dict(counts) for name, counts in cleaner.changed.items() if counts},
            "samples": {name: samples for name, samples in cleaner.samples.items() if samples},
            "contaminated": dict(self.benchmarks),
            "contaminated_documents": self.contaminated,
            "clean": {"documents": len(heldout), "bytes": kept},
        }
        write_json_atomic(self.stem.with_suffix(".json"), account)

    def _documents(self) -> Iterator[Document]:
        """Yield documents with the place they are from as "at"."""
        if self.source.dataset is not None and not self.task.files:
            located = read_dataset(self.source, Path(self.plan.root), self.task.part, self.strict, self._skip)
        else:
            located = locate_documents(self.task.files, self.strict, self._skip, self.source.fields)
        for where, document in located:
            document["at"] = where
            yield document

    def _skip(self, message: str) -> None:
        self.reasons[_reason(message)] += 1
        if len(self.skipped) < _LISTED:
            self.skipped.append(message)

    def _counted(self, documents: Iterable[Document]) -> Iterator[Document]:
        for document in documents:
            if self.source.kind == "sft" and "messages" not in document:
                raise XmodelError(
                    f"{document['at']}: source {self.task.source} is of kind sft, but a document has no messages; set"
                    f' sources.{self.task.source}.fields, or kind = "text"'
                )
            if self.source.kind == "sft" and not _answers(document):  # nothing in it is a target
                message = f"{document['at']}: no turn in which the assistant says something"
                if self.strict:
                    raise XmodelError(message)
                self._skip(message)
                continue
            self.read["documents"] += 1
            self.read["bytes"] += len(document_text(document).encode())
            yield document

    def _decontaminated(self, documents: Iterable[Document]) -> Iterator[Document]:
        if self.task.heldout or not (self.work / BENCHMARKS_FILE).exists():
            yield from documents
            return
        index = load_index(self.work / BENCHMARKS_FILE)
        for document in documents:
            text = document_text(document)
            hits = index.check(text)
            if not hits:
                yield document
                continue
            items = contamination(hits)
            self.benchmarks.update(items.keys())
            self.benchmarks["documents"] += 1
            self.contaminated.append({"at": document["at"], "items": items, "text": text[:200]})


def _answers(document: Document) -> bool:
    return any(turn["role"] == "assistant" and turn["content"].strip() for turn in document["messages"])


def _reason(message: str) -> str:
    """Return what skipped records have in common, without place and detail.

    >>> _reason("a.jsonl:7: not valid JSON: Expecting value at column 3"), _reason("a.jsonl:7: messages[2] lacks content")
    ('not valid JSON', 'messages[..] lacks content')
    """
    reason = message.split(": ", 1)[-1].split(":")[0]
    return re.sub(r" at byte \d+", "", re.sub(r"\[\d+\]", "[..]", reason))


def read_clean(work: Path, task: int) -> Iterator[Document]:
    """Yield the documents that a task left, with "heldout"."""
    for _, document in read_records(work / "clean" / f"{task:05d}.jsonl.zst"):
        yield document


def read_account(work: Path, task: int) -> dict[str, Any]:
    """Return a task's account."""
    account: dict[str, Any] = json.loads((work / "clean" / f"{task:05d}.json").read_text(encoding="utf-8"))
    return account
