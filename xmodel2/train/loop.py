"""The loop: both stages, step by step, on one rank or on many.

    batch(step) -> gradients -> guard: go | skip | roll back -> update -> metrics line -> (held-out) -> (checkpoint)
    -> (benchmarks)

Every rank goes through the same calls with the same figures, so that all decide alike; rank 0 writes.
"""

import math
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from xmodel2.data.loader import IGNORED, Batch, Loader, prefetch
from xmodel2.data.shards import ShardSet
from xmodel2.errors import XmodelError
from xmodel2.files import write_json_atomic
from xmodel2.model import tensor_program
from xmodel2.model.count import flops_per_token
from xmodel2.recipe import Recipe
from xmodel2.train.agreement import on_each_rank, on_rank_0
from xmodel2.train.checkpoint import load_training_state, set_aside
from xmodel2.train.checkpoint_writer import CheckpointWriter
from xmodel2.train.device import matmul_rate, memory_in_use, nominal_flops
from xmodel2.train.evaluation import Alive, Evaluate, Snapshot, has_scores, outcome, whole_tensors
from xmodel2.train.guard import GUARD_FILE, DivergedError, Guard, batch_documents, passed_over_record, skip_record
from xmodel2.train.heldout import measure_heldout
from xmodel2.train.metrics import MetricsWriter
from xmodel2.train.norms import LayerNorms, norms_record
from xmodel2.train.optimizer import set_rate
from xmodel2.train.out_of_memory import shortage
from xmodel2.train.profile import StepProfiler
from xmodel2.train.progress import TrainProgress, repetitions
from xmodel2.train.retention import checkpoint_before
from xmodel2.train.run_dir import MIXTURE_FILE
from xmodel2.train.samples import take_samples
from xmodel2.train.schedule import rate_at, stage_of
from xmodel2.train.sharding import write
from xmodel2.train.step import Stopped, TrainStep
from xmodel2.train.sums import global_square_sum
from xmodel2.train.watchdog import Watchdog
from xmodel2.train.world import World


@dataclass(frozen=True)
class RunResult:
    """How a call of `train` ended."""

    run_dir: Path
    step: int
    finished: bool
    loss: float | None
    """Training loss of the last step, nats a token; None if no step was made."""
    ended: bool = False
    """Whether ``watch`` ended it."""


Watch = Callable[[int, dict[str, dict[str, Any]]], bool]
"""Called on every rank with (step, held-out losses by source) at each measurement; True ends the run, unsaved."""


@dataclass(frozen=True)
class Parts:
    """What the loop works with."""

    recipe: Recipe
    run_dir: Path
    shards: ShardSet
    loader: Loader
    world: World
    device: torch.device
    step: TrainStep
    optimizer: torch.optim.Optimizer
    peak_flops: float
    """Measured FLOP/s of one device."""


