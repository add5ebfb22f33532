"""Documents out of files: .jsonl, .jsonl.gz, .jsonl.zst (one object a line) and .txt (one document a file).

A document has `text`, or `messages` (a list of role and content). A line that is not one is skipped and counted, or, strict, an
error; either way it is named by file and line.
"""

import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import zstandard

from xmodel2.errors import XmodelError
from xmodel2.tokenizer.load import ROLES, is_unicode

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
    if isinstance(document.get("text"), str):
        return str(document["text"])
    return "\n".join(message["content"] for message in document["messages"])


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        with _open(path) as handle:
            if path.name.endswith(".txt"):
                yield 1, handle.read()
                return
            for number, line in enumerate(_zstd_lines(handle) if path.name.endswith(".zst") else handle, 1):
                if line.strip():
                    yield number, line
    except FileNotFoundError:
        raise XmodelError(f"{path}: no such file") from None
    except (OSError, EOFError, zlib.error, zstandard.ZstdError) as error:
        raise XmodelError(f"{path}: cannot be read, or is damaged: {error}") from None


def _open(path: Path) -> IO[bytes]:
    if not path.name.endswith(SUFFIXES):
        raise XmodelError(f"{path}: unknown kind of file; known are {', '.join(SUFFIXES)}")
    if path.is_dir():
        raise XmodelError(f"{path}: is a folder; name the files in it")
    return io.BufferedReader(gzip.open(path, "rb")) if path.name.endswith(".gz") else open(path, "rb")


def _zstd_lines(handle: IO[bytes]) -> Iterator[bytes]:
    """Yield the lines of all frames. Raises EOFError if the last frame is not whole, which zstandard's own reader ignores."""
    frame, begun, rest = zstandard.ZstdDecompressor().decompressobj(), False, b""
    while chunk := handle.read(1 << 20):
        while chunk:
            begun = True
            *lines, rest = (rest + frame.decompress(chunk)).split(b"\n")
            yield from lines
            chunk = frame.unused_data if frame.eof else b""
            if frame.eof:
                frame, begun = zstandard.ZstdDecompressor().decompressobj(), False
    if begun:
        raise EOFError("the file ends in the middle of a compressed frame")
    yield rest


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
    except RecursionError:
        raise ValueError("not usable JSON: nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    if "messages" in value:
        _check_messages(value["messages"])
    elif not isinstance(value.get("text"), str):
        raise ValueError("neither text nor messages")
    if not is_unicode(document_text(value)):
        raise ValueError("a lone surrogate, which is no Unicode text")
    return value


def _check_messages(messages: Any) -> None:
    if not isinstance(messages, list) or not messages:
        raise ValueError("messages is not a list of at least one")
    for number, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("content"), str):
            raise ValueError(f"messages[{number}] lacks content")
        if message.get("role") not in ROLES:
            raise ValueError(f"messages[{number}].role is {message.get('role')!r}, not one of {', '.join(ROLES)}")
        if message["role"] == "system" and number:
            raise ValueError(f"messages[{number}]: a system message must come first")
