"""Token shards: written once, mapped into memory where they are touched, checked by size then, by SHA-256 on demand.

DIR/index.json                      dtype, tokenizer, and for each source and split its counts, files and checksums
DIR/tokenizer/                      the tokenizer that made them
DIR/SOURCE/train-00000-000.tokens   tokens, documents one after another
                        ...offsets  uint64 [documents + 1], where each document starts
                        ...loss     uint8 [tokens], 1 where the token counts as a target (instruction data only)
                        ...rows-S   documents packed into rows of S, made when first asked for (data/packing.py)
DIR/SOURCE/questions.jsonl          held-out documents with a known answer, if there are any (data/questions.py)

DIR is a folder or the URL of one in an object store ("s3://bucket/data"), whose files are copied to a cache when touched.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xmodel2.data.maps import Folder, MapCache, ShardFiles
from xmodel2.errors import XmodelError, nearest
from xmodel2.files import as_path, file_record, is_local, sha256_file, write_bytes_atomic, write_json_atomic

INDEX_FILE = "index.json"


@dataclass
class SourceSplit:
    """One split of one source: a stream of tokens, shard after shard."""

    tokens: int
    documents: int
    bytes: int
    token_starts: list[int]
    """[shards + 1], where each shard starts in the stream; a list, since one at a time is searched for."""
    document_starts: np.ndarray
    """int64 [shards + 1], the number of each shard's first document."""
    files: dict[str, ShardFiles]
    """By kind: tokens, offsets and, for instruction data, loss."""

    def document(self, index: int) -> np.ndarray:
        """Return all tokens of a document, from 0."""
        shard = int(self.document_starts.searchsorted(index, "right")) - 1
        start, stop = self.files["offsets"][shard][index - self.document_starts[shard] :][:2]
        return self.files["tokens"][shard][start:stop]

    def documents_at(self, shard: int, starts: np.ndarray) -> np.ndarray:
        """Return the numbers of the documents that tokens of a shard lie in."""
        return self.document_starts[shard] + self.files["offsets"][shard].searchsorted(starts, "right") - 1


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
    """On this machine; for remote data the folder of the cache."""
    vocab_size: int
    fingerprint: str
    """As `data_fingerprint`."""
    dtype: str
    sources: dict[str, Source]

    def source(self, name: str) -> Source:
        """Return a source by name; raises `XmodelError` with the nearest one."""
        if name not in self.sources:
            known = ", ".join(self.sources)
            raise XmodelError(
                f"{self.directory}: no source {name!r} there.{nearest(name, self.sources)} There are: {known}"
            )
        return self.sources[name]


def piece_beyond(what: str, size: int) -> XmodelError:
    """Return what is told of ``what`` with a piece that a tokenizer of ``size`` lacks."""
    return XmodelError(
        f"{what} beyond the {size:,} of the tokenizer, so its shards are damaged; data.verify_checksums = true names the file"
    )


def read_index(directory: str | Path) -> dict[str, Any]:
    """Return index.json. Raises `XmodelError` if it is absent or broken."""
    path = as_path(directory) / INDEX_FILE
    try:
        index: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        index["sources"], index["dtype"], index["tokenizer"]["vocab_size"]
    except FileNotFoundError:
        raise XmodelError(f"{path}: not found; make the directory with `xmodel2 data prepare`") from None
    except Exception as error:  # every store has exceptions of its own
        raise XmodelError(f"{path}: cannot be read ({error!r}); prepare the data again") from None
    if "sha256" in index and index["sha256"] != _own_hash(index):
        raise XmodelError(f"{path}: its content changed since it was written (SHA-256 differs); prepare the data again")
    return index


def write_index(directory: Path, index: dict[str, Any]) -> None:
    """Write index.json over the files of a directory, with the checksums of those that are no shards, and its own."""
    known = {f"{name}/{r['file']}" for name, entry in index["sources"].items() for r in _records(entry)}
    names = (str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())
    others = sorted(name for name in names if name not in known and name != INDEX_FILE and not name.startswith("."))
    content = {**index, "files": {name: file_record(directory / name) for name in others}}
    write_json_atomic(directory / INDEX_FILE, {**content, "sha256": _own_hash(content)})


