"""A run from recipe to result: its directory, its data, its ranks, its model; then the loop.

    recipe -> ranks -> run directory -> checkpoint to go on from -> model laid over the ranks -> loop

All that a step depends on is the weights, the optimizer's moments, the guard's memory and the step number: the batch and the
rate are pure functions of it. So a run that was killed and resumed repeats the uninterrupted one bit for bit.
"""

import shutil
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import torch

from xmodel2.data.loader import Loader
from xmodel2.data.shards import ShardSet, open_shards
from xmodel2.errors import XmodelError
from xmodel2.files import alone_in, write_json_atomic, write_text_atomic
from xmodel2.recipe import Recipe, recipe_to_toml, replace
from xmodel2.train.agreement import on_each_rank, on_rank_0, rank
from xmodel2.train.allocator import keep_freed_memory
from xmodel2.train.branch import branched, open_run
from xmodel2.train.build import build_step
from xmodel2.train.checkpoint import load_training_state, set_aside
from xmodel2.train.device import pick_device, pick_precision, set_determinism
from xmodel2.train.environment import write_environment
from xmodel2.train.evaluation import Evaluate
from xmodel2.train.guard import Guard, read_memory
from xmodel2.train.init import open_with_weights, with_model_of
from xmodel2.train.loop import Loop, Parts, RunResult, Watch
from xmodel2.train.out_of_memory import explained
from xmodel2.train.run_dir import INIT_FILE, MIXTURE_FILE, RECIPE_FILE, check_data, check_run_dir
from xmodel2.train.samples import check_prompts
from xmodel2.train.trackers import check_trackers
from xmodel2.train.world import World, open_world


def train(
    recipe: Recipe,
    run_dir: Path,
    resume: bool = False,
    stop_after: int | None = None,
    branch_from: str | None = None,
    init_from: Path | None = None,
    profile: bool = False,
    watch: Watch | None = None,
    progress: bool = True,
    rollback: bool = True,
    evaluate: Evaluate | None = None,
) -> RunResult:
    """Train a recipe's two stages, alone or as one of the ranks that `torchrun` started.

    With ``resume``, go on from the newest valid checkpoint; ``stop_after`` saves and returns after that step, as a signal
    would; ``branch_from`` ("RUN@STEP") begins with the decay, at that checkpoint; ``init_from`` gives a new run the weights of
    a run or checkpoint; ``profile`` traces a few steps; ``watch`` sees each held-out measurement and may end the run;
    ``progress`` shows it; without ``rollback``, `DivergedError` is raised where the run would go back to a checkpoint;
    ``evaluate`` scores benchmarks as often as the recipe's `evaluation` says, which is passed over without it. Raises
    `XmodelError` if the run directory exists (without resume), the data or the layout does not fit, memory runs out, or a
    checkpoint cannot be written.
    """
    if branch_from is not None and init_from is not None:
        raise XmodelError(
            "--branch-from goes on with a run's own decay, --init-from begins anew with its weights; give one"
        )
    device, run_dir = pick_device(recipe.train.device), Path(run_dir)
    loop_of = partial(Loop, profile=profile, watch=watch, progress=progress, rollback=rollback, evaluate=evaluate)
    with open_world(recipe, device) as world, ExitStack() as alone:
        on_rank_0(partial(check_run_dir, run_dir, resume))
        if branch_from is not None:
            recipe = on_rank_0(partial(branched, recipe, branch_from, run_dir))
        recipe = on_rank_0(partial(with_model_of, recipe, init_from, run_dir))
        with explained(recipe, world.size):
            loop, start = _prepare(recipe, run_dir, resume, branch_from, init_from, world, device, loop_of, alone)
        with explained(loop.recipe, world.size):  # its precision and device are known now
            return loop.run(start, stop_after)


def _prepare(
    recipe: Recipe,
    run_dir: Path,
    resume: bool,
    branch_from: str | None,
    init_from: Path | None,
    world: World,
    device: torch.device,
    loop: Callable[[Parts, Guard], Loop],
    alone: ExitStack,
) -> tuple[Loop, int]:
    """Return the loop, and the step after which it begins; until ``alone`` ends, no other process trains this run."""
    set_determinism(recipe.train.deterministic, device)  # before the first product: cuBLAS decides once
    keep_freed_memory(device)
    shards = open_data(recipe)
    loader = make_loader(recipe, shards)
    on_rank_0(partial(check_trackers, recipe.train.trackers))
    on_rank_0(lambda: alone.enter_context(alone_in(run_dir)))
    opened = partial(open_run, recipe, run_dir, resume, shards.fingerprint, branch_from)
    if init_from is not None or (run_dir / INIT_FILE).exists():
        opened = partial(open_with_weights, recipe, run_dir, resume, shards, init_from)
    checkpoint, recipe = on_rank_0(opened)
    rows = recipe.train.micro_batch_size * recipe.data.sequence_length
    precision, peak = on_rank_0(partial(pick_precision, recipe.train.precision, device, rows, recipe.model))
    recipe = replace(recipe, {"train.precision": precision, "train.device": device.type})

    step, optimizer = build_step(recipe, precision, device, world)
    state: dict[str, Any] = {"step": 0}
    if checkpoint is not None:
        state = on_each_rank(partial(load_training_state, checkpoint, recipe, step.model, optimizer))
    start: int = state["step"]
    guard = Guard(recipe.guard, state.get("guard"), on_rank_0(partial(read_memory, run_dir)))
    on_rank_0(partial(_fill_run_dir, run_dir, recipe, shards, loader, start))
    on_rank_0(partial(write_environment, run_dir, start, device, world.size))
    parts = Parts(recipe, run_dir, shards, loader, world, device, step, optimizer, peak)
    return loop(parts, guard), start


def open_data(recipe: Recipe) -> ShardSet:
    """Open the shards on every rank; rank 0 compares the checksums for all. Raises `XmodelError` if they don't fit the recipe."""
    data = recipe.data

    def opened() -> ShardSet:
        shards = open_shards(data.dir, data.verify_checksums and rank() == 0, data.cache_dir)
        check_data(recipe, shards)
        check_prompts(recipe, shards.directory)
        return shards

    return on_each_rank(opened)


def _fill_run_dir(run_dir: Path, recipe: Recipe, shards: ShardSet, loader: Loader, start: int) -> None:
    set_aside(run_dir, above=start)
    write_json_atomic(run_dir / MIXTURE_FILE, loader.report(start * recipe.batch_rows))  # first: a mark of a run
    write_text_atomic(run_dir / RECIPE_FILE, recipe_to_toml(recipe))
    if (shards.directory / "tokenizer").is_dir() and not (run_dir / "tokenizer").exists():
        shutil.copytree(shards.directory / "tokenizer", run_dir / ".tokenizer.tmp", dirs_exist_ok=True)
        (run_dir / ".tokenizer.tmp").rename(run_dir / "tokenizer")


def make_loader(recipe: Recipe, shards: ShardSet) -> Loader:
    """Return the loader of a recipe's two stages; a source goes on in decay where it stopped in stable."""
    stages = [(recipe.stable_steps * recipe.batch_rows, recipe.stages.stable.mixture)]
    if recipe.decay_steps:
        stages.append((recipe.decay_steps * recipe.batch_rows, recipe.decay_mixture))
    data = recipe.data
    unread = not data.verify_checksums or rank() != 0  # whose copy may be another, and nobody's checksums
    return Loader(
        shards, stages, data.sequence_length, recipe.batch_rows, recipe.seed, data.loss_on, data.packing, unread
    )
