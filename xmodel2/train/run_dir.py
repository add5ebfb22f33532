"""Run directories: what is checked before one is opened, and what may differ between a run and its continuation."""

from pathlib import Path
from typing import Any

from xmodel2.data.shards import ShardSet
from xmodel2.errors import XmodelError
from xmodel2.files import LOCK_FILE
from xmodel2.recipe import Recipe, load_recipe, replace
from xmodel2.recipe.evaluation import EvaluationSettings
from xmodel2.recipe.search import SearchSettings
from xmodel2.recipe.settings import GuardSettings, ParallelSettings
from xmodel2.train.checkpoint import checkpoint_steps, newest_valid, read_state, report_passed_over
from xmodel2.train.metrics import METRICS_FILE

RECIPE_FILE = "recipe.toml"
MIXTURE_FILE = "mixture.json"
"""What each stage has taken from each source, as of the newest checkpoint."""
BRANCH_FILE = "branch.json"
"""Where a branch comes from: run and step."""
INIT_FILE = "init.json"
"""Whose weights a run began with."""

_OF_A_RUN = {MIXTURE_FILE, BRANCH_FILE, INIT_FILE, "checkpoints", METRICS_FILE}
"""One of these a run directory has, from its first moments on."""
_OF_OTHERS = {RECIPE_FILE, "index.json", "sources.toml", "tokenizer"}
"""What is a user's own where none of those is: recipes, data, a corpus. A batch system's log may lie there."""

FREE = {
    "name",
    "data.dir",
    "data.cache_dir",
    "data.verify_checksums",
    "data.sources",
    *(f"parallel.{name}" for name in ParallelSettings.__dataclass_fields__),
    "train.micro_batch_size",
    "train.device",
    "train.precision",
    "train.deterministic",
    "train.compile",
    "train.compile_mode",
    "train.attention",
    "train.loss_chunk_tokens",
    "train.activation_memory_budget",
    "train.checkpoint_every",
    "train.keep_checkpoints",
    "train.keep_checkpoint_every",
    "train.async_checkpoint",
    "train.heldout_every",
    "train.heldout_rows",
    "train.norms_every",
    "train.trackers",
    *(f"guard.{name}" for name in GuardSettings.__dataclass_fields__),
    *(f"evaluation.{name}" for name in EvaluationSettings.__dataclass_fields__),
    *(f"search.{name}" for name in SearchSettings.__dataclass_fields__),
}
"""Keys that may differ between a run and its continuation: they change how it is made or watched, not what it is to learn."""


def check_data(recipe: Recipe, shards: ShardSet) -> None:
    """Raise `XmodelError` if the recipe lacks a mixture or the data's tokenizer has more pieces than the model."""
    if not recipe.stages.stable.mixture:
        raise XmodelError("recipe: stages.stable.mixture is empty; name at least one source and its share")
    decay = recipe.stages.decay
    if decay.tokens and decay.sft_share > 0 and not decay.sft_mixture:
        raise XmodelError(
            f"recipe: stages.decay.sft_share is {decay.sft_share} but stages.decay.sft_mixture is empty; name instruction"
            " sources and their shares, or set stages.decay.sft_share = 0"
        )
    if shards.vocab_size > recipe.model.vocab_size:
        raise XmodelError(
            f"{recipe.data.dir}: its tokenizer has {shards.vocab_size} pieces but model.vocab_size is"
            f" {recipe.model.vocab_size}; set model.vocab_size={shards.vocab_size} or more"
        )


def check_run_dir(run_dir: Path, resume: bool) -> None:
    """Raise `XmodelError` if a folder is not one in which a run can begin or, with ``resume``, go on."""
    if run_dir.exists() and not run_dir.is_dir():
        raise XmodelError(f"{run_dir}: is a file; give --out a folder")
    held = {path.name for path in run_dir.iterdir()} if run_dir.exists() else set()
    if not resume and held - {LOCK_FILE}:
        raise XmodelError(f"{run_dir}: already exists; go on with --resume, or choose another --out")
    if held.isdisjoint(_OF_A_RUN) and not held.isdisjoint(_OF_OTHERS):
        raise XmodelError(f"{run_dir}: holds other files and is not a run directory; choose another --out")


def open_run_dir(recipe: Recipe, run_dir: Path, resume: bool, data: str) -> tuple[Path | None, Recipe]:
    """Return the checkpoint to go on from, if any, and the recipe with the run's own precision."""
    check_run_dir(run_dir, resume)  # once more: it was before this process had the folder to itself
    run_dir.mkdir(parents=True, exist_ok=True)
    if not resume or not (run_dir / RECIPE_FILE).exists():
        if checkpoint_steps(run_dir):
            raise XmodelError(
                f"{run_dir}: has checkpoints but no {RECIPE_FILE}; copy it back from one of them to resume"
            )
        return None, recipe
    before = load_recipe(run_dir / RECIPE_FILE)
    changed = [f"{key} was {a!r}, is {b!r}" for key, a, b in differences(before, recipe) if key not in FREE]
    if changed:
        raise XmodelError(
            f"{run_dir}: cannot resume with another recipe ({'; '.join(changed)}); use the run's own recipe.toml,"
            " or another --out for a new run"
        )
    if recipe.train.precision == "auto":
        recipe = replace(recipe, {"train.precision": before.train.precision})
    checkpoint, complaints = newest_valid(run_dir)
    if checkpoint is None and complaints:
        raise XmodelError(
            f"{run_dir}: no checkpoint is usable: {'; '.join(complaints)}; restore one from a copy, or begin again with"
            " another --out"
        )
    if checkpoint is not None and read_state(checkpoint)["data"] != data:
        raise XmodelError(
            f"{recipe.data.dir}: is not the data that {run_dir} was trained on (its index differs); point data.dir at that"
            " data, or choose another --out for a new run"
        )
    if checkpoint is not None:
        report_passed_over(complaints, checkpoint)
    return checkpoint, recipe


def differences(a: Any, b: Any, prefix: str = "") -> list[tuple[str, Any, Any]]:
    """Return (dotted key, value in a, value in b) of every setting that differs."""
    found = []
    for name in a.__dataclass_fields__:
        key, x, y = prefix + name, getattr(a, name), getattr(b, name)
        if hasattr(x, "__dataclass_fields__"):
            found += differences(x, y, key + ".")
        elif x != y and name != "preset":
            found.append((key, x, y))
    return found
