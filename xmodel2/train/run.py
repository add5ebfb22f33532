"""The run: both stages in one loop, from a recipe to checkpoints and metrics, exact under kill and resume.

    recipe -> run directory -> [batch(step) -> update -> metrics line -> (held-out) -> (checkpoint)] x steps

All that a step depends on is the weights, the optimizer's moments and the step number: the batch and the rate are pure
functions of it. So a run that was killed and resumed repeats the uninterrupted one bit for bit on the same hardware.
"""

import shutil
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from xmodel2.data.loader import Loader, prefetch
from xmodel2.data.shards import ShardSet, open_shards
from xmodel2.files import write_json_atomic, write_text_atomic
from xmodel2.model import Xmodel2, tensor_program
from xmodel2.model.count import flops_per_token
from xmodel2.recipe import Recipe, recipe_to_toml, replace
from xmodel2.train import checkpoint as checkpoints
from xmodel2.train.device import pick_device, pick_precision
from xmodel2.train.heldout import heldout_losses
from xmodel2.train.metrics import MetricsWriter
from xmodel2.train.optimizer import build_optimizer, set_rate
from xmodel2.train.progress import TrainProgress
from xmodel2.train.run_dir import MIXTURE_FILE, RECIPE_FILE, check_data, open_run_dir
from xmodel2.train.schedule import rate_at
from xmodel2.train.step import TrainStep


@dataclass(frozen=True)
class RunResult:
    """How a call of `train` ended."""

    run_dir: Path
    step: int
    finished: bool
    loss: float | None
    """Training loss of the last step, nats a token; None if no step was made."""


def train(recipe: Recipe, run_dir: Path, resume: bool = False, stop_after: int | None = None) -> RunResult:
    """Train a recipe's two stages; with ``resume``, go on from the newest valid checkpoint;
    ``stop_after`` saves and returns after that step, as a signal would.

    Raises `XmodelError` if the run directory exists (without resume), the data does not fit, or a checkpoint cannot be written.
    """
    run_dir = Path(run_dir)
    shards = open_shards(recipe.data.dir, recipe.data.verify_checksums, recipe.data.cache_dir)
    check_data(recipe, shards)
    loader = make_loader(recipe, shards)
    device = pick_device(recipe.train.device)
    checkpoint, recipe = open_run_dir(recipe, run_dir, resume, shards.fingerprint)
    rows = recipe.train.micro_batch_size * recipe.data.sequence_length
    precision, peak = pick_precision(recipe.train.precision, device, rows, recipe.model)
    recipe = replace(recipe, {"train.precision": precision, "train.device": device.type})
    if device.type == "cpu":
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]

    model = Xmodel2(recipe.model)
    tensor_program.initialise(model, recipe.seed)
    model.to(device).train()
    optimizer = build_optimizer(model.named_parameters(), recipe.model, recipe.train)
    start = checkpoints.load_training_state(checkpoint, recipe, model, optimizer)["step"] if checkpoint else 0
    checkpoints.set_aside(run_dir, above=start)
    write_text_atomic(run_dir / RECIPE_FILE, recipe_to_toml(recipe))
    write_json_atomic(run_dir / MIXTURE_FILE, loader.report(start * recipe.batch_rows))
    if (shards.directory / "tokenizer").is_dir() and not (run_dir / "tokenizer").exists():
        shutil.copytree(shards.directory / "tokenizer", run_dir / ".tokenizer.tmp", dirs_exist_ok=True)
        (run_dir / ".tokenizer.tmp").rename(run_dir / "tokenizer")
    loop = _Loop(recipe, run_dir, shards, loader, model, optimizer, peak)
    result = loop.run(start, stop_after)
    write_json_atomic(run_dir / MIXTURE_FILE, loader.report(result.step * recipe.batch_rows))
    return result


