"""Trials: recipes trained to be compared, alone in a run directory each, or many models of one shape as one.

recipes -> those of one shape together (search/fleet.py), the others one by one -> last held-out losses -> TrialResult
"""

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from xmodel2.data.loader import Loader
from xmodel2.data.shards import open_shards
from xmodel2.recipe import Recipe
from xmodel2.search.fleet import Fleet
from xmodel2.search.trial import TrialResult, Watch, last_heldout, mean_text_loss, no_heldout
from xmodel2.train import read_metrics, train
from xmodel2.train.allocator import keep_freed_memory
from xmodel2.train.device import pick_device, pick_precision, set_determinism
from xmodel2.train.guard import DivergedError
from xmodel2.train.run import make_loader
from xmodel2.train.run_dir import check_data, differences

__all__ = ["TrialResult", "Watch", "mean_text_loss", "train_trials"]

VARIED = {
    *("name", "seed", "stages.stable.mixture", "stages.decay.sft_share", "stages.decay.sft_mixture"),
    *("model.scale_emb", "model.dim_model_base", "model.scale_depth", "model.init_std"),
    *("model.parametrization", "model.rules_off"),
    *("train.learning_rate", "train.warmup_steps", "train.schedule", "train.decay_shape"),
    *("train.decay_half_life_steps", "train.final_learning_rate_share"),
    *("train.adam_beta1", "train.adam_beta2", "train.adam_eps", "train.weight_decay", "train.weight_decay_scaling"),
    *("train.optimizer", "train.muon_learning_rate", "train.muon_momentum", "train.max_grad_norm"),
    *("guard.window", "guard.max_z_score", "guard.rollback_after"),
}
"""Keys in which trials of one fleet may differ: they change no shape, and not when held-out losses are measured."""


def train_trials(recipes: Sequence[Recipe], out: Path, watch: Watch | None = None) -> list[TrialResult]:
    """Train recipes and return their results in order.

    Those that differ in `VARIED` keys only are trained together. One that is alone has the run directory ``out/NAME``, and
    goes on where it was interrupted. A trial that its guard would take back to a checkpoint has diverged.
    """
    results: dict[int, TrialResult] = {}
    for numbers in _fleets(recipes):
        forget_other_shapes(recipes[numbers[0]])
        if len(numbers) == 1:
            [number] = numbers
            results[number] = _alone(recipes[number], Path(out) / recipes[number].name, number, watch)
        else:
            found = _together([recipes[number] for number in numbers], numbers, watch)
            results.update(zip(numbers, found, strict=True))
    return [results[number] for number in range(len(recipes))]


def _fleets(recipes: Sequence[Recipe]) -> list[list[int]]:
    """Return the trials' numbers in groups that can be trained together."""
    groups: list[list[int]] = []
    for number, recipe in enumerate(recipes):
        for group in groups:
            first = recipes[group[0]]
            if _plain(recipe) and all(key in VARIED for key, _, _ in differences(first, recipe)):
                group.append(number)
                break
        else:
            groups.append([number])
    return groups


def _plain(recipe: Recipe) -> bool:
    layout = recipe.parallel
    ranks = layout.data_parallel_replicate * layout.tensor_parallel * layout.context_parallel
    return not recipe.train.float8 and ranks == 1 and layout.data_parallel_shard < 2


def _together(recipes: list[Recipe], numbers: list[int], watch: Watch | None) -> list[TrialResult]:
    first = recipes[0]
    device = pick_device(first.train.device)
    set_determinism(first.train.deterministic, device)
    keep_freed_memory(device)
    shards = open_shards(first.data.dir, first.data.verify_checksums, first.data.cache_dir)
    loaders: list[tuple[Any, Loader]] = []

    def loader_of(recipe: Recipe) -> Loader:
        key = (recipe.seed, recipe.stages)
        for other, loader in loaders:
            if other == key:
                return loader
        check_data(recipe, shards)
        loaders.append((key, make_loader(recipe, shards)))
        return loaders[-1][1]

    rows = first.train.micro_batch_size * first.data.sequence_length
    precision, _ = pick_precision(first.train.precision, device, rows, first.model)
    results = Fleet(recipes, shards, loader_of, precision, device).run(
        None if watch is None else lambda number, step, loss: watch(numbers[number], step, loss)
    )
    if any(not result.heldout and not result.ended for result in results):
        raise no_heldout(first)
    return results


_compiled: list[tuple[object, ...]] = []


def forget_other_shapes(recipe: Recipe) -> None:
    """Models of one shape share compiled code; that of other shapes must not add up to the compiler's limit."""
    model, rows = recipe.model, recipe.train.micro_batch_size
    sizes = (model.hidden_size, model.intermediate_size, model.num_attention_heads, model.num_key_value_heads)
    shape = (
        *sizes,
        model.num_hidden_layers,
        model.vocab_size,
        model.tie_word_embeddings,
        rows,
        recipe.data.sequence_length,
        recipe.train.precision,
    )
    if _compiled and shape != _compiled[-1]:
        torch._dynamo.reset()
    _compiled[:] = [shape]


def _alone(recipe: Recipe, run_dir: Path, number: int, watch: Watch | None) -> TrialResult:
    begin = time.perf_counter()

    def watched(step: int, heldout: dict[str, dict[str, Any]]) -> bool:
        return watch is not None and watch(number, step, mean_text_loss(heldout))

    try:
        result = train(recipe, run_dir, resume=True, watch=watched, progress=False, rollback=False)
    except DivergedError as error:
        return TrialResult(math.nan, seconds=time.perf_counter() - begin, ended=f"diverged: {error}")
    if not result.finished and not result.ended:
        raise KeyboardInterrupt
    heldout = last_heldout(read_metrics(run_dir), recipe)
    return TrialResult(
        mean_text_loss(heldout),
        {name: row["loss"] for name, row in heldout.items()},
        result.step,
        time.perf_counter() - begin,
        "" if result.finished else "pruned",
    )
