"""Documents out of files: .jsonl, .jsonl.gz, .jsonl.zst (one object a line) and .txt (one document a file).

A document has `text`, or `messages` (a list of role and content). A line that is not one is skipped and counted, or, strict, an
error; either way it is named by file and line.
"""

import gzip
import io
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from xmodel2.errors import XmodelError

Document = dict[str, Any]
SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".txt")


def read_documents(
    paths: Iterable[Path], strict: bool = False, on_skip: Callable[[str], None] | None = None
) -> Iterator[Document]:
    """Yield the documents of the files in order; ``on_skip`` receives "file:line: reason" for each skipped line.

    Raises `XmodelError` for a file that is missing, unreadable or of an unknown kind, and with ``strict`` for a bad line.
    """
    for path in map(Path, paths):
        for number, raw in _lines(path):
            try:
                yield _parse(path, raw)
            except ValueError as error:
                message = f"{path}:{number}: {error}"
                if strict:
                    raise XmodelError(message) from None
                if on_skip:
                    on_skip(message)


def document_text(document: Document) -> str:
    """Return the text of a document, or of all its messages joined by newlines."""
    if "text" in document:
        return str(document["text"])
    return "\n".join(message["content"] for message in document["messages"])


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        with _open(path) as handle:
            if path.name.endswith(".txt"):
                yield 1, handle.read()
                return
            for number, line in enumerate(handle, 1):
                if line.strip():
                    yield number, line
    except FileNotFoundError:
        raise XmodelError(f"{path}: no such file") from None
    except (OSError, EOFError) as error:
        raise XmodelError(f"{path}: cannot be read: {error}") from None


def _open(path: Path) -> IO[bytes]:
    if not path.name.endswith(SUFFIXES):
        raise XmodelError(f"{path}: unknown kind of file; known are {', '.join(SUFFIXES)}")
    if path.is_dir():
        raise XmodelError(f"{path}: is a folder; name the files in it")
    if path.name.endswith(".gz"):
        return io.BufferedReader(gzip.open(path, "rb"))
    if path.name.endswith(".zst"):
        import zstandard

        try:
            stream = zstandard.ZstdDecompressor().stream_reader(open(path, "rb"), closefd=True)
        except zstandard.ZstdError as error:
            raise XmodelError(f"{path}: not valid zstd: {error}") from None
        return io.BufferedReader(stream, 1 << 20)
    return open(path, "rb")


def _parse(path: Path, raw: bytes) -> Document:
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"not valid UTF-8 at byte {error.start}") from None
    if path.name.endswith(".txt"):
        return {"text": text}
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"not valid JSON: {error.msg} at column {error.colno}") from None
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    if isinstance(value.get("text"), str):
        return value
    messages = value.get("messages")
    if isinstance(messages, list) and messages:
        if all(
            isinstance(m, dict) and isinstance(m.get("role"), str) and isinstance(m.get("content"), str)
            for m in messages
        ):
            return value
        raise ValueError("a message lacks role or content")
    raise ValueError("neither text nor messages")
