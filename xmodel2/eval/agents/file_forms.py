"""What becomes of a file of agent data as its authors publish it: rows, the same file, or a folder of games.

Each form raises `XmodelError` with what is wrong; the caller knows which file it is.
"""

import gzip
import hashlib
import json
import re
import shutil
import stat
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from xmodel2.errors import XmodelError
from xmodel2.eval.agents.packed_rows import DAMAGE
from xmodel2.eval.mirror import read_rows, to_line
from xmodel2.eval.row_checks import Check, Row
from xmodel2.files import file_record, sha256_file, write_bytes_atomic

_LARGEST_GAME = 2**26
"""Bytes; those of ALFWorld have less than a hundredth of it."""

_CHUNK = 2**20


class Form(Protocol):
    """What a fetched file looks like."""

    def write(self, original: Path, target: Path) -> None:
        """Make the target of a downloaded file."""

    def count(self, target: Path) -> int:
        """Return how much is there, after a look at all of it."""

    def record(self, target: Path) -> dict[str, Any]:
        """Return bytes and SHA-256."""


@dataclass(frozen=True)
class Rows:
    """JSON lines, packed by gzip; ``convert`` makes them of the original's content."""

    convert: Callable[[bytes], list[Row]]
    fields: Mapping[str, Check]

    def write(self, original: Path, target: Path) -> None:
        """As `Form` has it."""
        try:
            rows = self.convert(original.read_bytes())
        except (ValueError, KeyError, TypeError, AttributeError, SyntaxError) as error:
            raise XmodelError(f"is damaged, or in another form than it was ({type(error).__name__}: {error})") from None
        write_bytes_atomic(target, gzip.compress(b"".join(map(to_line, rows)), mtime=0))

    def count(self, target: Path) -> int:
        """Return the number of rows; all have every field."""
        rows = read_rows(target)
        for number, row in enumerate(rows, 1):
            for name, check in self.fields.items():
                if allowed := check(row.get(name), row):
                    raise XmodelError(f"row {number}: field {name!r} must be {allowed}")
        return len(rows)

    def record(self, target: Path) -> dict[str, Any]:
        """As `Form` has it."""
        return file_record(target)


@dataclass(frozen=True)
class Same:
    """The file itself, known by its SHA-256."""

    sha256: str
    rows: int
    """What a file with that SHA-256 holds."""

    def write(self, original: Path, target: Path) -> None:
        """As `Form` has it; the original stays, too, until all is well."""
        _link(original, target)

    def count(self, target: Path) -> int:
        """Return the number that is known."""
        if (found := sha256_file(target)) != self.sha256:
            raise XmodelError(f"is damaged, or another version: SHA-256 {found[:16]}..., not {self.sha256[:16]}...")
        return self.rows

    def record(self, target: Path) -> dict[str, Any]:
        """As `Form` has it."""
        return file_record(target)


@dataclass(frozen=True)
class SameZip:
    """The archive itself, counted by its members of a name."""

    member: str
    """Pattern of the name."""

    def write(self, original: Path, target: Path) -> None:
        """As `Form` has it; the original stays, too, until all is well."""
        _link(original, target)

    def count(self, target: Path) -> int:
        """Return the number of members, all of which are whole."""
        with _opened(target) as archive:
            members = _safe_members(archive)
            for member in members.values():
                with _reading(archive, member) as handle:
                    while handle.read(_CHUNK):  # its end is where the checksum is compared
                        pass
            return sum(re.fullmatch(self.member, name) is not None for name in members)

    def record(self, target: Path) -> dict[str, Any]:
        """As `Form` has it."""
        return file_record(target)


@dataclass(frozen=True)
class Games:
    """ALFWorld's games of one split: SPLIT/TASK/TRIAL/game.tw-pddl of the archive, without the others."""

    split: str

    def write(self, original: Path, target: Path) -> None:
        """As `Form` has it."""
        wanted = re.compile(rf"(?:[^/]+/)*{self.split}/([^/]+/[^/]+/game\.tw-pddl)")
        with _opened(original) as archive:
            for name, member in _safe_members(archive).items():
                if found := wanted.fullmatch(name):
                    write_bytes_atomic(target / found[1], _content(archive, member))

    def count(self, target: Path) -> int:
        """Return the number of games, all of which are JSON objects with a problem."""
        files = self._files(target)
        for file in files:
            try:
                game = json.loads(file.read_bytes())
            except ValueError:
                game = None
            if not isinstance(game, dict) or not isinstance(game.get("pddl_problem"), str):
                raise XmodelError(f"{file.relative_to(target)} is no game of ALFWorld")
        return len(files)

    def record(self, target: Path) -> dict[str, Any]:
        """Return bytes of all, and the SHA-256 of their names' and contents' ones."""
        files = self._files(target)
        digest = hashlib.sha256()
        for file in files:
            digest.update(f"{file.relative_to(target).as_posix()} {sha256_file(file)}\n".encode())
        return {"bytes": sum(file.stat().st_size for file in files), "sha256": digest.hexdigest()}

    def _files(self, target: Path) -> list[Path]:
        return sorted(target.glob("*/*/game.tw-pddl"))


def _link(original: Path, target: Path) -> None:
    try:
        target.hardlink_to(original)
    except OSError:  # a file system without links
        shutil.copyfile(original, target)


def _opened(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except DAMAGE as error:
        raise XmodelError(f"is damaged, or no zip archive ({error})") from None


def _safe_members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Return the members by name. Raises `XmodelError` if one would go elsewhere than below a folder, or is a link."""
    for member in archive.infolist():
        name = member.filename
        outside = name.startswith("/") or "\\" in name or ":" in name or ".." in name.split("/")
        if outside or stat.S_ISLNK(member.external_attr >> 16):
            raise XmodelError(f"its member {name!r} points out of the archive; do not unpack this file")
    return {member.filename: member for member in archive.infolist()}


def _content(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    with _reading(archive, member) as handle:
        content = handle.read(_LARGEST_GAME + 1)
    if len(content) > _LARGEST_GAME:
        raise XmodelError(f"its member {member.filename!r} is larger than {_LARGEST_GAME:,} bytes, and no game")
    return content


@contextmanager
def _reading(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Iterator[IO[bytes]]:
    try:
        with archive.open(member) as handle:
            yield handle
    except DAMAGE as error:
        raise XmodelError(f"its member {member.filename!r} is damaged, or cannot be unpacked ({error})") from None
