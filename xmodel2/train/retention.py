"""Which checkpoints a run keeps: the latest, what it may have to go back to, every so many steps, the stable stage's end."""

import os
import shutil
from collections.abc import Collection
from pathlib import Path

from xmodel2.train.checkpoint import checkpoint_steps


def prune_checkpoints(run_dir: Path, keep: int, every: int, always: Collection[int], reach: int = 0) -> None:
    """Delete all but the newest ``keep``, those at multiples of ``every`` (0: none), ``always``, and the newest of those
    ``reach`` steps or more before the newest of all, to which the guard may go back; and those that were set aside when it
    did, once the run has come past them.
    """
    steps = checkpoint_steps(run_dir)
    kept = {*always, *[step for step in steps if step <= steps[-1] - reach][-1:]}
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