class Loop:
    """Makes steps until the run ends, a signal comes, or an error."""

    def __init__(
        self,
        parts: Parts,
        guard: Guard,
        profile: bool = False,
        watch: Watch | None = None,
        progress: bool = True,
        rollback: bool = True,
        evaluate: Evaluate | None = None,
    ) -> None:
        self.parts, self.recipe, self.guard, self.profile, self.watch = parts, parts.recipe, guard, profile, watch
        self._evaluate = evaluate
        self._shown, self._rollback = progress and parts.world.is_main, rollback
        self._ends = {self.recipe.stable_steps, self.recipe.total_steps}
        self._norms = LayerNorms(parts.step.model)
        self._stop = threading.Event()
        self._loss: float | None = None
        self._peak_flops, self._measured_again = parts.peak_flops, False
        self._ended, self._failure_told, self._unscored = False, False, False
        self._problem: Exception | None = None

    def run(self, start: int, stop_after: int | None = None) -> RunResult:
        """Make the steps after ``start``; returns early, saved, on SIGINT or SIGTERM."""
        parts, recipe, world = self.parts, self.recipe, self.parts.world
        step, stopped, self._stop_after = start, False, stop_after
        with ExitStack() as stack:
            stack.enter_context(self._signals())
            self.progress = stack.enter_context(TrainProgress(recipe, start, self._shown))
            self.dog = stack.enter_context(Watchdog(world.rank, world.size, world.store(), recipe.guard.hang_seconds))
            self.metrics = stack.enter_context(closing(self._metrics(start)))
            writer = CheckpointWriter(
                parts.run_dir, recipe, parts.step.model, parts.optimizer, always={recipe.stable_steps}
            )
            self.writer = stack.enter_context(closing(writer))
            self.profiler = stack.enter_context(StepProfiler(parts.run_dir, start, self.profile and world.is_main))
            if self._shown:
                for told in filter(None, (repetitions(parts.loader.epochs()), shortage(recipe, world.size))):
                    self.progress.say(told)
            if start:
                self.progress.say(f"{parts.run_dir}: going on from step {start}")
                if self._scores_due(start) and not on_rank_0(lambda: has_scores(parts.run_dir, start)):
                    self._benchmarks(start)  # it was stopped in the midst of them, or a branch begins
            while step < recipe.total_steps and not stopped:
                step, stopped = self._steps(step)
            self._together(0.0)
        finished = step >= recipe.total_steps and not self._unscored
        return RunResult(parts.run_dir, step, finished, self._loss, self._ended)

    def _steps(self, start: int) -> tuple[int, bool]:
        """Make steps from ``start`` on; return where it is now, and whether it was told to stop."""
        recipe, world = self.recipe, self.parts.world
        batches = prefetch(self.parts.loader, start, recipe.total_steps, world.part(recipe.batch_rows))
        saved = start
        with closing(batches):
            for step in range(start + 1, recipe.total_steps + 1):
                batch, tokens = self._next(step, batches)
                verdict = "go"
                if step in self.guard.passed_over:
                    self._write(passed_over_record(step, stage_of(recipe, step)))
                else:
                    verdict = self._step(step, batch, tokens * world.data[1] / world.size)
                if verdict == "roll back":
                    if not self._rollback:
                        raise DivergedError(
                            f"step {step}: bad again and again; the skipped steps in metrics.jsonl say how"
                        )
                    return self._roll_back(), False
                if verdict == "stopped":
                    return self._stopped(step - 1, saved)
                self.profiler.step()
                if self._due(step, recipe.train.heldout_every):
                    self._heldout(step)
                    if self._ended and step < recipe.total_steps:
                        return step, True
                due = step % recipe.train.checkpoint_every == 0 and not self.guard.in_trouble
                if due or step in self._ends:
                    saved = step if self._save(step) else saved
                if self._scores_due(step):
                    self._benchmarks(step)
                if step == self._stop_after and step < recipe.total_steps:
                    return self._stopped(step, saved)
        return recipe.total_steps, False

    def _next(self, step: int, batches: Generator[Batch, None, None]) -> tuple[Batch, float]:
        """Return this rank's rows of a step, and the loss tokens of all ranks' (of those that read the same, each)."""
        self.dog.beat(step, "waiting for data")
        self._clock = time.perf_counter()
        batch = None
        try:
            batch = next(batches)
        except Exception as error:
            self._problem = self._problem or error
        tokens = self._together(float((batch.targets != IGNORED).sum()) if batch is not None else 0.0)
        self._waited = time.perf_counter() - self._clock
        assert batch is not None
        return batch, tokens

    def _together(self, value: float) -> float:
        """Return the sum of a value over all ranks; raises on every rank what went wrong on any since the last call."""
        total, failed = self.parts.world.sum([value, float(self._problem is not None)])
        if failed:
            raise self._problem or XmodelError("another rank could not go on; its message says why")
        return total

    def _step(self, step: int, batch: Batch, loss_tokens: float) -> str:
        """Make one step, as far as the guard lets it; return the guard's verdict, or "stopped" if a signal came before."""
        recipe, optimizer, train = self.recipe, self.parts.optimizer, self.parts.step
        rate, stage = rate_at(recipe, step), stage_of(recipe, step)
        set_rate(optimizer, rate)
        self.dog.beat(step, "forward and backward")
        try:
            loss, norm = train.gradients(batch, loss_tokens, self._told_to_stop)
        except Stopped:
            train.discard(optimizer)
            return "stopped"
        grad_norm = float(norm)
        verdict = self.guard.judge(step, stage, loss, grad_norm)
        if verdict.action != "go":
            train.discard(optimizer)
            documents = batch_documents(self.parts.loader, step)
            self._write(skip_record(step, stage, verdict.reason, loss, grad_norm, documents))
            self.progress.say(f"step {step} skipped: {verdict.reason}")
            return verdict.action
        measured = bool(recipe.train.norms_every) and step % recipe.train.norms_every == 0
        if measured:
            self._norms.before_step(train.gradient_scale)
        self.dog.beat(step, "update")
        train.apply(optimizer, norm)
        seconds = time.perf_counter() - self._clock
        if measured:
            self._write(norms_record(step, self._norms.after_step()))
        line = self._line(step, stage, loss, rate, grad_norm, seconds)
        self._write(line)
        self.progress.update(step, stage, loss, rate, line["tokens_per_second"], line["mfu"], line.get("mfu_nominal"))
        self._loss = loss
        return verdict.action

    def _told_to_stop(self) -> bool:
        return self.parts.world.sum([float(self._stop.is_set())])[0] > 0

    def _stopped(self, step: int, saved: int) -> tuple[int, bool]:
        done = ", saved" if step == saved or self._save(step) else ""
        self.progress.say(f"stopped at step {step}{done}; go on with --resume")
        return step, True

    def _metrics(self, start: int) -> MetricsWriter:
        parts = self.parts
        trackers = self.recipe.train.trackers
        return on_each_rank(lambda: MetricsWriter(parts.run_dir, start, trackers, self.recipe, parts.world.rank))

    def _write(self, line: dict[str, Any]) -> None:
        """Write a line of metrics; if that fails, the next `_together` says so to all ranks."""
        try:
            self.metrics.write(line)
        except XmodelError as error:
            self._problem = self._problem or error

    def _line(self, step: int, stage: str, loss: float, rate: float, norm: float, seconds: float) -> dict[str, Any]:
        recipe, world = self.recipe, self.parts.world
        speed, length = recipe.train.batch_tokens / seconds, recipe.data.sequence_length
        reached = speed * flops_per_token(recipe.model, length) / world.size
        nominal = nominal_flops(self.parts.device, recipe.train.precision)
        line = {
            "step": step,
            "tokens": step * recipe.train.batch_tokens,
            "stage": stage,
            "loss": loss,
            "learning_rate": rate,
            "grad_norm": norm,
            "tokens_per_second": speed,
            "mfu": reached / self._peak(reached),
            "seconds": seconds,
            "loader_wait": self._waited,
            "memory_bytes": memory_in_use(self.parts.device),
        }
        if nominal:
            flops = flops_per_token(recipe.model, length, causal=False)
            line["mfu_nominal"] = speed * flops / (nominal * world.size)
        return line

    def _peak(self, reached: float) -> float:
        """Return the FLOP/s of a device, measured again, once, if a step ``reached`` more: others may have had it then."""
        if reached > self._peak_flops and not self._measured_again and self.parts.world.is_main:
            rows, self._measured_again = self.recipe.train.micro_batch_size * self.recipe.data.sequence_length, True
            again = matmul_rate(self.parts.device, self.recipe.train.precision, rows, self.recipe.model)
            self._peak_flops = max(again, self._peak_flops)
        return self._peak_flops

    def _roll_back(self) -> int:
        """Load the last checkpoint before the trouble, and go on without the batches that led into it."""
        parts, recipe = self.parts, self.recipe
        first = self.guard.to_pass_over()[0]
        self.dog.beat(first, "rolling back")
        self.writer.wait()
        checkpoint = on_rank_0(lambda: checkpoint_before(parts.run_dir, first, recipe.train.checkpoint_every))
        if checkpoint is None:
            state: dict[str, Any] = {"step": 0}
            tensor_program.initialise(parts.step.model, recipe.seed, write)  # in place: FSDP holds on to the storage
            parts.optimizer.state.clear()
        else:
            model, optimizer = parts.step.model, parts.optimizer
            state = on_each_rank(lambda: load_training_state(checkpoint, recipe, model, optimizer))
        step: int = state["step"]
        self.guard = self.guard.gone_back(step, state.get("guard"), lambda n: batch_documents(parts.loader, n))
        # In this order: a run that is killed in between rolls back again.
        on_rank_0(lambda: set_aside(parts.run_dir, above=step))
        memory = self.guard.memory()
        on_rank_0(lambda: write_json_atomic(parts.run_dir / GUARD_FILE, memory))
        self.progress.say(f"back to step {step}; steps {first} to {max(self.guard.passed_over)} are passed over")
        return step

    def _due(self, step: int, every: int) -> bool:
        return bool(every and step % every == 0) or step in self._ends

    def _heldout(self, step: int) -> None:
        parts, recipe = self.parts, self.recipe
        self.dog.beat(step, "held-out loss")
        losses = measure_heldout(
            parts.step.module, parts.shards, recipe, parts.world, parts.device, recipe.train.heldout_rows
        )
        tokens = step * recipe.train.batch_tokens
        self._write({"step": step, "kind": "heldout", "tokens": tokens, "heldout": losses})
        if recipe.evaluation.prompts and (found := self._aside(step, "samples", take_samples)):
            self._write({"step": step, "kind": "samples", "tokens": tokens, "stage": stage_of(recipe, step), **found})
            self._tell_failure(step, "taking samples", found)
        self._ended = self.watch is not None and self.watch(step, losses)

    def _scores_due(self, step: int) -> bool:
        every = self.recipe.evaluation.every
        return self._evaluate is not None and every > 0 and self._due(step, every)

    def _benchmarks(self, step: int) -> None:
        """Score the benchmarks on rank 0, while the others wait."""
        recipe, evaluate = self.recipe, self._evaluate
        assert evaluate is not None
        started = time.perf_counter()
        found = self._aside(step, "scores", evaluate)
        if found is None:
            self._unscored = True
            self.progress.say(f"step {step}: its evaluation was stopped; --resume goes on with it")
            return
        line = {"step": step, "kind": "evaluation", "tokens": step * recipe.train.batch_tokens}
        line |= {"stage": stage_of(recipe, step), **found, "seconds": time.perf_counter() - started}
        self._write(line)
        if "scores" in found:
            told = "  ".join(f"{task} {score:.3f}" for task, score in found["scores"].items())
            self.progress.say(f"step {step}: {told}  ({line['seconds']:.0f} s)")
        self._tell_failure(step, "its evaluation", found)

    def _aside(self, step: int, name: str, work: Callable[[Snapshot, Alive], Any]) -> dict[str, Any] | None:
        """Return the `outcome` of work on the weights of this step, done on rank 0 while the others wait."""
        parts = self.parts
        self.dog.beat(step, f"gathering weights for {name}")
        snapshot = Snapshot(self.recipe, parts.run_dir, step, parts.device, whole_tensors(parts.step.model))
        with self.dog.following_rank_0(step, f"waiting for rank 0's {name}"):
            return on_rank_0(lambda: outcome(name, work, snapshot, self._goes_on))

    def _tell_failure(self, step: int, what: str, found: dict[str, Any]) -> None:
        """Say once of a run that something beside it failed."""
        if "error" in found and not self._failure_told:
            self._failure_told = True
            self.progress.say(f"step {step}: {what} failed, and training goes on: {found['error']}")

    def _goes_on(self, what: str) -> None:
        """Show what an evaluation does. Raises `Stopped` if the run is told to stop."""
        self.dog.alive()
        self.progress.doing(f"evaluating {what}")
        if self._stop.is_set():
            raise Stopped

    def _save(self, step: int) -> bool:
        parts, recipe = self.parts, self.recipe
        self.dog.beat(step, "saving")
        if not math.isfinite(global_square_sum(list(parts.step.model.parameters()))):
            if step not in (recipe.total_steps, self._stop_after) and self._rollback:
                self.progress.say(f"step {step}: its weights are not finite, so they are not saved")
                return False
            raise DivergedError(
                f"{parts.run_dir}: its weights at step {step} are not finite, so they are not saved; begin again with"
                " a lower train.learning_rate or train.weight_decay, or look at the skipped steps in metrics.jsonl"
            )
        rows = step * recipe.batch_rows
        state = {
            "tokens": step * recipe.train.batch_tokens,
            "stage": stage_of(recipe, step),
            "data": parts.shards.fingerprint,
            "loader": {"seed": recipe.seed, "rows": rows},
            "guard": self.guard.state(),
        }
        on_rank_0(lambda: write_json_atomic(parts.run_dir / MIXTURE_FILE, parts.loader.report(rows)))
        self.writer.save(step, state)
        return True

    @contextmanager
    def _signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def stop(number: int, frame: FrameType | None) -> None:
            self._stop.set()
            if number == signal.SIGINT and self.parts.world.size == 1:
                signal.signal(signal.SIGINT, signal.default_int_handler)  # a second Ctrl-C does not wait for the save

        previous = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
