"""A folder of sources becomes the text of a reproduction: as much of each kind as its stages read, and a sources file.

    DATA/web-blogs/*.jsonl.zst ...  ->  OUT/corpus/web.jsonl, web-heldout.jsonl ...   by the published shares (kinds.py)
    reasoning-gym                   ->  OUT/corpus/reasoning.jsonl ...                questions with checkable answers
                                    ->  OUT/corpus/sources.toml, sources-bpe.toml     what `data prepare` takes
                                    ->  OUT/corpus/files.json                         SHA-256 by file

Each folder holds NAME/*.jsonl.zst (or .jsonl, .gz, .parquet), and NAME/*-heldout.* for what is held out.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from xmodel2.data.document import chat_as_text
from xmodel2.data.read import SUFFIXES, Document, document_text, read_documents
from xmodel2.data.reasoning import reasoning_examples
from xmodel2.errors import XmodelError
from xmodel2.files import replaced_folder, sha256_file, write_json_atomic, write_text_atomic
from xmodel2.reproduction.kinds import ANSWERS_ONLY, INSTRUCTIONS, SFT_SHARE, TEXT, Kind

COMMAND = "reproduce"
FILES = "files.json"
_LEAST_BYTES = 300_000
"""Of a kind, however small its share: less gives no held-out loss worth reading."""
_HELDOUT_BYTES = 200_000
_QUESTIONS, _HELDOUT_QUESTIONS = 30_000, 400
_BYTES_PER_TOKEN = 4.0
_NO_WEIGHT = 1e-9
"""Of a source that is for a comparison, and no part of the mixture."""


@dataclass(frozen=True)
class Corpus:
    """A folder of sources, looked at."""

    path: Path
    kinds: dict[str, Kind]
    """What the mixtures can be made of, shares of each stage adding up to 100."""
    files: dict[str, list[Path]]
    """Training files by folder."""
    heldout: dict[str, list[Path]]
    """Held-out files by folder."""

    @cached_property
    def fingerprint(self) -> dict[str, str]:
        """SHA-256 of every file that the kinds are read from; read once, since there may be much of it."""
        found = {}
        for kind in self.kinds.values():
            for folder in kind.folders:
                for file in (*self.files[folder], *self.heldout[folder]):
                    found[f"{folder}/{file.name}"] = sha256_file(file)
        return found


def open_corpus(path: Path, renormalise: bool = False) -> Corpus:
    """Look at a folder of sources.

    Raises `XmodelError` naming every folder that is missing, and what its kind's share is; with ``renormalise`` a kind makes do
    with the folders that are there, and one that has none leaves its share to the others. Also if no text is held out.
    """
    if not path.is_dir():
        raise XmodelError(f"--data {path}: no such folder; give one that holds a folder for each source")
    wanted = {**TEXT, **INSTRUCTIONS}
    files = {folder: _files(path / folder, False) for kind in wanted.values() for folder in kind.folders}
    heldout = {folder: _files(path / folder, True) for folder in files}
    missing = {name: [f for f in kind.folders if not files[f]] for name, kind in wanted.items()}
    missing = {name: folders for name, folders in missing.items() if folders}
    if missing and not renormalise:
        lines = [f"  {name} ({wanted[name].published}): {', '.join(folders)}" for name, folders in missing.items()]
        raise XmodelError(
            "\n".join([f"{path}: these sources are missing:", *lines])
            + "\nPut them there, or give --renormalise to share their part out among those that are there"
        )
    kinds: dict[str, Kind] = {}
    for stage in (TEXT, INSTRUCTIONS):
        there = {}
        for name, kind in stage.items():
            folders = tuple(folder for folder in kind.folders if files[folder])
            if folders or not kind.folders:
                there[name] = Kind(folders, kind.share, kind.published, kind.language)
        total = sum(kind.share for kind in there.values())
        kinds |= {n: Kind(k.folders, 100 * k.share / total, k.published, k.language) for n, k in there.items()}
    if not any(name in kinds for name in TEXT):
        raise XmodelError(f"{path}: has none of the sources of pretraining text")
    if not any(heldout[folder] for name in TEXT if name in kinds for folder in kinds[name].folders):
        raise XmodelError(
            f"{path}: no source of text has held-out files (NAME/*-heldout.*), which losses are judged on"
        )
    return Corpus(path, kinds, files, heldout)


def write_corpus(corpus: Corpus, out: Path, stable_tokens: int, decay_tokens: int, vocab_size: int) -> dict[str, int]:
    """Write the text that the longest stages need, with its sources files, and return bytes by kind.

    Raises `XmodelError` for a kind whose files hold no document.
    """
    sizes = {}
    with replaced_folder(out, True, COMMAND) as folder:
        for name, kind in corpus.kinds.items():
            tokens = stable_tokens + decay_tokens if name in TEXT else decay_tokens
            budget = max(_LEAST_BYTES, int(tokens * _BYTES_PER_TOKEN * kind.share / 100))
            if kind.folders:
                as_text = name in TEXT
                sizes[name] = _write(folder / f"{name}.jsonl", _evenly(corpus.files, kind, budget), as_text)
                if not sizes[name]:
                    raise XmodelError(f"{corpus.path}: no document in the files of {', '.join(kind.folders)}")
                held = [f for f in kind.folders if corpus.heldout[f]]
                if held:
                    there = Kind(tuple(held), kind.share, kind.published)
                    _write(folder / f"{name}-heldout.jsonl", _evenly(corpus.heldout, there, _HELDOUT_BYTES), as_text)
            else:
                sizes[name] = _questions(folder)
        for algorithm in ("unigram", "bpe"):
            ending = "" if algorithm == "unigram" else f"-{algorithm}"
            text = sources_toml(corpus.kinds, vocab_size, algorithm, folder)
            write_text_atomic(folder / f"sources{ending}.toml", text)
        write_json_atomic(folder / FILES, {path.name: sha256_file(path) for path in sorted(folder.glob("*.jsonl"))})
    return sizes


def sources_toml(kinds: dict[str, Kind], vocab_size: int, algorithm: str, folder: Path) -> str:
    """Return the sources file of a corpus that lies in ``folder``."""
    lines = [
        f"sft_share = {SFT_SHARE}",
        "",
        "[tokenizer]",
        f"vocab_size = {vocab_size}",
        f'algorithm = "{algorithm}"',
        "",
        "[deduplicate]",
        'text = ["exact"]',
        'sft = ["exact"]',
        'scope = "within"',
    ]
    for name, kind in kinds.items():
        lines += _table(name, "text" if name in TEXT else "sft", kind.share, kind.language, folder)
        if name in INSTRUCTIONS:
            lines += ["as_text = true"]
        if name == "reasoning":
            lines += _table(ANSWERS_ONLY, "sft", _NO_WEIGHT, "en", folder)
    return "\n".join(lines) + "\n"


def _table(name: str, kind: str, weight: float, language: str, folder: Path) -> list[str]:
    lines = ["", f"[sources.{name}]", f'kind = "{kind}"', f"weight = {weight:.9g}", f'language = "{language}"']
    lines += [f'files = ["{name}.jsonl"]']
    return lines + ([f'heldout = ["{name}-heldout.jsonl"]'] if (folder / f"{name}-heldout.jsonl").exists() else [])


def _files(folder: Path, heldout: bool) -> list[Path]:
    found = sorted(folder.glob("*")) if folder.is_dir() else []
    return [f for f in found if f.name.endswith(SUFFIXES) and bool(re.search(r"-heldout\.", f.name)) == heldout]


def _evenly(files: dict[str, list[Path]], kind: Kind, budget: int) -> Iterator[Document]:
    """Yield documents of a kind's folders, as many bytes of each, until the budget is spent or all is read."""
    readers = {folder: iter(read_documents(files[folder])) for folder in kind.folders}
    taken = dict.fromkeys(readers, 0)
    while readers and sum(taken.values()) < budget:
        folder = min(readers, key=lambda name: taken[name])
        document = next(readers[folder], None)
        if document is None:
            del readers[folder]
        else:
            taken[folder] += len(document_text(document).encode())
            yield document