def _own_hash(index: dict[str, Any]) -> str:
    content = {key: value for key, value in index.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _records(entry: dict[str, Any]) -> list[dict[str, Any]]:
    """Return name, size and checksum of every file of a source."""
    found = [r for split in entry["splits"].values() for shard in split["shards"] for r in shard["files"].values()]
    return found + ([entry["questions"]] if "questions" in entry else [])


def data_fingerprint(directory: str | Path) -> str:
    """Return a hash of what the index says of tokenizer, files and checksums: equal for equal data, wherever it lies."""
    return _fingerprint(read_index(directory))


def _fingerprint(index: dict[str, Any]) -> str:
    content = json.dumps([index["dtype"], index["tokenizer"], index["sources"]], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def open_shards(directory: str | Path, verify: bool = False, cache_dir: str | Path = "") -> ShardSet:
    """Open a data directory; its shards are mapped when touched. With ``verify``, read all files and compare checksums.

    ``directory`` may be the URL of an object store; then ``cache_dir`` is where its files are copied to.
    Raises `XmodelError` naming what is missing, and, here or when it is first touched, a file that is not as written.
    """
    index = read_index(directory)
    fingerprint = _fingerprint(index)
    root = _root(directory, cache_dir, fingerprint)
    _check_tokenizer(root, index)
    maps = MapCache()
    sources = {}
    for name, entry in index["sources"].items():
        splits = {
            split: _open_split(root / name, entry["splits"].get(split), index["dtype"], maps)
            for split in ("train", "heldout")
        }
        if any(splits.values()) and not (root / name).exists():
            raise XmodelError(f"{root / name}: missing, but {INDEX_FILE} has this source; prepare the data again")
        sources[name] = Source(entry["kind"], **splits)
    shards = ShardSet(root.local, index["tokenizer"]["vocab_size"], fingerprint, index["dtype"], sources)
    if verify:
        _verify(root, index)
    return shards


def verify_shards(directory: str | Path, cache_dir: str | Path = "") -> list[Path]:
    """Compare every file's size and checksum with the index and return them. Raises `XmodelError` naming the first bad one."""
    index = read_index(directory)
    root = _root(directory, cache_dir, _fingerprint(index))
    _check_tokenizer(root, index)
    return _verify(root, index)


def _verify(root: Folder, index: dict[str, Any]) -> list[Path]:
    checked = []
    for name, entry in index["sources"].items():
        checked += [(root / name).verify(r["file"], r["bytes"], r["sha256"]) for r in _records(entry)]
    for name, record in index.get("files", {}).items():
        folder, _, file = name.rpartition("/")
        checked.append((root / folder if folder else root).verify(file, record["bytes"], record["sha256"]))
    return checked


def _root(directory: str | Path, cache_dir: str | Path, fingerprint: str) -> Folder:
    path = as_path(directory)
    if is_local(path):
        return Folder(path)
    if not cache_dir:
        raise XmodelError(
            f"{path}: lies in an object store; say with data.cache_dir which folder of this machine its files are copied to"
        )
    # Named by content, so that what was copied of other data is never taken for this.
    return Folder(Path(cache_dir) / fingerprint[:16], path)


def _check_tokenizer(root: Folder, index: dict[str, Any]) -> None:
    """Raise `XmodelError` if the directory's tokenizer is not the one that made its tokens."""
    folder = root / "tokenizer"
    path = folder.local / "tokenizer.json"
    want = index["tokenizer"].get("fingerprint")
    if root.remote is not None and not path.exists() and folder.exists():
        files = [file for file in folder.remote.iterdir() if file.is_file()]
        for file in sorted(files, key=lambda file: file.name == path.name):  # last: it says that all are there
            write_bytes_atomic(folder.local / file.name, file.read_bytes())
    if want and (not path.is_file() or sha256_file(path) != want):
        raise XmodelError(f"{path}: missing, or not the tokenizer that made the tokens; prepare the data again")


def _open_split(folder: Folder, entry: dict[str, Any] | None, dtype: str, maps: MapCache) -> SourceSplit | None:
    if not entry or not entry["documents"]:
        return None
    shards = entry["shards"]
    token_starts, document_starts = _starts(shards, "tokens"), _starts(shards, "documents")
    # Offsets as signed integers: a search for one in unsigned numbers would copy them all to another type.
    dtypes = {"tokens": dtype, "offsets": "int64", "loss": "uint8"}
    return SourceSplit(
        tokens=int(token_starts[-1]),
        documents=int(document_starts[-1]),
        bytes=entry["bytes"],
        token_starts=token_starts.tolist(),
        document_starts=document_starts,
        files={
            kind: ShardFiles(folder, [shard["files"][kind] for shard in shards], dtypes[kind], maps)
            for kind in shards[0]["files"]
        },
    )


def _starts(shards: list[dict[str, Any]], key: str) -> np.ndarray:
    return np.concatenate(([0], np.cumsum([shard[key] for shard in shards], dtype=np.int64)))
