"""The folder in which a preparation lies until it is whole: never taken for one that it is not, never mixed of two."""

import shutil
from pathlib import Path
from typing import Any

from xmodel2.data.plan import Plan
from xmodel2.errors import XmodelError
from xmodel2.files import is_local, is_marked, mark_folder, read_json, write_json_atomic

_WORK = "data prepare, half done"


def work_path(out: Path, work: Path | None) -> Path:
    """Return the work folder, by default beside ``out``. Raises `XmodelError` if ``out`` has no beside."""
    if work is not None:
        return Path(work).resolve()
    if not is_local(out):
        raise XmodelError(f"--out {out} is in an object store: give a --work folder that all machines see")
    return out.with_name(f".{out.name}.work")


def check_apart(path: Path, plan: Plan, out: Path, work: Path) -> None:
    """Raise if an input lies in a folder that is about to be replaced, or one of the two folders in the other."""
    folders = {"--work": work, "--out": out} if is_local(out) else {"--work": work}
    if len(folders) == 2 and (out in (work, *work.parents) or work in out.parents):
        raise XmodelError(f"--work {work} and --out {out}: neither may lie in the other")
    preparation, root = plan.preparation, Path(plan.root)
    inputs = [path, *(Path(file) for task in plan.tasks for file in task.files if "://" not in file)]
    inputs += [root / name for name in (*preparation.decontaminate.dirs, preparation.tokenizer.path or "") if name]
    inputs += [root / str(source.dataset) for source in preparation.sources.values() if source.dataset]
    for option, folder in folders.items():
        for file in inputs:
            if folder in (file.resolve(), *file.resolve().parents):
                raise XmodelError(
                    f"{path}: {file} lies inside {option} {folder}, which would be replaced; choose another {option}"
                )


def open_work_folder(work: Path, mark: dict[str, Any]) -> None:
    """Make the work folder, or keep what an interrupted preparation of the same ``mark`` left in it.

    Raises `XmodelError` if it is a folder of anything else.
    """
    if work.exists() and any(work.iterdir()):
        if not is_marked(work, _WORK):
            raise XmodelError(
                f"{work}: is no work folder of `xmodel2 data prepare`; remove it, or choose another --work"
            )
        try:
            same = read_json(work / "plan.json") == mark
        except XmodelError:
            same = False
        published = (work / "logs" / "tokenize").exists() and not (work / "out").exists()
        if not same or published:  # other work, or the rest of work that is done
            shutil.rmtree(work)
    mark_folder(work, _WORK)
    write_json_atomic(work / "plan.json", mark)
