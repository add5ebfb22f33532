"""The parts of one large JSON array or object, one after the other: a file of gigabytes is never whole in memory."""

import codecs
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from xmodel2.errors import XmodelError

_CHUNK = 1 << 20
_LONGEST = 1 << 26
"""Characters of one part: a damaged file must not be read to its end in search of a quotation mark."""
_SPACE = re.compile(r"[ \t\n\r]*")
_CUT = re.compile(r"Unterminated string|Invalid (\\u|control character|\\escape)")
"""What a decoder may say of a string that goes on in the next chunk, wherever the string began."""
_HALF = re.compile(r"\\u[dD][89a-fA-F]")
_decode = json.JSONDecoder().raw_decode


class Part(NamedTuple):
    """One element of an array, or one value of an object."""

    key: str
    """"" in an array."""
    value: Any
    begin: int
    """Where it stands in the file, in bytes, and how many of them it has."""
    length: int


def json_parts(file: BinaryIO, path: Path, of: str, digest: Any = None) -> Iterator[Part]:
    """Yield the parts of an array (``of`` "[]") or object ("{}"), and add the file's bytes to a `hashlib` digest, if one is given.

    Raises `XmodelError` naming the file and the number of the part (from 1) that is cut off or no JSON.
    """
    text = _Text(file, path, digest)
    if text.peek() != of[0]:
        raise XmodelError(f"{path}: must be a JSON {'array' if of == '[]' else 'object'}; fetch it again")
    text.skip()
    more = text.peek() != of[1]
    while more:
        key = ""
        if of == "{}":
            key = text.value().value
            if not isinstance(key, str) or text.peek() != ":":
                raise text.damaged("is not a name and a value")
            text.skip()
        yield text.value()._replace(key=key)
        if (mark := text.peek()) not in (",", of[1]):
            raise text.damaged(f"is not followed by ',' or '{of[1]}'")
        if more := mark == ",":
            text.skip()
            text.number += 1
    text.skip()
    if text.peek():
        raise XmodelError(f"{path}: goes on after its last '{of[1]}'; fetch it again")


def whole(value: Any, written: str) -> Any:
    """Return a value that JSON was read as, with "?" for half characters, which no file or page can hold."""
    if not _HALF.search(written):
        return value
    return json.loads(json.dumps(value, ensure_ascii=False).encode(errors="replace"))


class _Text:
    """A file's text around the place that is read."""

    def __init__(self, file: BinaryIO, path: Path, digest: Any) -> None:
        self._file, self._path, self._digest = file, path, digest
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._text, self._at, self._byte = "", 0, 0
        self._ended, self._broken = False, False
        self.number = 1
        """Of the part that is read."""

    def peek(self) -> str:
        """Return the next character that is no space, "" at the end."""
        while True:
            match = _SPACE.match(self._text, self._at)
            self._move(match.end() if match else self._at)
            if self._at < len(self._text):
                return self._text[self._at]
            if self._ended:
                return ""
            self._more()

    def skip(self) -> None:
        """Step over that character."""
        self._move(self._at + 1)

    def value(self) -> Part:
        """Return the next value."""
        self.peek()
        while True:
            try:
                value, end = _decode(self._text, self._at)
                break
            except json.JSONDecodeError as error:
                inside = error.pos < len(self._text) - 16 and not _CUT.match(error.msg)
                if inside or len(self._text) - self._at > _LONGEST:
                    raise self.damaged(f"is not valid JSON ({error.msg})") from None
                if self._ended:
                    raise self.damaged("is cut off") from None
                self._more()
            except (ValueError, RecursionError) as error:
                raise self.damaged(f"is not valid JSON ({error})") from None
        begin, value = self._byte, whole(value, self._text[self._at : end])
        self._move(end)
        return Part("", value, begin, self._byte - begin)

    def damaged(self, what: str) -> XmodelError:
        """Return an error that names the part."""
        return XmodelError(f"{self._path}: entry {self.number} {what}; fetch the file again")

    def _move(self, to: int) -> None:
        passed = self._text[self._at : to]
        self._byte += len(passed) if passed.isascii() else len(passed.encode())
        self._at = to

    def _more(self) -> None:
        if self._broken:
            raise self.damaged("is not UTF-8")
        chunk = self._file.read(max(_CHUNK, len(self._text) - self._at))
        if self._digest:
            self._digest.update(chunk)
        self._ended = not chunk
        try:
            more = self._decoder.decode(chunk, final=self._ended)
        except UnicodeDecodeError as error:  # what is before it is read first, so that the right part is named
            more, self._broken = error.object[: error.start].decode(), True
        self._text, self._at = self._text[self._at :] + more, 0
