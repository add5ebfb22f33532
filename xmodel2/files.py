"""Atomic files: written beside, synced, then renamed, so that a reader sees the old or the new, never a half."""

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TextIO

from filelock import FileLock, Timeout

from xmodel2.errors import BusyError, XmodelError

LOCK_FILE = ".lock"
"""In a folder: held by the process that works in it."""
MARKER = ".xmodel2"
"""File that says which command made a folder."""


def check_folder(out: Path, overwrite: bool, command: str) -> None:
    """Raise `XmodelError` if ``out`` may not be (over)written.

    With ``overwrite`` a folder that has content must be marked as made by the same command, so that a mistyped path
    never deletes something else.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not overwrite:
        raise XmodelError(f"{out}: already exists; choose another --out, or give --overwrite")
    if not is_marked(out, command):
        raise XmodelError(f"{out}: was not made by `xmodel2 {command}`; remove it yourself, or choose another --out")


def is_marked(folder: Path, command: str) -> bool:
    """Tell whether a folder was made by a command."""
    marker = folder / MARKER
    return bool(marker.is_file() and marker.read_text(encoding="utf-8").strip() == command)


def mark_folder(out: Path, command: str) -> None:
    """Make the folder if needed, and mark it as made by a command."""
    out.mkdir(parents=True, exist_ok=True)
    (out / MARKER).write_text(command + "\n", encoding="utf-8")


def fresh_folder(out: Path, overwrite: bool, command: str) -> None:
    """Make ``out`` an empty, marked folder; raises as `check_folder`."""
    out = out.resolve()
    check_folder(out, overwrite, command)
    before = _move_aside(out)
    mark_folder(out, command)
    shutil.rmtree(before, ignore_errors=True)


@contextmanager
def replaced_folder(out: Path, overwrite: bool, command: str) -> Iterator[Path]:
    """Yield a new folder beside ``out`` that takes its place, whole, when the block ends well; raises as `check_folder`.

    If the block fails, ``out`` is as before. A link is followed: what it points at is replaced.
    """
    out = out.resolve()
    check_folder(out, overwrite, command)
    beside, lock = (out.with_name(f".{out.name}.{ending}") for ending in ("tmp", "lock"))
    lock.parent.mkdir(parents=True, exist_ok=True)
    alone = FileLock(lock)
    try:
        alone.acquire(timeout=0)
    except Timeout:
        if not lock.exists():  # that it could not be made is told alike
            raise XmodelError(
                f"{out}: {out.parent} takes no files, or another `xmodel2` has just ended there; try again, or choose another"
                " --out"
            ) from None
        raise XmodelError(f"{out}: another `xmodel2` writes it; wait for it, or choose another --out") from None
    try:
        shutil.rmtree(beside, ignore_errors=True)
        mark_folder(beside, command)
        yield beside
        check_folder(out, overwrite, command)  # something may have come there meanwhile
        publish_folder(beside, out)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
        lock.unlink(missing_ok=True)
        alone.release()


def publish_folder(folder: Path, out: Path) -> None:
    """Put a finished folder in the place of ``out``: here whole, by renaming.

    An object store has no renaming: index.json, without which the folder counts as unfinished, goes first and comes back
    last, and what else was there goes.
    """
    if not is_local(out):
        _upload(folder, out)
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    if folder.stat().st_dev != out.parent.stat().st_dev:  # a rename needs one file system
        beside = out.with_name(f".{out.name}.tmp")
        shutil.rmtree(beside, ignore_errors=True)
        folder = shutil.copytree(folder, beside)
        os.sync()
    before = _move_aside(out)
    os.replace(folder, out)
    fsync_dir(out.parent)
    shutil.rmtree(before, ignore_errors=True)


def _upload(folder: Path, out: Path) -> None:
    first = out / "index.json"
    if first.exists():
        first.unlink()
    before = {str(path) for path in out.rglob("*") if path.is_file()} if out.exists() else set()
    files = sorted((file for file in folder.rglob("*") if file.is_file()), key=lambda file: file.name == "index.json")
    for file in files:
        target = out.joinpath(*file.relative_to(folder).parts)
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(file, "rb") as source, target.open("wb") as handle:
            shutil.copyfileobj(source, handle)
        before.discard(str(target))
    for name in before:
        as_path(name).unlink()


def _move_aside(out: Path) -> Path:
    before = out.with_name(f".{out.name}.old")
    shutil.rmtree(before, ignore_errors=True)
    if out.exists():
        os.replace(out, before)
    return before


@contextmanager
def having(lock: Path, timeout: float = -1) -> Iterator[bool]:
    """Yield whether this process has the lock, after ``timeout`` seconds at most (-1: however long it takes).

    The kernel frees it however a process ends.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    held = FileLock(lock)
    try:
        held.acquire(timeout=timeout)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        held.release()


@contextmanager
def alone_in(out: Path) -> Iterator[None]:
    """Hold the folder's lock. Raises `BusyError` if another process holds it."""
    with having(out / LOCK_FILE, timeout=0) as alone:
        if not alone:
            raise BusyError(
                f"{out}: another `xmodel2` works in it; wait for it, or choose another --out (if none does, as can be after a"
                f" kill on a file system without locks, remove {out / LOCK_FILE})"
            )
        yield


