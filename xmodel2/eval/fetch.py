"""Write a local mirror of the harness's benchmark sets on a machine with a network, for machines without.

    OUT/arc_easy/test.jsonl.gz ...      one file a split, as `xmodel2.eval.mirror` reads them
    OUT/MANIFEST.json                   rows, bytes, SHA-256 and origin of each, written after it

Every file is written atomically and what is there whole is left as it is: a fetch that was stopped goes on where it was. A
file that someone changed is not overwritten. What the agent benchmarks need: `xmodel2.eval.agents.fetch_files`.
"""

import gzip
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from xmodel2.errors import XmodelError
from xmodel2.eval.definitions import part_files
from xmodel2.eval.hub import Hub, data_set
from xmodel2.eval.manifest import fetching_into, read_manifest, write_record
from xmodel2.eval.mirror import to_line
from xmodel2.eval.row_checks import Row
from xmodel2.eval.tasks import TASKS, Task
from xmodel2.files import file_record, write_bytes_atomic


def fetch(
    names: Sequence[str], out: Path, hub: Hub | None = None, progress: Callable[[str, int, int], None] | None = None
) -> dict[str, dict[str, Any]]:
    """Write the sets of the tasks, and return the manifest's record of each of their files.

    ``progress`` receives (task, data sets read, data sets), MMLU's subjects being one each.
    Raises `XmodelError` for a set that cannot be read or is not whole, and for a file in the way that is not ours.
    """
    hub, records = hub or Hub(), dict[str, dict[str, Any]]()
    with fetching_into(out):
        for task in map(TASKS.__getitem__, names):
            for split in task.splits:
                name = f"{task.directory}/{split}.jsonl.gz"
                records[name] = _fetch_file(task, split, out, name, hub, progress)
    return records


def _fetch_file(
    task: Task, split: str, out: Path, name: str, hub: Hub, progress: Callable[[str, int, int], None] | None
) -> dict[str, Any]:
    known, file = read_manifest(out)["files"].get(name), out / name
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
    write_record(out, name, record)
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
