"""The demo leaves what it says, and its figures are those of its files."""

import json
import shutil
from pathlib import Path

import pytest

from tests.conftest import CORPUS, tiny_settings
from xmodel2.data.shards import verify_shards
from xmodel2.demo import RECIPE, demo_recipe, run_demo
from xmodel2.errors import XmodelError
from xmodel2.files import read_json
from xmodel2.recipe import load_recipe
from xmodel2.train import read_metrics


def test_every_stage_left_its_files(road: Path) -> None:
    assert {p.name for p in road.iterdir()} == {".xmodel2", "corpus", "data", "run", "hf", "report.html"}
    assert verify_shards(road / "data")
    assert {"recipe.toml", "metrics.jsonl", "checkpoints", "tensorboard", "results.json"} <= {
        p.name for p in (road / "run").iterdir()
    }
    assert list((road / "run" / "tensorboard").glob("events*"))


def test_results_hold_both_stages_and_the_baselines(road: Path) -> None:
    results = json.loads((road / "run" / "results.json").read_text())
    assert set(results["heldout"]) == {"stable", "decay"}
    assert set(results["heldout"]["decay"]) == {"docs", "code", "web", "reasoning"}
    assert set(results["baselines"]["five_gram"]) == {"docs", "code", "web"}
    assert set(results["questions"]) == {"stable", "decay", "majority"}
    assert results["questions"]["decay"]["count"] == 18
    assert results["export"]["max_abs_difference"] < 1e-4
    for name, loss in results["baselines"]["five_gram"].items():
        assert loss < results["baselines"]["unigram"][name]


def test_training_learns_even_in_twenty_steps(road: Path) -> None:
    losses = [line["loss"] for line in read_metrics(road / "run") if "loss" in line]
    assert len(losses) == 20
    assert losses[11] < losses[0] - 1
    assert all(0 < line["mfu"] < 1.5 for line in read_metrics(road / "run") if "mfu" in line)


def test_the_run_keeps_the_recipe_it_was_made_with(road: Path) -> None:
    recipe = load_recipe(road / "run" / "recipe.toml")
    assert recipe.stages.decay.sft_share == 0.64
    assert recipe.train.precision == "fp32"


def test_an_existing_folder_is_refused(road: Path) -> None:
    with pytest.raises(XmodelError, match="already exists; choose another --out, or give --overwrite"):
        run_demo(road)


def test_one_that_was_stopped_goes_on(road: Path, tmp_path: Path) -> None:
    out = tmp_path / "demo"
    shutil.copytree(road, out)
    whole = read_json(out / "run" / "results.json")
    shutil.rmtree(out / "run" / "checkpoints" / "step-20")  # killed before its end, with an export half replaced
    (out / "report.html").unlink()
    settings = tiny_settings()
    assert run_demo(out, resume=True, corpus=CORPUS, settings=settings) == whole
    assert (out / "report.html").exists()
    with pytest.raises(XmodelError, match="give one"):
        run_demo(out, overwrite=True, resume=True)
    with pytest.raises(XmodelError, match="was not made by `xmodel2 demo`"):
        run_demo(tmp_path, resume=True)


def test_the_demos_own_recipe_is_valid() -> None:
    recipe = demo_recipe(Path("data"))
    assert recipe.model.vocab_size == RECIPE["model"]["vocab_size"]
    assert recipe.decay_mixture["reasoning"] == pytest.approx(0.64)
