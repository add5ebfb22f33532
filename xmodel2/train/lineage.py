"""Where a run's first weights came from, by what it and those before it wrote down."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xmodel2.errors import XmodelError
from xmodel2.files import read_json
from xmodel2.train.checkpoint import STATE_FILE, checkpoint_steps
from xmodel2.train.run_dir import BRANCH_FILE, INIT_FILE


def imported_before(run: Path) -> tuple[int, Mapping[str, Any]] | None:
    """Return step and origin of the imported model that a run, or one it branched from, went on from; None if there is none."""
    for step in checkpoint_steps(run):
        state = read_json(run / "checkpoints" / f"step-{step}" / STATE_FILE) or {}
        if "imported" in state:
            return step, state["imported"]
    if imported := weights_of(run).get("imported"):
        return 0, imported
    note = read_json(run / BRANCH_FILE)
    return imported_before(Path(note["run"])) if note else None


def weights_of(run: Path | None) -> Mapping[str, Any]:
    """Return what a run, or one it branched from, says of the weights that it began with; nothing if they were drawn.

    Raises `XmodelError` if the file that says so is damaged.
    """
    if run is None:
        return {}
    found = read_json(run / INIT_FILE)
    if found is not None:
        if not (isinstance(found, dict) and isinstance(found.get("from"), str)):
            raise XmodelError(f"{run / INIT_FILE}: wants in 'from' whose weights this run began with; restore it")
        return found
    note = read_json(run / BRANCH_FILE)
    return weights_of(Path(note["run"])) if note else {}
