"""Many models trained as one end as each would alone."""

import math
from pathlib import Path
from typing import Any

import pytest

from xmodel2.recipe import Recipe, replace
from xmodel2.search.trials import train_trials


def varied(recipe: Recipe) -> list[Recipe]:
    """Return recipes that differ in all that a fleet may differ in; at low rates, since high ones blow up rounding."""
    keys: list[dict[str, Any]] = [
        {},
        {"model.scale_emb": 4.0, "train.learning_rate": 0.002},
        {"model.scale_depth": 3.0, "model.dim_model_base": 64, "seed": 5},
        {"train.optimizer": "muon", "stages.decay.sft_share": 0.2, "train.decay_shape": "linear"},
        {"model.parametrization": "standard", "train.warmup_steps": 1},
    ]
    return [
        replace(recipe, {"name": f"t{number}", "train.learning_rate": 0.001, **one}) for number, one in enumerate(keys)
    ]


@pytest.mark.parametrize(
    "changes",
    [{}, {"data.mask_documents": False}, {"model.tie_word_embeddings": False}],
    ids=["masked", "unmasked", "untied"],
)
def test_together_is_as_alone(small_recipe: Recipe, tmp_path: Path, changes: dict[str, Any]) -> None:
    recipes = varied(replace(small_recipe, changes))
    together = train_trials(recipes, tmp_path / "together")
    alone = [train_trials([recipe], tmp_path / "alone")[0] for recipe in recipes]
    for a, b in zip(together, alone, strict=True):
        assert a.step == b.step == small_recipe.total_steps
        assert a.heldout == pytest.approx(b.heldout, rel=2e-4)
        assert a.loss == pytest.approx(b.loss, rel=2e-4)
    assert len({round(result.loss, 6) for result in together}) == len(recipes)
    assert not (tmp_path / "together").exists()


def test_one_that_diverges_leaves_the_others_as_they_are(small_recipe: Recipe, tmp_path: Path) -> None:
    wild = replace(small_recipe, {"name": "wild", "train.learning_rate": 1e30, "train.adam_eps": 1e-30})
    tame = replace(small_recipe, {"name": "tame"})
    first, second = train_trials([wild, tame], tmp_path)
    assert math.isnan(first.loss)
    assert first.ended.startswith("diverged")
    assert second.loss == pytest.approx(train_trials([tame], tmp_path)[0].loss, rel=2e-4)
    assert math.isnan(train_trials([wild], tmp_path)[0].loss)


def test_a_watch_ends_trials_and_the_rest_are_stacked_anew(small_recipe: Recipe, tmp_path: Path) -> None:
    recipe = replace(small_recipe, {"train.heldout_every": 5})
    recipes = [replace(recipe, {"name": f"t{number}", "seed": number}) for number in range(4)]
    seen: list[tuple[int, int]] = []

    def watch(number: int, step: int, loss: float) -> bool:
        seen.append((number, step))
        return number in (0, 2) and step >= 5

    results = train_trials(recipes, tmp_path, watch)
    assert [result.ended for result in results] == ["pruned", "", "pruned", ""]
    assert [result.step for result in results] == [5, recipe.total_steps, 5, recipe.total_steps]
    assert {number for number, step in seen if step > 5} == {1, 3}
    whole = train_trials([recipes[3]], tmp_path)[0]
    assert results[3].loss == pytest.approx(whole.loss, rel=2e-4)


def test_other_shapes_are_trained_beside_them(small_recipe: Recipe, tmp_path: Path) -> None:
    deeper = replace(small_recipe, {"name": "deep", "model.num_hidden_layers": 2})
    untied = replace(small_recipe, {"name": "untied", "model.tie_word_embeddings": False})
    recipes = [replace(small_recipe, {"name": "a"}), deeper, replace(small_recipe, {"name": "b", "seed": 3}), untied]
    results = train_trials(recipes, tmp_path)
    assert all(math.isfinite(result.loss) for result in results)
    assert {path.name for path in tmp_path.iterdir()} == {"deep", "untied"}
