"""What `xmodel2 eval fetch` wrote into a folder: OUT/MANIFEST.json, and one writer at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from xmodel2.errors import XmodelError
from xmodel2.files import read_json, write_json_atomic

MANIFEST = "MANIFEST.json"


@contextmanager
def fetching_into(out: Path) -> Iterator[None]:
    """Make the folder, and hold it. Raises `XmodelError` if another fetch does."""
    out.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(out / ".fetch.lock", timeout=0):
            yield
    except Timeout:
        raise XmodelError(f"{out}: another `xmodel2 eval fetch` writes to it; wait until it is done") from None


def read_manifest(out: Path) -> dict[str, Any]:
    """Return the manifest, with no files if there is none yet. Raises `XmodelError` for one that is not ours."""
    manifest = read_json(out / MANIFEST) or {"made_by": "xmodel2 eval fetch", "files": {}}
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        raise XmodelError(f"{out / MANIFEST}: was not written by `xmodel2 eval fetch`; choose another --out")
    return manifest


def write_record(out: Path, name: str, record: dict[str, Any]) -> None:
    """Add the record of a file that is there, or replace it."""
    manifest = read_manifest(out)
    manifest["files"][name] = record
    write_json_atomic(out / MANIFEST, manifest)