def _write(path: Path, documents: Iterator[Document], as_text: bool) -> int:
    """Write documents, chats as text if asked for, and return their bytes."""
    size = 0
    with open(path, "w", encoding="utf-8") as file:
        for document in documents:
            if as_text and "text" not in document:
                document = {"text": chat_as_text(document["messages"])}
            size += len(document_text(document).encode())
            file.write(json.dumps(document) + "\n")
    return size


def _questions(folder: Path) -> int:
    """Write the questions, with the steps to their answers and without."""
    asked = reasoning_examples(_QUESTIONS, seed=1)
    held = reasoning_examples(_HELDOUT_QUESTIONS, seed=2, exclude={example["question"] for example in asked})
    size = 0
    for ending, examples in (("", asked), ("-heldout", held)):
        size += _write(folder / f"reasoning{ending}.jsonl", iter(examples), False)
        _write(folder / f"{ANSWERS_ONLY}{ending}.jsonl", map(_without_steps, examples), False)
    return size


def _without_steps(example: dict[str, Any]) -> dict[str, Any]:
    answer = f"#### {example['answer']}" if "####" in example["messages"][-1]["content"] else example["answer"]
    turns = [*example["messages"][:-1], {"role": "assistant", "content": answer}]
    # Without `answer` it is no question of its own: both forms are asked the same ones.
    return {"messages": turns}
