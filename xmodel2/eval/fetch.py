"""Write a local mirror of the benchmark sets on a machine with a network, for machines without.

    OUT/arc_easy/test.jsonl.gz ...      one file a split, as `xmodel2.eval.mirror` reads them
    OUT/MANIFEST.json                   rows, bytes, SHA-256 and origin of each, written after it

Every file is written atomically and what is there whole is left as it is: a fetch that was stopped goes on where it was. A
file that someone changed is not overwritten.
"""

import gzip
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from xmodel2.errors import XmodelError
from xmodel2.eval.definitions import part_files
from xmodel2.eval.hub import Hub, data_set
from xmodel2.eval.mirror import to_line
from xmodel2.eval.row_checks import Row
from xmodel2.eval.tasks import TASKS, Task
from xmodel2.files import file_record, read_json, write_bytes_atomic, write_json_atomic

MANIFEST = "MANIFEST.json"


def fetch(
    names: Sequence[str], out: Path, hub: Hub | None = None, progress: Callable[[str, int, int], None] | None = None
) -> dict[str, dict[str, Any]]:
    """Write the sets of the tasks, and return the manifest's record of each of their files.

    ``progress`` receives (task, data sets read, data sets), MMLU's subjects being one each.
    Raises `XmodelError` for a set that cannot be read or is not whole, and for a file in the way that is not ours.
    """
    hub, records = hub or Hub(), dict[str, dict[str, Any]]()
    out.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(out / ".fetch.lock", timeout=0):
            for task in map(TASKS.__getitem__, names):
                for split in task.splits:
                    name = f"{task.directory}/{split}.jsonl.gz"
                    records[name] = _fetch_file(task, split, out, name, hub, progress)
    except Timeout:
        raise XmodelError(f"{out}: another `xmodel2 eval fetch` writes to it; wait until it is done") from None
    return records


def _fetch_file(
    task: Task, split: str, out: Path, name: str, hub: Hub, progress: Callable[[str, int, int], None] | None
) -> dict[str, Any]:
    manifest = read_json(out / MANIFEST) or {"made_by": "xmodel2 eval fetch", "files": {}}
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        raise XmodelError(f"{out / MANIFEST}: was not written by `xmodel2 eval fetch`; choose another --out")
    known, file = manifest["files"].get(name), out / name
    if known and file.is_file() and file_record(file).items() <= known.items():
        return dict(known)
    rows = _read(task, split, hub, progress)
    content = b"".join(map(to_line, rows))
    # Rows are compared, not bytes: another zlib makes other bytes of them.
    found = _unpacked(file)
    if found != content:
        if file.exists() and (found is not None or not known):
            whose = "was changed after" if known else "was not written by"
            raise XmodelError(f"{file}: {whose} `xmodel2 eval fetch`; move it away, or choose another --out")
        write_bytes_atomic(file, gzip.compress(content, mtime=0))
    path, configuration = data_set(task)
    record = {"rows": len(rows), **file_record(file), "data_set": path, "split": split}
    record["configuration"] = "each part" if task.part_fields else configuration
    manifest["files"][name] = record
    write_json_atomic(out / MANIFEST, manifest)
    return record


def _unpacked(file: Path) -> bytes | None:
    """Return what a file holds, None if there is none or it is damaged."""
    try:
        return gzip.decompress(file.read_bytes())
    except (OSError, EOFError, zlib.error):
        return None


def _read(task: Task, split: str, hub: Hub, progress: Callable[[str, int, int], None] | None) -> list[Row]:
    done, total = 0, len(part_files(task)) if task.part_fields else 1

    def on_part() -> None:
        nonlocal done
        done += 1
        if progress:
            progress(task.name, done, total)

    rows = hub.rows(task, split, on_part)
    official = task.splits[split]
    if len(rows) != official:
        raise XmodelError(
            f"{task.name}: {data_set(task)[0]} has {len(rows):,} rows of the split {split!r}, the official set has "
            f"{official:,}; nothing was written for it"
        )
    return rows
