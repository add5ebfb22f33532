"""Steps without a run are those of a run."""

from pathlib import Path

import pytest
import torch

from xmodel2.errors import XmodelError
from xmodel2.recipe import Recipe, replace
from xmodel2.train import Steps, load_model, new_model, read_metrics, train


def test_steps_are_those_of_a_run(small_recipe: Recipe, tmp_path: Path) -> None:
    recipe = replace(small_recipe, {"train.device": "cpu", "train.precision": "fp32"})
    train(recipe, tmp_path / "run", progress=False)
    steps = Steps(recipe)
    begun = new_model(recipe).state_dict()
    assert all(torch.equal(begun[name], weight) for name, weight in steps.model.state_dict().items())
    losses = [steps(number) for number in range(1, recipe.total_steps + 1)]
    assert losses == [line["loss"] for line in read_metrics(tmp_path / "run") if "loss" in line]
    trained = load_model(tmp_path / "run")[0]
    assert all(torch.equal(a, b) for a, b in zip(steps.model.parameters(), trained.parameters(), strict=True))


def test_rows_of_ones_own(small_recipe: Recipe) -> None:
    steps, other = Steps(small_recipe), Steps(small_recipe)
    assert steps(1, steps.batch(2)) == other(2)


def test_data_that_does_not_fit_is_named(small_recipe: Recipe) -> None:
    with pytest.raises(XmodelError, match="absent"):
        Steps(replace(small_recipe, {"stages.stable.mixture": {"absent": 1.0}}))
