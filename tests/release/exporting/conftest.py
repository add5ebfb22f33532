"""Runs with weights of a test's own choosing, beside the tokenizer of the shared one."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from xmodel2.model import Xmodel2, tensor_program
from xmodel2.recipe import ModelSettings, load_recipe
from xmodel2.release.exporting import directory
from xmodel2.train.checkpoint_writer import CheckpointWriter

MakeRun = Callable[..., Path]


@pytest.fixture
def make_run(road: Path, tmp_path: Path) -> MakeRun:
    """Return what writes a run of one checkpoint: random weights of the given settings, changed by ``change(model)``."""

    def make(change: Callable[[Xmodel2], None] = lambda model: None, **settings: Any) -> Path:
        recipe = load_recipe(road / "run" / "recipe.toml")
        recipe = replace(recipe, model=replace(recipe.model, **settings))
        model = random_model(recipe.model)
        with torch.no_grad():
            change(model)
        run = tmp_path / "run"
        shutil.copytree(road / "run" / "tokenizer", run / "tokenizer")
        writer = CheckpointWriter(run, recipe, model, torch.optim.SGD(model.parameters()))
        writer.save(1, {"tokens": 64, "stage": "stable"})
        writer.close()
        return run

    return make


@pytest.fixture
def unproved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the proof of directories, for tests of where things go."""
    monkeypatch.setattr(directory, "reference_logits", lambda *args, **options: [])
    monkeypatch.setattr(directory, "transformers_difference", lambda *args: 0.0)


def random_model(settings: ModelSettings) -> Xmodel2:
    """Return a model with random weights, norms among them."""
    model = Xmodel2(settings)
    tensor_program.initialise(model, 9)
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.mul_(torch.rand(parameter.shape, generator=generator) + 0.5)
    return model.eval()
