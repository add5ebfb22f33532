"""Atomic files: written beside, synced, then renamed, so that a reader sees the old or the new, never a half."""

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

from xmodel2.errors import XmodelError


def check_folder(out: Path, overwrite: bool, marker: str) -> None:
    """Raise `XmodelError` if ``out`` may not be (over)written.

    With ``overwrite`` a folder that has content must hold ``marker``, a name that the command itself writes, so that a
    mistyped path never deletes something else.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not overwrite:
        raise XmodelError(f"{out}: already exists; choose another --out, or give --overwrite")
    if not (out / marker).exists():
        raise XmodelError(f"{out}: has no {marker}, so this command did not write it; remove it yourself")


def fresh_folder(out: Path, overwrite: bool, marker: str) -> None:
    """Make ``out`` an empty folder, after `check_folder`."""
    check_folder(out, overwrite, marker)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)


def fsync_dir(path: Path) -> None:
    """Make renames inside the directory durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_bytes_atomic(path: Path, data: bytes) -> None:
    """Write ``data`` (bytes) so that ``path`` is either as before or complete; makes parent folders."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(beside, "wb") as handle:
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    fsync_dir(path.parent)


def write_text_atomic(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    write_bytes_atomic(path, text.encode("utf-8"))


def write_json_atomic(path: Path, value: Any) -> None:
    """Write indented JSON atomically."""
    write_text_atomic(path, json.dumps(value, indent=1, ensure_ascii=False, sort_keys=False) + "\n")


def sha256_file(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
