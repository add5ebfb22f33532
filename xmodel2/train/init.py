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
from xmodel2.files import link_or_copy, read_json, sha256_file, write_json_atomic, write_text_atomic
from xmodel2.recipe import ModelSettings, Recipe, load_recipe, recipe_to_toml, replace
from xmodel2.train.checkpoint import (
    MANIFEST_FILE,
    MODEL,
    OPTIMIZER,
    RECIPE_FILE,
    checkpoint_steps,
    find_checkpoint,
    read_state,
    run_of,
)
from xmodel2.train.checkpoint_writer import fresh, publish
from xmodel2.train.run_dir import INIT_FILE, differences, open_run_dir
from xmodel2.train.tensor_files import file_name, write_tensors

_MAY_DIFFER = {"max_position_embeddings", "init_std"}
"""Settings of the model that change nothing of what its weights are."""


def with_model_of(recipe: Recipe, source: Path | None, run_dir: Path) -> Recipe:
    """Return the recipe with the model of a run or checkpoint, all of it if the recipe says nothing of its own.

    A run that has begun needs the source no more. Raises `XmodelError` if there is none, or the recipe's model is another.
    """
    if checkpoint_steps(run_dir) and (run_dir / RECIPE_FILE).exists():
        there = load_recipe(run_dir / RECIPE_FILE).model
    elif source is not None:
        there = load_recipe(find_checkpoint(source) / RECIPE_FILE).model
    else:
        return recipe
    if recipe.model == ModelSettings():
        return replace(recipe, {"model": dataclasses.asdict(there)})
    changed = [
        f"{k} is {a!r} there and {b!r} here" for k, a, b in differences(there, recipe.model) if k not in _MAY_DIFFER
    ]
    if changed:
        raise XmodelError(
            f"{source or run_dir}: its model is another than the recipe's ({'; '.join(changed)}); leave [model] out of the"
            " recipe to take that one"
        )
    return recipe


def open_with_weights(
    recipe: Recipe, run_dir: Path, resume: bool, shards: ShardSet, init_from: Path | None
) -> tuple[Path | None, Recipe]:
    """Open a run directory as `open_run_dir` does; one without a checkpoint gets one of the weights of ``init_from``.

    Raises `XmodelError` if the run began otherwise, or the data was made with another tokenizer than the weights'.
    """
    note: dict[str, Any] | None = read_json(run_dir / INIT_FILE)
    own, recipe = open_run_dir(recipe, run_dir, resume, shards.fingerprint)
    if own is not None and note is None:
        raise XmodelError(f"{run_dir}: did not begin with the weights of another run; choose another --out")
    if note is not None and init_from is not None and note.get("from") != str(init_from.resolve()):
        raise XmodelError(f"{run_dir}: began with the weights of {note.get('from')}; choose another --out")
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
    return _taken_over(checkpoint, run_dir, recipe, shards.fingerprint), recipe


def _note(source: Path, checkpoint: Path) -> dict[str, Any]:
    """Return whose weights they are: place, name, and what is known of an import that they go back to."""
    before: dict[str, Any] = read_json(run_of(source) / INIT_FILE) or {}
    imported = read_state(checkpoint).get("imported", before.get("imported"))
    return {"from": str(source.resolve()), "name": load_recipe(checkpoint / RECIPE_FILE).name, "imported": imported}


def _taken_over(source: Path, run_dir: Path, recipe: Recipe, data: str) -> Path:
    final = run_dir / "checkpoints" / "step-0"
    beside = final.with_name(f".{final.name}.tmp")
    files: dict[str, Any] = read_json(source / MANIFEST_FILE)["files"]
    tensors = {name: record for name, record in files.items() if name.startswith(MODEL)}
    moments = file_name(OPTIMIZER, 0, 1)
    state = {"step": 0, "tokens": 0, "stage": "stable", "data": data}
    try:
        fresh(beside)
        for name in tensors:
            link_or_copy(source / name, beside / name)
        tensors[moments] = write_tensors(beside / moments, [])
        write_text_atomic(run_dir / RECIPE_FILE, recipe_to_toml(recipe))  # whoever has a checkpoint has a recipe
        publish(beside, final, state, recipe, [tensors])
    except OSError as error:
        raise XmodelError(f"{final}: cannot be taken over from {source} ({error})") from None
    return final