class _Loop:
    def __init__(
        self,
        recipe: Recipe,
        run_dir: Path,
        shards: ShardSet,
        loader: Loader,
        model: Xmodel2,
        optimizer: torch.optim.Optimizer,
        peak_flops: float,
    ) -> None:
        self.recipe, self.run_dir, self.shards, self.loader = recipe, run_dir, shards, loader
        self.model, self.optimizer, self.precision = model, optimizer, recipe.train.precision
        self.peak_flops = peak_flops
        self.flops_per_token = flops_per_token(recipe.model, recipe.data.sequence_length)
        self.step_fn = TrainStep(model, optimizer, recipe, self.precision)
        self._stop = threading.Event()

    def run(self, start: int, stop_after: int | None = None) -> RunResult:
        """Make the steps after ``start``; returns early, saved, on SIGINT or SIGTERM."""
        recipe, loss, step = self.recipe, None, start
        previous = self._catch_signals()
        metrics = MetricsWriter(self.run_dir, start)
        batches = prefetch(self.loader, start, recipe.total_steps)
        try:
            with TrainProgress(recipe, start) as progress:
                if start:
                    progress.say(f"{self.run_dir}: going on from step {start}")
                clock = time.perf_counter()
                for step, batch in enumerate(batches, start + 1):
                    rate = rate_at(recipe, step)
                    set_rate(self.optimizer, rate)
                    loss, norm = self.step_fn(batch)
                    now = time.perf_counter()
                    speed = recipe.train.batch_tokens / (now - clock)
                    line = self._line(step, loss, rate, norm, speed, now - clock)
                    metrics.write(line)
                    progress.update(step, line["stage"], loss, rate, speed, line["mfu"])
                    if self._heldout_due(step):
                        metrics.write(self._heldout(step))
                    stopping = self._stop.is_set() or step == stop_after
                    if stopping or self._checkpoint_due(step):
                        self._save(step)
                    if stopping:
                        progress.say(f"stopped at step {step}, saved; go on with --resume")
                        break
                    clock = time.perf_counter()
        finally:
            batches.close()
            metrics.close()
            for number, handler in previous.items():
                signal.signal(number, handler)
        return RunResult(self.run_dir, step, step >= recipe.total_steps, loss)

    def _line(self, step: int, loss: float, rate: float, norm: float, speed: float, seconds: float) -> dict[str, Any]:
        return {
            "step": step,
            "tokens": step * self.recipe.train.batch_tokens,
            "stage": stage_of(self.recipe, step),
            "loss": loss,
            "learning_rate": rate,
            "grad_norm": norm,
            "tokens_per_second": speed,
            "mfu": speed * self.flops_per_token / self.peak_flops,
            "seconds": seconds,
        }

    def _heldout_due(self, step: int) -> bool:
        every = self.recipe.train.heldout_every
        return bool(every and step % every == 0) or step in self._ends()

    def _checkpoint_due(self, step: int) -> bool:
        return step % self.recipe.train.checkpoint_every == 0 or step in self._ends()

    def _ends(self) -> set[int]:
        return {self.recipe.stable_steps, self.recipe.total_steps}

    def _heldout(self, step: int) -> dict[str, Any]:
        rows = self.recipe.train.heldout_rows
        losses = heldout_losses(self.model, self.shards, self.recipe, self.precision, rows)
        tokens = step * self.recipe.train.batch_tokens
        return {"step": step, "kind": "heldout", "tokens": tokens, "heldout": losses}

    def _save(self, step: int) -> None:
        state = {
            "tokens": step * self.recipe.train.batch_tokens,
            "stage": stage_of(self.recipe, step),
            "data": self.shards.fingerprint,
        }
        write_json_atomic(self.run_dir / MIXTURE_FILE, self.loader.report(step * self.recipe.batch_rows))
        checkpoints.save_checkpoint(self.run_dir, step, self.recipe, self.model, self.optimizer, state)
        checkpoints.prune_checkpoints(self.run_dir, self.recipe.train.keep_checkpoints, {self.recipe.stable_steps})

    def _catch_signals(self) -> dict[int, Any]:
        if threading.current_thread() is not threading.main_thread():
            return {}

        def stop(number: int, frame: FrameType | None) -> None:
            self._stop.set()

        return {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}


def stage_of(recipe: Recipe, step: int) -> str:
    """Return the stage of update ``step`` (from 1)."""
    return "stable" if step <= recipe.stable_steps else "decay"


def make_loader(recipe: Recipe, shards: ShardSet) -> Loader:
    """Return the loader of a recipe's two stages; a source goes on in decay where it stopped in stable."""
    stages = [(recipe.stable_steps * recipe.batch_rows, recipe.stages.stable.mixture)]
    if recipe.decay_steps:
        stages.append((recipe.decay_steps * recipe.batch_rows, recipe.decay_mixture))
    data = recipe.data
    return Loader(shards, stages, data.sequence_length, recipe.batch_rows, recipe.seed, data.loss_on, data.packing)
