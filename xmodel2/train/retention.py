"""Which checkpoints a run keeps: the latest, every so many steps, the stable stage's end, and what it may have to go back to."""

import os
import shutil
from collections.abc import Collection
from pathlib import Path

from xmodel2.errors import XmodelError
from xmodel2.train.checkpoint import checkpoint_steps, newest_valid, report_passed_over, step_of
from xmodel2.train.environment import first_step


def prune_checkpoints(run_dir: Path, keep: int, every: int, always: Collection[int], reach: int) -> None:
    """Delete all but the newest ``keep``, those at multiples of ``every`` (0: none), ``always``, and what the guard may go back
    to: those of the last ``reach`` steps and the one before them; and those that were set aside when it did, once the run has
    come past them.
    """
    steps = checkpoint_steps(run_dir)
    recent = [step for step in steps if step > steps[-1] - reach]
    kept = {*always, *recent, *steps[: len(steps) - len(recent)][-1:]}
    for step in steps[:-keep]:
        if step not in kept and not (every and step % every == 0):
            remove_folder(run_dir / "checkpoints" / f"step-{step}")
    for folder in (run_dir / "checkpoints").glob("unused-step-*"):
        unused = step_of(folder, "unused-step-")
        if steps and unused is not None and unused <= steps[-1]:
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


def checkpoint_before(run_dir: Path, step: int, every: int) -> Path | None:
    """Return what to go back to for trouble that began at ``step``; None is the very beginning, of a run that has had none yet.

    Raises `XmodelError` if all that is there is damaged.
    """
    before, complaints = newest_valid(run_dir, below=step)
    had_none = step <= every and first_step(run_dir) == 0 and not complaints
    if before is None and not had_none:  # a branch's beginning; or others are damaged, or were deleted by hand
        before, complaints = newest_valid(run_dir)
    if before is None and complaints:
        raise XmodelError(f"{run_dir}: went wrong, and no checkpoint to go back to is usable: {'; '.join(complaints)}")
    if before is not None:
        report_passed_over(complaints, before)
    return before
