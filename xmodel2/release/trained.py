"""A trained model, opened to be released: what it is, and its tensors, one at a time in memory.

run | checkpoint | native Granite directory -> open_trained -> Trained -> export, quantise, serve
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from xmodel2.errors import XmodelError
from xmodel2.files import read_json, sha256_file
from xmodel2.model import Xmodel2
from xmodel2.model.convert import load_hf, settings_from_granite, to_granite
from xmodel2.recipe import ModelSettings, Recipe, load_recipe
from xmodel2.train.checkpoint import (
    MANIFEST_FILE,
    MODEL,
    RECIPE_FILE,
    find_checkpoint,
    find_tokenizer,
    load_model,
    read_state,
    run_of,
)
from xmodel2.train.tensor_files import TensorFiles


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
    def fingerprint(self) -> str:
        """SHA-256 that changes with the weights: of a checkpoint's manifest, or of a directory's index or only file."""
        names = (MANIFEST_FILE, "model.safetensors.index.json", "model.safetensors")
        return sha256_file(next(self.path / name for name in names if (self.path / name).exists()))

    def load(self) -> Xmodel2:
        """Return the whole model (fp32, CPU, evaluation mode)."""
        return load_model(self.path)[0] if self.state else load_hf(self.path)[0]

    def granite_tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield (native name, tensor), one in memory at a time; the head is tied and left out."""
        if not self.state:
            for file in sorted(self.path.glob("*.safetensors")):
                with safe_open(file, "pt") as tensors:
                    for name in sorted(tensors.keys()):
                        if name != "lm_head.weight":
                            yield name, tensors.get_tensor(name)
            return
        files = TensorFiles(self.path, MODEL)
        for name, shape in files.shapes.items():
            tensor = torch.empty(shape, dtype=files.dtype(name))
            files.read_into(name, tensor)
            yield from to_granite({name: tensor}, self.settings).items()


def open_trained(path: Path) -> Trained:
    """Open a run (its newest checkpoint), a checkpoint, or a native Granite directory. Raises `XmodelError` for anything else."""
    path = Path(path)
    if (path / "config.json").exists():
        try:
            settings = settings_from_granite(read_json(path / "config.json"))
        except KeyError as error:
            raise XmodelError(f"{path / 'config.json'}: has no {error}; it is not a whole Granite config") from None
        if not any(path.glob("*.safetensors")):
            raise XmodelError(f"{path}: has a config.json, but no *.safetensors; copy its weights there")
        recipe = load_recipe(path / RECIPE_FILE) if (path / RECIPE_FILE).exists() else None
        return Trained(path, recipe.name if recipe else path.resolve().name, settings, path, recipe)
    checkpoint = find_checkpoint(path)
    recipe = load_recipe(checkpoint / RECIPE_FILE)
    run = run_of(path)
    return Trained(checkpoint, recipe.name, recipe.model, find_tokenizer(path), recipe, read_state(checkpoint), run)