def read_json(path: Path) -> Any:
    """Return the value in a file, or None if there is no file. Raises `XmodelError` naming a damaged one."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as error:
        raise XmodelError(f"{path}: not valid JSON: {error}; write it again, or remove it") from None


def append_json_line(path: Path, row: dict[str, Any]) -> None:
    """Add a row to a file of one JSON object a line (`append_json_lines`)."""
    append_json_lines(path, [row])


def append_json_lines(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Add rows to a file of one JSON object a line, synced; a line that a kill tore goes first. Processes take turns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock")), open(path, "a+b") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)
        file.write(b"".join(json.dumps(row).encode() + b"\n" for row in rows))
        file.flush()
        os.fsync(file.fileno())


class JsonLinesLog:
    """Rows for a file of one JSON object a line, written as they come: a kill loses at most those of ``seconds``."""

    def __init__(self, path: Path, seconds: float = 5.0) -> None:
        self._path, self._seconds = path, seconds
        self._rows, self._written = list[dict[str, Any]](), time.monotonic()

    def add(self, row: dict[str, Any]) -> None:
        """Take a row, and write what has come if the last time is long ago."""
        self._rows.append(row)
        if time.monotonic() - self._written > self._seconds:
            self.flush()

    def flush(self) -> None:
        """Write what is new."""
        if self._rows:
            append_json_lines(self._path, self._rows)
        self._rows, self._written = [], time.monotonic()


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """Return the rows of `append_json_line`, none if there is no file; a last line without an end is left out.

    Raises `XmodelError` naming file and line of any other that is damaged.
    """
    if not path.exists():
        return []
    rows = []
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], 1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise XmodelError(f"{path}, line {number}: not valid JSON ({error}); remove the line") from None
        if not isinstance(row, dict):
            raise XmodelError(f"{path}, line {number}: not an object; remove the line")
        rows.append(row)
    return rows


def fsync_dir(path: Path) -> None:
    """Make renames inside the directory durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def writing_atomic(path: Path) -> Iterator[IO[bytes]]:
    """Yield a file that becomes ``path`` when the block ends well, and leaves it as before otherwise.

    Makes parent folders. What goes to an object store is collected here first: there, an open file that fails is kept.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if not is_local(path):
        with tempfile.TemporaryFile() as collected:
            yield collected
            collected.seek(0)
            with path.open("wb") as handle:
                shutil.copyfileobj(collected, handle)
        return
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(beside, "wb") as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(beside, path)
    except OSError as error:
        if error.filename in (None, str(beside)):  # a full disk is told without one
            error.filename = str(path)
        raise
    finally:
        beside.unlink(missing_ok=True)
    fsync_dir(path.parent)


def in_utf(file: TextIO) -> bool:
    """Tell whether a text file takes all characters."""
    return (file.encoding or "").lower().startswith("utf")


def as_path(name: str | Path) -> Path:
    """Return a local path, or for a URL ("s3://bucket/folder") a `UPath` with the same methods.

    Raises `XmodelError` for a store that is unknown, or whose package is not installed.
    """
    if not isinstance(name, str):
        return name
    if "://" not in name:
        return Path(name)
    from upath import UPath  # takes a while to import, and most data is local

    try:
        path: Any = UPath(name)
    except (ImportError, ValueError) as error:
        raise XmodelError(f"{name}: cannot be opened ({error})") from None
    return Path(path.path) if is_local(path) else path


def is_local(path: Path) -> bool:
    """Tell a path of this machine's file system from one in an object store (a `UPath`)."""
    return isinstance(path, os.PathLike)


def write_bytes_atomic(path: Path, data: bytes | memoryview) -> None:
    """Write ``data`` (bytes) so that ``path`` is either as before or complete; makes parent folders."""
    with writing_atomic(path) as handle:
        handle.write(data)


def write_text_atomic(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    write_bytes_atomic(path, text.encode("utf-8"))


def write_json_atomic(path: Path, value: Any) -> None:
    """Write indented JSON atomically."""
    write_text_atomic(path, json.dumps(value, indent=1, ensure_ascii=False, sort_keys=False) + "\n")


def link_or_copy(source: Path, target: Path) -> None:
    """Let both names be one file, which nobody ever changes; a copy where that cannot be."""
    try:
        os.link(source.resolve(), target)
    except OSError:  # another disk, or a file system without links
        shutil.copyfile(source, target)
        with open(target, "rb") as file:
            os.fsync(file.fileno())


def sha256_file(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def file_record(path: Path) -> dict[str, Any]:
    """Return a file's size in bytes and its SHA-256, as manifests and indices have them."""
    return {"bytes": path.stat().st_size, "sha256": sha256_file(path)}


def files_below(folder: Path) -> list[tuple[str, int, float]]:
    """Return (file, bytes, time of change) of every file in a folder and below, sorted: another list is other content."""
    files = (file for file in folder.rglob("*") if file.is_file())
    return sorted((str(file), file.stat().st_size, file.stat().st_mtime) for file in files)
