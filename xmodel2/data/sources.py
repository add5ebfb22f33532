"""`sources.toml`: which files make which source, and which tokenizer reads them.

[tokenizer]
vocab_size = 8192            # train one on these sources; or: path = "tokenizer"

[sources.wiki]
files = ["wiki/*.jsonl.zst"] # relative to this file
heldout = ["wiki/*-heldout.jsonl.gz"]   # optional; otherwise heldout_fraction (default 0.01) of files, by hash

[sources.alpaca]
files = ["alpaca/*.jsonl"]
kind = "sft"
"""

import glob
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from xmodel2.data.prepare import COMMAND, PrepareSource, prepare
from xmodel2.data.read import document_text, read_documents
from xmodel2.errors import XmodelError, nearest
from xmodel2.files import check_folder
from xmodel2.tokenizer import Tokenizer, load_tokenizer, train_unigram

_KEYS = {
    "": ("tokenizer", "sources"),
    "tokenizer": ("vocab_size", "path"),
    "source": ("files", "heldout", "heldout_fraction", "kind"),
}


def prepare_from_file(path: Path, out: Path, strict: bool = False, overwrite: bool = False) -> dict[str, Any]:
    """Prepare what a sources file names and return counts by source. Raises `XmodelError` naming file and key."""
    path, out = Path(path), Path(out)
    tree = _read(path)
    sources = [_source(path, name, entry, strict) for name, entry in tree["sources"].items()]
    check_folder(out, overwrite, COMMAND)
    _check_outside(path, tree, out)
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = _tokenizer(path, tree, Path(folder))
        index = prepare(sources, tokenizer, out, overwrite=overwrite)
    return {
        name: {"kind": entry["kind"]}
        | {
            split: {key: counts[key] for key in ("documents", "tokens", "bytes")}
            for split, counts in entry["splits"].items()
        }
        | {"skipped": entry["skipped_lines"], "duplicates": entry["duplicates"]}
        for name, entry in index["sources"].items()
    }


def _check_outside(path: Path, tree: dict[str, Any], out: Path) -> None:
    """Raise if an input lies in the folder that is about to be replaced."""
    inputs = [path]
    for name, entry in tree["sources"].items():
        inputs += _files(path, name, "files", entry.get("files"))
        inputs += _files(path, name, "heldout", entry["heldout"]) if "heldout" in entry else []
    if "path" in tree["tokenizer"]:
        inputs.append(path.parent / str(tree["tokenizer"]["path"]))
    for file in inputs:
        if out.resolve() in (file.resolve(), *file.resolve().parents):
            raise XmodelError(f"{path}: {file} lies inside --out {out}, which would be replaced; choose another --out")


def _read(path: Path) -> dict[str, Any]:
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise XmodelError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise XmodelError(f"{path}: not a readable TOML file: {error}") from None
    _known(path, "", tree, _KEYS[""])
    for key in _KEYS[""]:
        if not isinstance(tree.get(key), dict) or not tree[key]:
            raise XmodelError(f"{path}: the table [{key}] is missing or empty")
    _known(path, "tokenizer.", tree["tokenizer"], _KEYS["tokenizer"])
    for name, entry in tree["sources"].items():
        if not isinstance(entry, dict):
            raise XmodelError(f"{path}: sources.{name} must be a table with files")
        _known(path, f"sources.{name}.", entry, _KEYS["source"])
        if entry.get("kind", "text") not in ("text", "sft"):
            raise XmodelError(f"{path}: sources.{name}.kind = {entry['kind']!r}; allowed: text, sft")
        share = entry.get("heldout_fraction", 0.0)
        if not isinstance(share, int | float) or not 0 <= share < 1:
            raise XmodelError(f"{path}: sources.{name}.heldout_fraction = {share!r}; it must be from 0 to below 1")
    return tree


def _known(path: Path, prefix: str, table: dict[str, Any], allowed: tuple[str, ...]) -> None:
    for key in table:
        if key not in allowed:
            raise XmodelError(
                f"{path}: unknown key {prefix}{key}.{nearest(key, allowed)} Allowed here: {', '.join(allowed)}"
            )


def _source(path: Path, name: str, entry: dict[str, Any], strict: bool) -> PrepareSource:
    source = PrepareSource(name, entry.get("kind", "text"), ())
    source.heldout_fraction = float(entry.get("heldout_fraction", source.heldout_fraction))
    files = _files(path, name, "files", entry.get("files"))
    source.documents = read_documents(files, strict, source.skipped.append)
    if "heldout" in entry:
        source.heldout = read_documents(_files(path, name, "heldout", entry["heldout"]), strict, source.skipped.append)
    return source


def _files(path: Path, name: str, key: str, patterns: Any) -> list[Path]:
    if not isinstance(patterns, list) or not all(isinstance(p, str) for p in patterns) or not patterns:
        raise XmodelError(f"{path}: sources.{name}.{key} must be a list of file patterns")
    found = []
    for pattern in patterns:
        matches = sorted(glob.glob(pattern, root_dir=path.parent, recursive=True))
        if not matches:
            raise XmodelError(f"{path}: sources.{name}.{key}: no file matches {pattern!r}")
        found += [path.parent / match for match in matches]
    return found


def _tokenizer(path: Path, tree: dict[str, Any], folder: Path) -> Tokenizer:
    entry = tree["tokenizer"]
    if "path" in entry:
        return load_tokenizer(path.parent / str(entry["path"]))
    size = entry.get("vocab_size")
    if not isinstance(size, int) or size <= 0:
        raise XmodelError(f"{path}: tokenizer.vocab_size must be a whole number, or give tokenizer.path")

    def texts() -> Iterator[str]:
        for name, table in tree["sources"].items():
            for document in read_documents(_files(path, name, "files", table.get("files"))):
                yield document_text(document)

    return train_unigram(texts(), size, folder)
