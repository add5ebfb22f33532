"""Token shards on disk, memory-mapped: written once, checked by size on opening and by SHA-256 on demand.

DIR/index.json                      dtype, tokenizer, and for each source and split its counts, files and checksums
DIR/tokenizer/                      the tokenizer that made them
DIR/SOURCE/train-00000-000.tokens   tokens, documents one after another
                        ...offsets  uint64 [documents + 1], where each document starts
                        ...loss     uint8 [tokens], 1 where the token counts as a target (instruction data only)
DIR/SOURCE/questions.jsonl          held-out documents with a known answer, if there are any (data/questions.py)
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xmodel2.errors import XmodelError, nearest
from xmodel2.files import sha256_file

INDEX_FILE = "index.json"


@dataclass
class SourceSplit:
    """One split of one source, memory-mapped."""

    tokens: int
    documents: int
    bytes: int
    lengths: np.ndarray
    """Tokens of each document, int64 [documents]."""
    _shard_of: np.ndarray
    _starts: np.ndarray
    _tokens: list[np.ndarray]
    _loss: list[np.ndarray] | None

    def read(self, document: int, start: int, stop: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Return tokens start..stop of a document and, for instruction data, which count as targets."""
        shard, at = self._shard_of[document], self._starts[document]
        part = slice(int(at) + start, int(at) + stop)
        return self._tokens[shard][part], None if self._loss is None else self._loss[shard][part]

    def document(self, index: int) -> np.ndarray:
        """Return all tokens of a document."""
        return self.read(index, 0, int(self.lengths[index]))[0]


@dataclass
class Source:
    """One source: its kind (text or sft) and splits; a split without documents is None."""

    kind: str
    train: SourceSplit | None
    heldout: SourceSplit | None


@dataclass
class ShardSet:
    """All sources of a data directory."""

    directory: Path
    vocab_size: int
    fingerprint: str
    """As `data_fingerprint`."""
    sources: dict[str, Source]

    def source(self, name: str) -> Source:
        """Return a source by name; raises `XmodelError` with the nearest one."""
        if name not in self.sources:
            known = ", ".join(self.sources)
            raise XmodelError(
                f"{self.directory}: no source {name!r} there.{nearest(name, self.sources)} There are: {known}"
            )
        return self.sources[name]


def read_index(directory: Path) -> dict[str, Any]:
    """Return index.json. Raises `XmodelError` if it is absent or broken."""
    path = Path(directory) / INDEX_FILE
    try:
        index: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        index["sources"], index["dtype"], index["tokenizer"]["vocab_size"]
    except FileNotFoundError:
        raise XmodelError(f"{path}: not found; make the directory with `xmodel2 data prepare`") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise XmodelError(f"{path}: cannot be read ({error!r}); prepare the data again") from None
    return index


def data_fingerprint(directory: Path) -> str:
    """Return a hash of what the index says of tokenizer, files and checksums: equal for equal data, wherever it lies."""
    return _fingerprint(read_index(directory))


def _fingerprint(index: dict[str, Any]) -> str:
    content = json.dumps([index["dtype"], index["tokenizer"], index["sources"]], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def _check_tokenizer(directory: Path, index: dict[str, Any]) -> None:
    """Raise `XmodelError` if the directory's tokenizer is not the one that made its tokens."""
    path = Path(directory) / "tokenizer" / "tokenizer.json"
    want = index["tokenizer"].get("fingerprint")
    if want and (not path.is_file() or sha256_file(path) != want):
        raise XmodelError(f"{path}: missing, or not the tokenizer that made the tokens; prepare the data again")


def open_shards(directory: Path, verify: bool = False) -> ShardSet:
    """Map every shard; with ``verify``, read all of them and compare checksums. Raises `XmodelError` naming a bad file."""
    directory = Path(directory)
    index = read_index(directory)
    _check_tokenizer(directory, index)
    sources = {}
    for name, entry in index["sources"].items():
        splits = {
            split: _open_split(directory / name, entry["splits"].get(split), index["dtype"], verify)
            for split in ("train", "heldout")
        }
        sources[name] = Source(entry["kind"], **splits)
    return ShardSet(directory, index["tokenizer"]["vocab_size"], _fingerprint(index), sources)


def verify_shards(directory: Path) -> list[Path]:
    """Compare every file's size and checksum with the index and return them. Raises `XmodelError` naming the first bad one."""
    checked = []
    index = read_index(directory)
    _check_tokenizer(directory, index)
    for name, entry in index["sources"].items():
        records = [
            r for split in entry["splits"].values() for shard in split["shards"] for r in shard["files"].values()
        ]
        records += [entry["questions"]] if "questions" in entry else []
        checked += [_checked(Path(directory) / name, record, verify=True) for record in records]
    return checked


def _checked(folder: Path, record: dict[str, Any], verify: bool) -> Path:
    path = folder / record["file"]
    size = path.stat().st_size if path.exists() else None
    if size != record["bytes"]:
        found = "missing" if size is None else f"{size} bytes"
        raise XmodelError(f"{path}: {found}, {record['bytes']} bytes expected; prepare the data again")
    if verify and sha256_file(path) != record["sha256"]:
        raise XmodelError(f"{path}: its content changed since it was written (SHA-256 differs); prepare the data again")
    return path


def _open_split(folder: Path, entry: dict[str, Any] | None, dtype: str, verify: bool) -> SourceSplit | None:
    if not entry or not entry["documents"]:
        return None
    tokens: list[np.ndarray] = []
    losses: list[np.ndarray] = []
    starts, lengths, shard_of = [], [], []
    for number, shard in enumerate(entry["shards"]):
        paths = {kind: _checked(folder, record, verify) for kind, record in shard["files"].items()}
        offsets = np.fromfile(paths["offsets"], dtype=np.uint64).astype(np.int64)
        tokens.append(np.memmap(paths["tokens"], dtype=dtype, mode="r"))
        if "loss" in paths:
            losses.append(np.memmap(paths["loss"], dtype=np.uint8, mode="r"))
        starts.append(offsets[:-1])
        lengths.append(np.diff(offsets))
        shard_of.append(np.full(len(offsets) - 1, number, dtype=np.int32))
    return SourceSplit(
        tokens=entry["tokens"],
        documents=entry["documents"],
        bytes=entry["bytes"],
        lengths=np.concatenate(lengths),
        _shard_of=np.concatenate(shard_of),
        _starts=np.concatenate(starts),
        _tokens=tokens,
        _loss=losses or None,
    )
