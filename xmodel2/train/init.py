"""A run that begins with the weights of another: fine-tuning, or going on with other data.

    train chat.toml --init-from runs/base   ->   checkpoints/step-0 of those weights; then both stages of chat.toml

Nothing but the weights comes over: steps, rates, moments and data begin anew. Their files are linked; neither run needs the
other from there on.
"""

import dataclasses
from pathlib import Path
from typing import Any

from xmodel2.data.shards import ShardSet
from xmodel2.errors import XmodelError
from xmodel2.files import sha256_file, write_json_atomic
from xmodel2.recipe import ModelSettings, Recipe, load_recipe, replace
from xmodel2.train.checkpoint import RECIPE_FILE, checkpoint_steps, find_checkpoint, read_state, run_of
from xmodel2.train.checkpoint_writer import take_over
from xmodel2.train.lineage import imported_before, weights_of
from xmodel2.train.run_dir import INIT_FILE, differences, open_run_dir

_MAY_DIFFER = {"max_position_embeddings", "init_std"}
"""Settings of the model that change nothing of what its weights are."""


def with_model_of(recipe: Recipe, source: Path | None, run_dir: Path) -> Recipe:
    """Return the recipe with the model of a run or checkpoint, if there is one; what it says itself must agree.

    A run that has begun with weights needs the source no more. Raises `XmodelError` if the recipe's model is another.
    """
    if source is None and not (run_dir / INIT_FILE).exists():
        return recipe
    if checkpoint_steps(run_dir) and (run_dir / RECIPE_FILE).exists():
        source = run_dir
    if source is None:
        return recipe
    if not (source / RECIPE_FILE).exists():
        source = find_checkpoint(source)  # which says what is wrong
    there = load_recipe(source / RECIPE_FILE).model
    said = {key: value for key, _, value in differences(ModelSettings(), recipe.model)}
    if said.get("vocab_size", 0) < there.vocab_size:  # rows may be more than pieces
        said.pop("vocab_size", None)
    changed = [
        f"{key} is {getattr(there, key)!r} there and {value!r} here"
        for key, value in said.items()
        if key not in _MAY_DIFFER and value != getattr(there, key)
    ]
    if changed:
        raise XmodelError(
            f"{source}: its model is another than the recipe's ({'; '.join(changed)}); leave these out of the recipe's [model]"
        )
    own = {key: value for key, value in said.items() if key in _MAY_DIFFER}
    return replace(recipe, {"model": dataclasses.asdict(there) | own})


def open_with_weights(
    recipe: Recipe, run_dir: Path, resume: bool, shards: ShardSet, init_from: Path | None
) -> tuple[Path | None, Recipe]:
    """Open a run directory as `open_run_dir` does; one without a checkpoint gets one of the weights of ``init_from``.

    Raises `XmodelError` if the run began otherwise, or the data was made with another tokenizer than the weights'.
    """
    note = weights_of(run_dir) if (run_dir / INIT_FILE).exists() else {}
    own, recipe = open_run_dir(recipe, run_dir, resume, shards.fingerprint)
    if own is not None and not note:
        raise XmodelError(f"{run_dir}: did not begin with the weights of another run; choose another --out")
    if note and init_from is not None and note["from"] != str(init_from.resolve()):
        raise XmodelError(
            f"{run_dir}: began with the weights of {note['from']}; go on without --init-from, or choose another --out"
        )
    if own is not None:
        return own, recipe
    if init_from is None:
        raise XmodelError(f"{run_dir}: is to begin with the weights of another run; give --init-from again")
    checkpoint = find_checkpoint(init_from)
    theirs, ours = (folder / "tokenizer" / "tokenizer.json" for folder in (run_of(init_from), shards.directory))
    if theirs.exists() and ours.exists() and sha256_file(theirs) != sha256_file(ours):
        raise XmodelError(
            f"{shards.directory}: was made with another tokenizer than the weights of {init_from}; prepare it with"
            f" [tokenizer] path = {str(theirs.parent)!r}"
        )
    # Before the checkpoint: without it, weights would be drawn.
    write_json_atomic(run_dir / INIT_FILE, _note(init_from, checkpoint))
    state = {"step": 0, "tokens": 0, "stage": "stable", "data": shards.fingerprint}
    return take_over(checkpoint, run_dir / "checkpoints" / "step-0", recipe, state, moments=False), recipe


def _note(source: Path, checkpoint: Path) -> dict[str, Any]:
    """Return whose weights they are: place, name, and what is known of an import that they go back to."""
    before = imported_before(run_of(source))
    imported = read_state(checkpoint).get("imported", before[1] if before else None)
    return {"from": str(source.resolve()), "name": load_recipe(checkpoint / RECIPE_FILE).name, "imported": imported}
