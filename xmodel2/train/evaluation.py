"""What a run can do besides: its whole weights go to a callback on rank 0, and nothing of the run changes.

    every rank: whole_tensors -> rank 0: Snapshot -> evaluate -> {"arc_easy": 0.31, ...} -> a line of metrics
                                                     take_samples -> what it writes

What evaluates stands further down the road (`xmodel2.eval.in_training`). Failures are told, and end nothing.
"""

import gc
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.distributed.tensor import DTensor

from xmodel2.errors import XmodelError
from xmodel2.recipe import Recipe
from xmodel2.train.agreement import rank
from xmodel2.train.metrics import written_lines
from xmodel2.train.step import Stopped


@dataclass(frozen=True)
class Snapshot:
    """A run between two steps."""

    recipe: Recipe
    """With the precision that was picked."""
    run_dir: Path
    step: int
    device: torch.device
    tensors: dict[str, torch.Tensor]
    """Every weight, whole, fp32, on the CPU. To be read only: in one process on a CPU they are the run's own."""


Alive = Callable[[str], None]
"""To be called every few seconds with what is being done; raises `Stopped` if the run is to stop."""
Evaluate = Callable[[Snapshot, Alive], dict[str, float]]
"""Returns the score of each task; called on rank 0 alone."""


@torch.no_grad()
def whole_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return every parameter whole in rank 0's CPU memory, nothing on other ranks; a collective, one tensor at a time."""
    found = {}
    for name, parameter in model.named_parameters():
        whole = parameter.full_tensor() if isinstance(parameter, DTensor) else parameter.detach()
        if rank() == 0:
            found[name] = whole.cpu()
    return found


def outcome(
    name: str, work: Callable[[Snapshot, Alive], Any], snapshot: Snapshot, alive: Alive
) -> dict[str, Any] | None:
    """Return {name: what ``work`` returns}, or {"error"} if it failed; None if the run is told to stop meanwhile.

    Random states are afterwards as they were, and a GPU has its memory back.
    """
    try:
        with _random_states_kept(snapshot.device):
            return {name: work(snapshot, alive)}
    except Stopped:
        return None
    except XmodelError as error:
        return {"error": str(error)}
    except Exception as error:  # whatever foreign packages, files and the network may raise: the run is worth more
        return {"error": f"{type(error).__name__}: {error}"}
    finally:
        gc.collect()  # models hold on to themselves through their hooks
        if snapshot.device.type == "cuda":
            torch.cuda.empty_cache()


def has_scores(run_dir: Path, step: int) -> bool:
    """Tell whether a step's evaluation is in the metrics, and the step was not made again since."""
    found = False
    for line in written_lines(run_dir):
        if line["step"] == step:
            kind = line.get("kind", "train")
            found = "scores" in line if kind == "evaluation" else found and kind not in ("train", "skipped")
    return found


@contextmanager
def _random_states_kept(device: torch.device) -> Iterator[None]:
    python, arrays = random.getstate(), np.random.get_state()
    with torch.random.fork_rng([torch.cuda.current_device()] if device.type == "cuda" else []):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(arrays)
