"""JSON values out of files as they go around: JSON lines or one JSON array, as they are or in gzip, bzip2, zstd, tar or zip.

Read one after another, whatever the file's name says it is: a dump need not fit into memory.
"""

import bz2
import gzip
import io
import json
import lzma
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import zstandard

from xmodel2.errors import XmodelError
from xmodel2.eval.agents.json_parts import json_parts

DATA_NAME = re.compile(r"wiki_\d+|.+\.(jsonl?|gz|bz2|zst|zip|tar)")
"""Names of files that are looked for in folders and archives."""
DAMAGE = (EOFError, OSError, RuntimeError, ValueError, zlib.error, lzma.LZMAError, zipfile.BadZipFile)
"""What Python raises for packed content that is damaged, encrypted, or packed in a way that it does not know."""


def packed_rows(file: Path, on_row: Callable[[int], None] | None = None) -> Iterator[tuple[str, Any]]:
    """Yield (place, value) of the lines or the array in a file and in the files in it; the place names file and line.

    ``on_row`` gets the bytes read so far. Raises `XmodelError` naming file and line of what is damaged.
    """
    place = "its beginning"
    with open(file, "rb") as raw:
        try:
            for place, row in _rows(str(file), raw):
                yield place, row
                if on_row:
                    on_row(raw.tell())
        except (*DAMAGE, zstandard.ZstdError, tarfile.TarError) as error:
            raise XmodelError(
                f"{file}: damaged, or not whole, after {place.rpartition(', ')[2]} ({error}); get it again"
            ) from None


def _rows(name: str, raw: IO[bytes]) -> Iterator[tuple[str, Any]]:
    for member, stream in _unpacked(name, raw):
        array = stream.peek(64).lstrip().startswith(b"[")
        yield from _elements(member, stream) if array else _lines(member, stream)


def _unpacked(name: str, raw: Any) -> Iterator[tuple[str, io.BufferedReader]]:
    """Yield (name, content) of a file, or of each file in it."""
    stream = io.BufferedReader(raw, 1 << 16)
    head = stream.peek(512)
    if head.startswith(b"\x1f\x8b"):
        yield from _unpacked(name, gzip.GzipFile(fileobj=stream))
    elif head.startswith(b"BZh"):
        yield from _unpacked(name, bz2.BZ2File(stream))
    elif head.startswith(b"\x28\xb5\x2f\xfd"):
        yield from _unpacked(name, _ZstdFile(stream))
    elif head.startswith(b"PK\x03\x04"):
        with zipfile.ZipFile(stream) as archive:
            for member in archive.infolist():
                if _is_member(member.filename):
                    yield from _unpacked(f"{name}/{member.filename}", archive.open(member))
    elif head[257:262] == b"ustar":
        with tarfile.open(fileobj=stream, mode="r|") as tape:
            for entry in tape:
                if entry.isfile() and _is_member(entry.name):
                    yield from _unpacked(f"{name}/{entry.name}", tape.extractfile(entry))
    else:
        yield name, stream


class _ZstdFile(io.RawIOBase):
    """Frames one after another. zstandard's own reader takes a file that ends in the middle of one for whole."""

    def __init__(self, packed: io.BufferedReader) -> None:
        self._packed, self._text = packed, b""
        self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._begun = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer. Raises EOFError at the end of a file that has no whole last frame."""
        while not self._text:
            rest = self._frame.unused_data if self._frame.eof else b""
            if self._frame.eof:
                self._frame, self._begun = zstandard.ZstdDecompressor().decompressobj(), False
            chunk = rest or self._packed.read(1 << 16)
            if not chunk:
                if self._begun:
                    raise EOFError("ends in the middle of a compressed frame")
                return 0
            self._begun = True
            self._text = self._frame.decompress(chunk)
        count = min(len(buffer), len(self._text))
        buffer[:count], self._text = self._text[:count], self._text[count:]
        return count


def _is_member(name: str) -> bool:
    parts = Path(name).parts
    hidden = any(part.startswith((".", "__")) for part in parts)
    return bool(parts) and DATA_NAME.fullmatch(parts[-1]) is not None and not hidden


def _lines(name: str, stream: io.BufferedReader) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(stream, 1):
        if line.strip():
            try:
                yield f"{name}, line {number}", json.loads(line)
            except (ValueError, RecursionError) as error:
                raise XmodelError(f"{name}, line {number}: not valid JSON ({error})") from None


def _elements(name: str, stream: io.BufferedReader) -> Iterator[tuple[str, Any]]:
    for number, part in enumerate(json_parts(stream, Path(name), "[]"), 1):
        yield f"{name}, entry {number}", part.value
