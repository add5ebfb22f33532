"""Where metrics go beside metrics.jsonl: TensorBoard, Weights & Biases and trackio behind one small interface.

metrics.jsonl is the truth: a tracker that fails in mid-run is named once, left out from there on, and stops nothing.
Everything stays in the run directory, unless the user is logged in at W&B or has pointed trackio elsewhere.
"""

import hashlib
import os
import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from xmodel2.errors import XmodelError
from xmodel2.recipe import Recipe

PROJECT = "xmodel2"


class Tracker(ABC):
    """One place that takes numbers by step."""

    name: str

    def __init__(self, run_dir: Path, recipe: Recipe, start_step: int) -> None:
        """Raise `XmodelError` if the tracker's package is not installed."""
        self._works = True
        self._guarded(lambda: self._open(run_dir, recipe, start_step))

    def write(self, step: int, numbers: dict[str, float]) -> None:
        """Take the numbers of a step; never raises."""
        self._guarded(lambda: self._write(step, numbers))

    def close(self) -> None:
        """Write out what is left; never raises."""
        self._guarded(self._close)

    def _guarded(self, action: Any) -> None:
        if not self._works:
            return
        try:
            with redirect_stdout(sys.stderr):  # a command's stdout is its answer
                action()
        except XmodelError:
            raise
        except Exception as error:  # whatever a foreign package and the network may raise
            self._works = False
            print(
                f"{self.name} failed, and is left out from here on: {error}; metrics.jsonl has it all", file=sys.stderr
            )

    @abstractmethod
    def _open(self, run_dir: Path, recipe: Recipe, start_step: int) -> None: ...

    @abstractmethod
    def _write(self, step: int, numbers: dict[str, float]) -> None: ...

    @abstractmethod
    def _close(self) -> None: ...


class TensorBoard(Tracker):
    """Event files in RUN/tensorboard; of steps that a run makes again, the last are shown."""

    name = "tensorboard"

    def _open(self, run_dir: Path, recipe: Recipe, start_step: int) -> None:
        self._folder = str(run_dir / "tensorboard")
        self._go_on_at(start_step + 1)

    def _go_on_at(self, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # takes a while to import

        self._board, self._last = SummaryWriter(self._folder, purge_step=step, flush_secs=10), step

    def _write(self, step: int, numbers: dict[str, float]) -> None:
        if step < self._last:  # the run went back
            self._board.close()
            self._go_on_at(step)
        self._last = step
        for name, value in numbers.items():
            self._board.add_scalar(name, value, step)

    def _close(self) -> None:
        self._board.close()


class WandB(Tracker):
    """A W&B run in RUN/wandb: online if the user is logged in or WANDB_MODE says so, else offline for `wandb sync`."""

    name = "wandb"

    def _open(self, run_dir: Path, recipe: Recipe, start_step: int) -> None:
        wandb = _import("wandb")
        mode = os.environ.get("WANDB_MODE") or ("online" if wandb.login(prompt=False, verify=False) else "offline")
        self._run = wandb.init(
            project=PROJECT,
            name=recipe.name,
            id=_run_id(run_dir, recipe),
            resume="allow",
            dir=str(run_dir),
            config=asdict(recipe),
            mode=mode,
            settings={"console": "off"},
        )
        # Its own step may only grow; a run that resumes or goes back repeats some of ours.
        self._run.define_metric("*", step_metric="step")

    def _write(self, step: int, numbers: dict[str, float]) -> None:
        self._run.log({**numbers, "step": step})

    def _close(self) -> None:
        self._run.finish()


class Trackio(Tracker):
    """A trackio run in RUN/trackio (SQLite), or where TRACKIO_DIR or TRACKIO_SPACE_ID say.

    trackio reads TRACKIO_DIR when it is imported: a second run of one process goes to the folder of the first.
    """

    name = "trackio"

    def _open(self, run_dir: Path, recipe: Recipe, start_step: int) -> None:
        os.environ.setdefault("TRACKIO_DIR", str((run_dir / "trackio").resolve()))
        self._run = _import("trackio").init(
            project=PROJECT, name=_run_id(run_dir, recipe), resume="allow", config=asdict(recipe), embed=False
        )

    def _write(self, step: int, numbers: dict[str, float]) -> None:
        self._run.log(numbers, step=step)

    def _close(self) -> None:
        self._run.finish()


_TRACKERS: dict[str, type[Tracker]] = {kind.name: kind for kind in (TensorBoard, WandB, Trackio)}


def open_trackers(names: Sequence[str], run_dir: Path, recipe: Recipe, start_step: int) -> list[Tracker]:
    """Open the named trackers of a run that goes on after ``start_step``; only rank 0 should.

    Raises `XmodelError` if the package of one is not installed.
    """
    return [_TRACKERS[name](run_dir, recipe, start_step) for name in dict.fromkeys(names)]


def check_trackers(names: Sequence[str]) -> None:
    """Raise `XmodelError` if the package of one is not installed; TensorBoard's may be missing."""
    for name in names:
        if name != TensorBoard.name:
            _import(name)


def _import(package: str) -> ModuleType:
    try:
        return import_module(package)
    except ImportError as error:
        raise XmodelError(
            f"train.trackers: {package} cannot be imported ({error}); `pip install 'xmodel2[{package}]'`, or drop"
            f" '{package}' from train.trackers"
        ) from None


def _run_id(run_dir: Path, recipe: Recipe) -> str:
    """Return a name that is the run directory's own, so that a resumed run goes on in its curve."""
    place = hashlib.sha256(str(run_dir.resolve()).encode()).hexdigest()[:8]
    return f"{re.sub(r'[^A-Za-z0-9_.-]', '-', recipe.name)}-{place}"
