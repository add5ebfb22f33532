"""What the model writes while it trains: at each measurement, greedily, and without a trace in the run itself."""

from pathlib import Path

import fsspec
import pytest

from xmodel2 import demo
from xmodel2.errors import XmodelError
from xmodel2.model.generate import generate
from xmodel2.recipe import Recipe, load_recipe, replace
from xmodel2.tokenizer import load_tokenizer
from xmodel2.train import load_model, read_metrics, train


def test_samples_are_what_the_checkpoint_of_that_step_writes(road: Path) -> None:
    lines = [line for line in read_metrics(road / "run") if line.get("kind") == "samples"]
    assert [line["stage"] for line in lines][-1] == "decay"
    assert {line["step"] for line in lines} >= {12, 20}  # the ends of both stages
    assert [sample["prompt"] for sample in lines[-1]["samples"]] == list(demo.PROMPTS)
    model, _, state = load_model(road / "run")
    tokenizer = load_tokenizer(road / "run" / "tokenizer")
    assert lines[-1]["step"] == state["step"]
    for sample in lines[-1]["samples"]:
        ids = [tokenizer.bos_id, *tokenizer.encode(sample["prompt"])]
        [answer] = generate(model, [ids], 60, [tokenizer.eos_id])
        assert sample["continuation"] == tokenizer.decode(answer, skip_special_tokens=True)


def test_a_run_is_the_same_with_and_without_them(road: Path, tmp_path: Path) -> None:
    recipe = replace(load_recipe(road / "run" / "recipe.toml"), {"evaluation.prompts": ()})
    train(recipe, tmp_path / "run")
    losses = [
        [line["loss"] for line in read_metrics(run) if "loss" in line] for run in (road / "run", tmp_path / "run")
    ]
    assert losses[0] == losses[1]


def test_the_tokenizer_may_lie_in_an_object_store(road: Path, tmp_path: Path) -> None:
    fsspec.filesystem("memory").put(str(road / "data"), "/bucket/sampled", recursive=True)
    away = {"data.dir": "memory://bucket/sampled", "data.cache_dir": str(tmp_path / "cache")}
    train(replace(load_recipe(road / "run" / "recipe.toml"), away), tmp_path / "run", stop_after=6)
    ours, theirs = (
        [line["samples"] for line in read_metrics(run) if line.get("kind") == "samples" and line["step"] == 6]
        for run in (road / "run", tmp_path / "run")
    )
    assert ours == theirs


def test_prompts_that_cannot_be_read_are_told_before_the_first_step(
    road: Path, small_recipe: Recipe, tmp_path: Path
) -> None:
    recipe = load_recipe(road / "run" / "recipe.toml")
    with pytest.raises(XmodelError, match=r"evaluation\.prompts: 'word word.*the context is 512; shorten it"):
        train(replace(recipe, {"evaluation.prompts": ("word " * 600,)}), tmp_path / "run")
    with pytest.raises(XmodelError, match=r"evaluation\.prompts: .*tokenizer\.json: not found"):
        train(replace(small_recipe, {"evaluation.prompts": ("a",)}), tmp_path / "run")
    assert not (tmp_path / "run").exists()
