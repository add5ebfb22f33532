"""Documents of a Hugging Face data set: a hub id, a local folder of its files, or a folder that `save_to_disk` wrote.

A data set is read in parts, its own files, so that many tasks share it; nothing is downloaded ahead of reading.
"""

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from xmodel2.data.document import Document, to_documents
from xmodel2.errors import XmodelError
from xmodel2.files import files_below
from xmodel2.recipe.preparation import PreparedSource


def count_shards(source: PreparedSource, root: Path) -> int:
    """Return in how many parts the data set can be read. Raises `XmodelError` if it cannot be opened."""
    return max(1, int(_open(source, root).num_shards))


def pinned_dataset(source: PreparedSource, root: Path) -> tuple[PreparedSource, str]:
    """Return the source with the hub's commit as its revision, and what changes when a local folder's files do.

    So all tasks, also those of a later resumption, read the same data. Raises `XmodelError` if the hub does not say.
    """
    local = root / str(source.dataset)
    if local.is_dir():
        return source, str(files_below(local))
    try:
        from huggingface_hub import HfApi

        commit = HfApi().dataset_info(str(source.dataset), revision=source.revision).sha
        return dataclasses.replace(source, revision=commit), str(commit)  # type: ignore[type-var]
    except Exception as error:
        raise XmodelError(
            f"data set {source.dataset!r} (no folder {local}, so looked for on the hub): cannot be opened: {error}"
        ) from None


def read_dataset(
    source: PreparedSource,
    root: Path,
    part: tuple[int, int],
    strict: bool = False,
    on_skip: Callable[[str], None] | None = None,
) -> Iterator[tuple[str, Document]]:
    """Yield ("NAME:part:row", document) of one part (number, of how many); a bad row is named in the same way.

    Raises `XmodelError` if the data set cannot be opened, and with ``strict`` for a bad row.
    """
    return to_documents(_rows(source, root, part), source.fields, strict, on_skip)


def _rows(source: PreparedSource, root: Path, part: tuple[int, int]) -> Iterator[tuple[str, Any]]:
    stream = _open(source, root)
    if part[1] > 1:
        stream = stream.shard(num_shards=part[1], index=part[0])
    try:
        for number, row in enumerate(stream):
            yield f"{source.dataset}:{part[0]}:{number}", row
    except Exception as error:  # of the network, or of the file's format
        raise XmodelError(f"{source.dataset}: part {part[0]} cannot be read: {error}") from None


def _open(source: PreparedSource, root: Path) -> Any:
    try:
        import datasets
    except ImportError:
        raise XmodelError("sources: a dataset needs the package datasets: pip install 'xmodel2[data]'") from None
    name = str(source.dataset)
    local = root / name
    try:
        if (local / "dataset_info.json").exists() or (local / "dataset_dict.json").exists():
            saved = datasets.load_from_disk(str(_saved_split(local, source.split)))
            return saved.to_iterable_dataset(num_shards=max(1, len(saved.cache_files)))
        path = str(local) if local.is_dir() else name
        return datasets.load_dataset(path, source.subset, split=source.split, revision=source.revision, streaming=True)
    except Exception as error:  # of many kinds: no network, no such data set, no such split, no files in it
        place = local if local.is_dir() else f"data set {name!r} (no folder {local}, so looked for on the hub)"
        raise XmodelError(f"{place}: cannot be opened, split {source.split!r}: {error}") from None


def _saved_split(folder: Path, split: str) -> Path:
    """Return the folder of one split, which alone is opened. Raises ValueError if it is not there, or has no file with rows."""
    if (folder / "dataset_dict.json").exists():
        splits = json.loads((folder / "dataset_dict.json").read_text(encoding="utf-8"))["splits"]
        if split not in splits:
            raise ValueError(f"there are only {', '.join(splits)}")
        folder = folder / split
    if not json.loads((folder / "state.json").read_text(encoding="utf-8"))["_data_files"]:
        raise ValueError("it has no rows")
    return folder
