"""Seconds a token of our step and of the Trainer's, in alternating rounds of one process, on the same batches in memory.

    ours, n steps | Trainer, n steps | Trainer compiled, n steps | ours, n steps | ...   ratios are taken within a round

The Trainer's `train` is called once, as a user calls it, in a thread of its own that waits between its rounds.
"""

import os
import platform
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from itertools import cycle
from pathlib import Path
from queue import Queue
from typing import Any, Protocol

import torch
from torch.utils.data import Dataset
from transformers import Trainer, TrainerCallback

from xmodel2.data.batch import IGNORED, Batch
from xmodel2.data.shards import open_shards
from xmodel2.recipe import Recipe
from xmodel2.reproduction.peer_trainer import DEFAULT_RATE, Row, example, peer_model, peer_trainer
from xmodel2.train.build import build_step
from xmodel2.train.device import can_compile, pick_device, set_determinism
from xmodel2.train.optimizer import set_rate
from xmodel2.train.run import make_loader

ENDLESS = 10**9
_BATCHES = 32
_WARM_UP = 2
_SECONDS = 0.5
"""Least time of a round of ours."""


class Side(Protocol):
    """What makes steps when it is its turn."""

    def round(self, steps: int) -> float:
        """Make steps and return their seconds."""
        ...


def measure_speed(recipe: Recipe, out: Path, rounds: int = 7) -> dict[str, Any]:
    """Return seconds a token of each side and its time as a share of the peers', round by round; compilation apart."""
    device = pick_device(recipe.train.device)
    loader = make_loader(recipe, open_shards(recipe.data.dir, verify=False, cache_dir=recipe.data.cache_dir))
    batches = [loader.batch(step) for step in range(min(_BATCHES, recipe.total_steps))]
    with ExitStack() as stack:
        sides: dict[str, Side] = {"ours": OurSteps(recipe, batches, device)}
        first = {"ours": sides["ours"].round(1)}
        for name in ("eager", "compiled") if can_compile(device) else ("eager",):
            with _own_environment():
                peer = stack.enter_context(closing(TrainerSteps(recipe, batches, device, out, name == "compiled")))
                first[name] = peer.round(1)
            sides[name] = peer
        spent: dict[str, list[float]] = {name: [] for name in sides}
        steps = 4
        for number in range(_WARM_UP + rounds):
            for name, side in sides.items():
                seconds = side.round(steps)
                if number >= _WARM_UP:
                    spent[name].append(seconds / (steps * recipe.train.batch_tokens))
                elif name == "ours":
                    steps = max(4, min(64, round(steps * _SECONDS / seconds)))
    found: dict[str, Any] = {
        "rounds": rounds,
        "steps_a_round": steps,
        "machine": machine(device),
        "precision": recipe.train.precision,
        "seconds_a_token": {name: statistics.median(values) for name, values in spent.items()},
        "first_step_seconds": first,
    }
    for name in ("eager", "compiled"):
        found[name] = share_of(spent["ours"], spent[name]) if name in spent else None
    return found


def share_of(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, Any]:
    """Return our time as a share of theirs: the median of the rounds, and what all rounds lie between.

    >>> share_of([1.0, 2.0, 3.0], [2.0, 2.0, 2.0])
    {'factor': 1.0, 'low': 0.5, 'high': 1.5, 'by_round': [0.5, 1.0, 1.5]}
    """
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    return {"factor": statistics.median(ratios), "low": min(ratios), "high": max(ratios), "by_round": ratios}


def machine(device: torch.device) -> dict[str, Any]:
    """Return what the figures were measured on."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {"device": device.type, "name": name, "threads": torch.get_num_threads(), "torch": torch.__version__}


class OurSteps:
    """Steps as our loop makes them: rate, gradients of packed documents, their norm, clipping, update."""

    def __init__(self, recipe: Recipe, batches: Sequence[Batch], device: torch.device) -> None:
        self._recipe, self._device = recipe, device
        set_determinism(recipe.train.deterministic, device)
        self._step, self._optimizer = build_step(recipe, recipe.train.precision, device)
        self._batches = cycle(batches)

    def round(self, steps: int) -> float:
        """Make steps and return their seconds."""
        set_determinism(self._recipe.train.deterministic, self._device)
        began = _now(self._device)
        for _ in range(steps):
            batch = next(self._batches)
            set_rate(self._optimizer, self._recipe.train.learning_rate)
            _, norm = self._step.gradients(batch, float((batch.targets != IGNORED).sum()))
            float(norm)
            self._step.apply(self._optimizer, norm)
        seconds = _now(self._device) - began
        set_determinism(False, self._device)
        return seconds


class TrainerSteps(TrainerCallback):
    """One `Trainer.train`, which goes on for as many steps as it is told, then waits."""

    def __init__(
        self, recipe: Recipe, batches: Sequence[Batch], device: torch.device, out: Path, compiled: bool
    ) -> None:
        model, rows = peer_model(recipe.model, recipe.seed), _Rows(batches)
        trainer = peer_trainer(recipe, model, rows, DEFAULT_RATE, out, ENDLESS, self, compiled)
        self._device = device
        self._asked: Queue[int] = Queue()
        self._done: Queue[float | BaseException] = Queue()
        self._left, self._began = 0, 0.0
        self._thread = threading.Thread(target=self._run, args=(trainer,), daemon=True)
        self._thread.start()

    def round(self, steps: int) -> float:
        """Make steps and return their seconds; raises what the Trainer raised."""
        self._asked.put(steps)
        seconds = self._done.get()
        if isinstance(seconds, BaseException):
            raise seconds
        return seconds

    def close(self) -> None:
        """End the training."""
        self._asked.put(0)
        self._thread.join()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Wait for the first round."""
        self._next(control)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Count a step; after the round's last, wait for the next round."""
        self._left -= 1
        if not self._left:
            self._done.put(_now(self._device) - self._began)
            self._next(control)

    def _next(self, control: Any) -> None:
        self._left = self._asked.get()
        control.should_training_stop = not self._left
        self._began = _now(self._device)

    def _run(self, trainer: Trainer) -> None:
        try:
            trainer.train()
        except BaseException as error:  # whoever waits for the round raises it
            self._done.put(error)


class _Rows(Dataset[Row]):
    def __init__(self, batches: Sequence[Batch]) -> None:
        self._rows = [example(batch, place) for batch in batches for place in range(len(batch.inputs))]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, row: int) -> Row:
        return self._rows[row]


@contextmanager
def _own_environment() -> Iterator[None]:
    """Take back what `torch_compile=True` sets for the whole process, which would compile every later Trainer's model."""
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            if name.startswith("ACCELERATE_"):
                del os.environ[name]


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
