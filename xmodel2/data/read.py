"""Documents out of files: .jsonl, also .gz and .zst (one object a line), .parquet (one row each), .txt (one a file).

A path is local, or the URL of an object store ("s3://bucket/x.parquet"), read through fsspec. A record that is no document
is skipped and counted, or, strict, an error; either way it is named by file and line (of parquet, row).
"""

import gzip
import io
import json
from codecs import BOM_UTF8
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any

import pyarrow.parquet
import zstandard

from xmodel2.data.document import PLAIN, Document, document_text, field_columns, to_documents
from xmodel2.errors import XmodelError
from xmodel2.files import as_path
from xmodel2.recipe.preparation import FieldSettings

__all__ = ["SUFFIXES", "Document", "document_text", "locate_documents", "read_documents", "read_records"]

SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".json.gz", ".json.zst", ".parquet", ".txt")
_WINDOW = 1 << 31  # bytes, the most that `zstd --long` writes; unless told so, the library takes a sixteenth of it
_ROWS = 256  # of a parquet file in memory at once


def read_documents(
    paths: Iterable[Path | str],
    strict: bool = False,
    on_skip: Callable[[str], None] | None = None,
    fields: FieldSettings = PLAIN,
) -> Iterator[Document]:
    """Yield the documents of the files in order; ``on_skip`` receives "file:line: reason" for each skipped record.

    Raises `XmodelError` for a file that is missing, unreadable or of an unknown kind, and with ``strict`` for a bad record.
    """
    for _, document in locate_documents(paths, strict, on_skip, fields):
        yield document


def locate_documents(
    paths: Iterable[Path | str],
    strict: bool = False,
    on_skip: Callable[[str], None] | None = None,
    fields: FieldSettings = PLAIN,
) -> Iterator[tuple[str, Document]]:
    """Yield ("file:line", document) as `read_documents` does."""
    columns = field_columns(fields)
    records = (
        (f"{path}:{number}", record) for path in map(as_path, paths) for number, record in _records(path, columns)
    )
    return to_documents(records, fields, strict, on_skip)


def read_records(path: Path | str) -> Iterator[tuple[int, Any]]:
    """Yield (line, record) of a file. Raises `XmodelError` for a file, or a line, that cannot be read."""
    for number, record in _records(as_path(path)):
        try:
            yield number, record() if callable(record) else record
        except ValueError as error:
            raise XmodelError(f"{path}:{number}: {error}") from None


def check_kind(path: Path) -> None:
    """Raise `XmodelError` if a file's name does not end as one that can be read."""
    if not path.name.endswith(SUFFIXES):
        raise XmodelError(f"{path}: unknown kind of file; known are {', '.join(SUFFIXES)}")


def _records(path: Path, columns: set[str] | None = None) -> Iterator[tuple[int, Any]]:
    """Yield (line, record, or what parses it and raises ValueError); of parquet only those of ``columns``, if they are given."""
    check_kind(path)
    if path.is_dir():
        raise XmodelError(f"{path}: is a folder; name the files in it")
    try:
        with path.open("rb") as handle:
            if path.name.endswith(".parquet"):
                yield from _parquet_rows(handle, columns)
            elif path.name.endswith(".txt"):
                content = handle.read()
                yield 1, lambda: {"text": _decode(content.removeprefix(BOM_UTF8))}
            else:
                for number, raw in enumerate(_json_lines(path.name, handle), 1):
                    line = raw.removeprefix(BOM_UTF8) if number == 1 else raw
                    if line.strip():
                        yield number, lambda line=line: _parse(line)
    except FileNotFoundError:
        raise XmodelError(f"{path}: no such file") from None
    except Exception as error:  # of the format, of the compression, or of the object store, each with its own kinds
        raise XmodelError(f"{path}: cannot be read, or is damaged: {error}") from None


def _parquet_rows(handle: IO[bytes], columns: set[str] | None) -> Iterator[tuple[int, Any]]:
    file = pyarrow.parquet.ParquetFile(handle)
    # What nobody asked for takes time, and may be what Python has no type for.
    names = None if columns is None else [name for name in file.schema_arrow.names if name in columns]
    batches = file.iter_batches(batch_size=_ROWS, columns=names)
    yield from enumerate((row for batch in batches for row in _batch_rows(batch)), 1)


def _batch_rows(batch: pyarrow.RecordBatch) -> Sequence[Any]:
    """Return rows, or what makes them and raises ValueError."""
    try:
        rows: list[Any] = batch.to_pylist()
        return rows
    except UnicodeDecodeError:
        return [partial(_row, batch, number) for number in range(batch.num_rows)]


def _row(batch: pyarrow.RecordBatch, number: int) -> Any:
    try:
        return batch.slice(number, 1).to_pylist()[0]
    except UnicodeDecodeError as error:
        raise ValueError(f"not valid UTF-8 at byte {error.start}") from None


def _json_lines(name: str, handle: IO[bytes]) -> Iterator[bytes]:
    """Yield lines that end in \\n, \\r\\n or \\r, also mixed (inside JSON, each of them is escaped)."""
    lines: Iterable[bytes] = handle
    if name.endswith(".zst"):
        lines = _zstd_lines(handle)
    elif name.endswith(".gz"):
        lines = io.BufferedReader(gzip.open(handle, "rb"))
    for line in lines:
        yield from line.rstrip(b"\r\n").split(b"\r") if b"\r" in line else (line,)


def _zstd_lines(handle: IO[bytes]) -> Iterator[bytes]:
    """Yield the lines of all frames. Raises EOFError if the last frame is not whole, which zstandard's own reader ignores."""
    unpacker = zstandard.ZstdDecompressor(max_window_size=_WINDOW)
    frame, begun, parts = unpacker.decompressobj(), False, [b""]
    while chunk := handle.read(1 << 20):
        while chunk:
            begun = True
            first, *lines = frame.decompress(chunk).split(b"\n")
            parts.append(first)  # joined only when the line ends: a line may be as long as the file
            for line in lines:
                yield b"".join(parts)
                parts = [line]
            chunk = frame.unused_data if frame.eof else b""
            if frame.eof:
                frame, begun = unpacker.decompressobj(), False
    if begun:
        raise EOFError("the file ends in the middle of a compressed frame")
    yield b"".join(parts)


def _decode(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"not valid UTF-8 at byte {error.start}") from None


def _parse(raw: bytes) -> Any:
    try:
        return json.loads(_decode(raw))
    except json.JSONDecodeError as error:
        raise ValueError(f"not valid JSON: {error.msg} at column {error.colno}") from None
    except RecursionError:
        raise ValueError("not usable JSON: nested too deeply") from None
