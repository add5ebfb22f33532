"""Search: Table 5's space, resumable, and a best recipe that `train` takes."""

import json
import math
from pathlib import Path

import pytest

from xmodel2.errors import XmodelError
from xmodel2.recipe import Recipe, load_recipe, recipe_from_dict
from xmodel2.search.study import run_search, trial_loss


@pytest.fixture
def recipe() -> Recipe:
    return recipe_from_dict({"name": "s", "model": {"preset": "pico"}})


def bowl(recipe: Recipe) -> float:
    model = recipe.model
    return (
        abs(math.log2(model.dim_model_base / 128)) + abs(model.scale_emb - 9) / 9 + abs(model.scale_depth - 2)
    ) + abs(math.log(recipe.train.learning_rate / 0.01))


def test_it_finds_better_than_chance_within_table_5(recipe: Recipe, tmp_path: Path) -> None:
    found = run_search(recipe, 40, tmp_path, bowl)
    trials = json.loads((tmp_path / "study.json").read_text())["trials"]
    assert found["best_value"] == min(trial["value"] for trial in trials)
    assert found["best_value"] < sorted(trial["value"] for trial in trials[:10])[0]
    for trial in trials:
        values = trial["params"]
        assert 2 <= values["scale_emb"] <= 20
        assert values["dim_model_base"] in (32, 64, 128, 256, 512, 1024)
        assert 1 <= values["scale_depth"] <= 5
        assert 0.001 <= values["learning_rate"] <= 0.1
    best = load_recipe(tmp_path / "best.toml")
    assert bowl(best) == pytest.approx(found["best_value"])


def test_a_study_goes_on_where_it_was(recipe: Recipe, tmp_path: Path) -> None:
    run_search(recipe, 3, tmp_path, bowl)
    run_search(recipe, 2, tmp_path, bowl)
    trials = json.loads((tmp_path / "study.json").read_text())["trials"]
    assert [trial["number"] for trial in trials] == [0, 1, 2, 3, 4]
    assert len({tuple(trial["params"].values()) for trial in trials}) == 5


def test_an_interrupted_trial_is_made_first_in_its_own_run_directory(recipe: Recipe, tmp_path: Path) -> None:
    asked: list[Recipe] = []

    def stopped(candidate: Recipe) -> float:
        asked.append(candidate)
        raise KeyboardInterrupt

    def steady(candidate: Recipe) -> float:
        asked.append(candidate)
        return bowl(candidate)

    with pytest.raises(KeyboardInterrupt):
        run_search(recipe, 3, tmp_path, stopped)
    run_search(recipe, 2, tmp_path, steady)
    run_search(recipe, 1, tmp_path, steady)
    assert asked[0] == asked[1]
    assert len({candidate.name for candidate in asked}) == 3


def test_another_recipe_is_refused(recipe: Recipe, tmp_path: Path) -> None:
    run_search(recipe, 1, tmp_path, bowl)
    with pytest.raises(XmodelError, match="began with another recipe"):
        run_search(recipe_from_dict({"name": "s", "seed": 2, "model": {"preset": "pico"}}), 1, tmp_path, bowl)


def test_diverged_trials_do_not_count(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(XmodelError, match="no trial ended with a finite loss"):
        run_search(recipe, 2, tmp_path, lambda _: float("nan"))
    assert math.isfinite(run_search(recipe, 3, tmp_path, bowl)["best_value"])


def test_a_trial_is_a_training_run(road: Path, tmp_path: Path) -> None:
    recipe = load_recipe(road / "run" / "recipe.toml")
    loss = trial_loss(recipe, tmp_path)
    results = json.loads((road / "run" / "results.json").read_text())
    assert 0 < loss < 10
    assert (tmp_path / "demo" / "metrics.jsonl").exists()
    assert loss == pytest.approx(
        sum(results["heldout"]["decay"][n]["loss"] for n in ("docs", "code", "web")) / 3, rel=0.1
    )
