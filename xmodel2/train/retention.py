"""Which checkpoints a run keeps: the latest, every so many steps, the stable stage's end, and those that others branched from."""

import os
import re
import shutil
from collections.abc import Collection
from pathlib import Path

from xmodel2.errors import XmodelError
from xmodel2.files import read_json, write_json_atomic
from xmodel2.train.checkpoint import checkpoint_steps

BRANCHES = "branches"
"""Folder of a run with a note for each run that branched from it; a note that is removed keeps nothing any more."""


def prune_checkpoints(run_dir: Path, keep: int, every: int, always: Collection[int]) -> None:
    """Delete all but the newest ``keep``, those at multiples of ``every`` (0: none), ``always``, and what branches need;
    and those that were set aside when the run went back, once it has come past them.
    """
    kept = {*always, *branched_steps(run_dir)}
    steps = checkpoint_steps(run_dir)
    for step in steps[:-keep]:
        if step not in kept and not (every and step % every == 0):
            remove_folder(run_dir / "checkpoints" / f"step-{step}")
    for folder in (run_dir / "checkpoints").glob("unused-step-*"):
        if steps and int(folder.name.rpartition("-")[2]) <= steps[-1]:
            remove_folder(folder)


def remove_folder(checkpoint: Path) -> None:
    """Delete a checkpoint; hidden first, so that a kill leaves no half of it under its name."""
    hidden = checkpoint.with_name(f".{checkpoint.name}.old")
    os.replace(checkpoint, hidden)
    shutil.rmtree(hidden)


def remove_unfinished(run_dir: Path) -> None:
    """Delete what a kill left of a checkpoint that was being written or deleted."""
    for folder in (run_dir / "checkpoints").glob(".*step-*"):
        shutil.rmtree(folder, ignore_errors=True)


def note_branch(run_dir: Path, step: int, branch: Path) -> None:
    """Write down in a run that another begins at ``step``, which keeps that checkpoint. Raises `XmodelError`."""
    name = re.sub(r"[^\w.-]+", "-", str(branch.resolve())).strip("-")
    try:
        write_json_atomic(run_dir / BRANCHES / f"{name}.json", {"step": step, "run": str(branch.resolve())})
    except OSError as error:
        raise XmodelError(
            f"{run_dir}: cannot be noted as what {branch} branches from ({error}), so that its checkpoint stays; make the"
            " folder writable, or copy the run"
        ) from None


def branched_steps(run_dir: Path) -> set[int]:
    """Return the steps at which other runs begin."""
    return {read_json(path)["step"] for path in (run_dir / BRANCHES).glob("*.json")}
