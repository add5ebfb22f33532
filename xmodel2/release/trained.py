"""A trained model, opened to be released: what it is, and where its weights lie.

run | checkpoint | native Granite directory -> open_trained -> Trained -> export, quantise, serve
"""

import hashlib
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xmodel2.errors import XmodelError
from xmodel2.files import read_json, sha256_file
from xmodel2.model import Xmodel2
from xmodel2.model.convert import from_granite
from xmodel2.recipe import ModelSettings, Recipe, load_recipe, recipe_from_dict, replace
from xmodel2.release.importing.layouts import Layout, factors, read_layout, same_shape, settings_of
from xmodel2.tokenizer import Tokenizer, load_tokenizer
from xmodel2.train.checkpoint import (
    MANIFEST_FILE,
    RECIPE_FILE,
    find_checkpoint,
    find_tokenizer,
    load_model,
    read_state,
    run_of,
)

_PATHS = ("data.dir", "data.cache_dir", "evaluation.data_dir")
"""Keys of a recipe that name places of the machine it is used on."""


@dataclass(frozen=True)
class Trained:
    """A model to be released, wherever its weights lie."""

    path: Path
    """Checkpoint or native directory that holds the weights."""
    name: str
    settings: ModelSettings
    tokenizer_dir: Path
    recipe: Recipe | None = None
    """None for a native directory that says nothing of its training."""
    state: dict[str, Any] | None = None
    """Step, tokens and stage of a checkpoint."""
    run: Path | None = None
    """The run that a checkpoint is of."""

    @property
    def public_recipe(self) -> Recipe | None:
        """The recipe as others may see it (`without_paths`)."""
        return self.recipe and without_paths(self.recipe)

    @property
    def fingerprint(self) -> str:
        """SHA-256 that changes with the weights: of a checkpoint's manifest, or of the directory's files of weights."""
        if (self.path / MANIFEST_FILE).exists():
            return sha256_file(self.path / MANIFEST_FILE)
        found = [sha256_file(file) for file in sorted(self.path.glob("model*.safetensors"))]
        return found[0] if len(found) == 1 else hashlib.sha256("".join(found).encode()).hexdigest()

    @property
    def tokenizer(self) -> Tokenizer:
        """Its tokenizer."""
        return load_tokenizer(self.tokenizer_dir)

    def load(self) -> Xmodel2:
        """Return the whole model (fp32, CPU, evaluation mode). Raises `XmodelError` naming a tensor that does not fit."""
        if self.state:
            return load_model(self.path)[0]
        from xmodel2.release.exporting.weights import check_tensors, native_tensors  # which are of what is opened here

        check_tensors(self)
        model = Xmodel2(self.settings)
        model.load_state_dict(from_granite(dict(native_tensors(self)), self.settings))
        return model.eval()


def open_trained(path: Path) -> Trained:
    """Open a run (its newest checkpoint), a checkpoint, or a native Granite directory. Raises `XmodelError` for anything else."""
    path = Path(path)
    if (path / "config.json").exists():
        return _open_directory(path)
    checkpoint = find_checkpoint(path)
    recipe = load_recipe(checkpoint / RECIPE_FILE)
    run = run_of(path)
    return Trained(checkpoint, recipe.name, recipe.model, find_tokenizer(path), recipe, read_state(checkpoint), run)


def _open_directory(path: Path) -> Trained:
    config = path / "config.json"
    if isinstance(values := read_json(config), dict) and values.get("quantization_config"):
        raise XmodelError(
            f"{path}: its weights are quantised, which `transformers` reads and we don't; give the model that they were made"
            " from, or its .gguf file"
        )
    layout = read_layout(config)
    settings = settings_of(layout, config)
    if layout.kind != "granite" or factors(layout.scales, settings):
        raise XmodelError(
            f"{config}: is of model_type {layout.kind!r}, but not as `xmodel2 export --to hf` writes it; make a run of it first:"
            f" xmodel2 import {path} --out RUN"
        )
    if not any(path.glob("model*.safetensors")):
        raise XmodelError(f"{path}: has a config.json, but no model*.safetensors; copy its weights there")
    recipe, complaint = recipe_beside(path, layout)
    if complaint:
        print(f"{path}: {complaint}", file=sys.stderr)
    return Trained(path, recipe.name if recipe else path.resolve().name, settings, path, recipe)


def recipe_beside(directory: Path, layout: Layout) -> tuple[Recipe | None, str]:
    """Return the recipe that lies in a directory, perhaps from elsewhere, if it is of that model; or else why it is left out."""
    path = directory / RECIPE_FILE
    if not path.is_file():
        return None, ""
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
        if "base" in tree:  # another file of this machine, which a directory from elsewhere must not choose
            return None, f"{RECIPE_FILE} was left out: it has a base"
        recipe = recipe_from_dict(tree, str(path))
    except (XmodelError, ValueError, OSError, RecursionError) as error:
        return None, f"{RECIPE_FILE} was left out: {error}"
    if not same_shape(layout, recipe.model):
        return None, f"{RECIPE_FILE} was left out: its [model] is not that of config.json"
    return recipe, ""


def without_paths(recipe: Recipe) -> Recipe:
    """Return a recipe whose paths are their last names, which say nothing of the machine and its users."""
    data, evaluation = recipe.data, recipe.evaluation
    paths = zip(_PATHS, (data.dir, data.cache_dir, evaluation.data_dir), strict=True)
    return replace(recipe, {key: path.rstrip("/").rpartition("/")[2] for key, path in paths})
