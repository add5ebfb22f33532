"""A run as a user meets it: exact resume, signals, damaged checkpoints, a full disk, and directories that exist."""

import json
import os
import resource
import signal
import sys
import threading
import time
from pathlib import Path

import fsspec
import pytest
import torch
from safetensors.torch import load_file

from xmodel2.data.synthetic import write_random_shards
from xmodel2.errors import XmodelError
from xmodel2.files import file_record
from xmodel2.recipe import Recipe, replace
from xmodel2.train import load_model, read_metrics, train
from xmodel2.train.checkpoint import checkpoint_steps
from xmodel2.train.guard import DivergedError
from xmodel2.train.step import TrainStep


@pytest.fixture
def recipe(small_recipe: Recipe, tmp_path: Path) -> Recipe:
    write_random_shards(tmp_path / "data", vocab_size=60, seed=0)  # tests write into it
    return replace(
        small_recipe, {"model.num_hidden_layers": 2, "data.dir": str(tmp_path / "data"), "train.heldout_every": 10}
    )


def weights(run_dir: Path, step: int) -> dict[str, torch.Tensor]:
    return load_file(run_dir / "checkpoints" / f"step-{step}" / "model.safetensors")


def test_a_run_from_end_to_end(recipe: Recipe, tmp_path: Path) -> None:
    result = train(recipe, tmp_path / "run")
    assert result.finished
    lines = read_metrics(tmp_path / "run")
    steps = [line for line in lines if "kind" not in line]
    assert [line["step"] for line in steps] == list(range(1, 21))
    assert [line["stage"] for line in steps] == ["stable"] * 12 + ["decay"] * 8
    assert steps[-1]["learning_rate"] == pytest.approx(0.01 * 0.5**4)
    assert [line["step"] for line in lines if line.get("kind") == "heldout"] == [10, 12, 20]
    heldout = [line["heldout"] for line in lines if line.get("kind") == "heldout"]
    assert all(set(losses) == {"text", "sft"} for losses in heldout)
    assert checkpoint_steps(tmp_path / "run") == [12, 16, 20]
    model, read, state = load_model(tmp_path / "run")
    assert (state["step"], read.model) == (20, recipe.model)
    assert model(torch.tensor([[1, 5, 9]])).shape == (1, 3, 60)


def test_what_each_stage_took_is_written_down(recipe: Recipe, tmp_path: Path) -> None:
    for stop, rows in ((14, [48, 8]), (None, [48, 32])):
        train(recipe, tmp_path / "run", resume=True, stop_after=stop)
        stages = json.loads((tmp_path / "run" / "mixture.json").read_text())["stages"]
        assert [stage["rows"] for stage in stages] == rows
        assert [stage["rows_planned"] for stage in stages] == [48, 32]
    decay = stages[1]["sources"]
    assert set(decay) == {"text", "sft"}
    assert abs(decay["sft"]["share_realised"] - decay["sft"]["share_asked"]) < 1.5 / 32
    assert sum(source["rows"] for source in decay.values()) == 32


def test_data_in_an_object_store_trains_the_same(recipe: Recipe, tmp_path: Path) -> None:
    local = train(recipe, tmp_path / "local", stop_after=14)
    store = fsspec.filesystem("memory")
    store.put(str(tmp_path / "data"), "/bucket/trained", recursive=True)
    away = {"data.dir": "memory://bucket/trained", "data.cache_dir": str(tmp_path / "cache")}
    assert train(replace(recipe, away), tmp_path / "remote", stop_after=14).loss == local.loss
    assert train(replace(recipe, away), tmp_path / "local", resume=True).finished
    with pytest.raises(XmodelError, match=r"data\.cache_dir"):
        train(replace(recipe, {**away, "data.cache_dir": ""}), tmp_path / "other")


@pytest.mark.parametrize("packing", ["concatenate", "best_fit"])
def test_packing_is_the_recipes_choice(recipe: Recipe, tmp_path: Path, packing: str) -> None:
    assert train(replace(recipe, {"data.packing": packing}), tmp_path / "run", stop_after=13).loss
    stages = json.loads((tmp_path / "run" / "mixture.json").read_text())["stages"]
    assert (stages[0]["sources"]["text"]["padding_share"] > 0) == (packing == "best_fit")
    with pytest.raises(XmodelError, match=r"data\.packing was"):
        train(recipe, tmp_path / "run", resume=True)


@pytest.mark.parametrize("stop", [2, 9, 13])
def test_resume_repeats_the_uninterrupted_run_bit_for_bit(recipe: Recipe, tmp_path: Path, stop: int) -> None:
    whole = train(recipe, tmp_path / "whole")
    train(recipe, tmp_path / "parts", stop_after=stop)
    resumed = train(recipe, tmp_path / "parts", resume=True)
    assert resumed.loss == whole.loss
    a, b = weights(tmp_path / "whole", 20), weights(tmp_path / "parts", 20)
    assert all(torch.equal(a[name], b[name]) for name in a)
    losses = [[line["loss"] for line in read_metrics(tmp_path / d) if "loss" in line] for d in ("whole", "parts")]
    assert losses[0] == losses[1]


def test_a_torn_metrics_line_is_passed_over(recipe: Recipe, tmp_path: Path) -> None:
    train(recipe, tmp_path / "run", stop_after=6)
    with open(tmp_path / "run" / "metrics.jsonl", "a") as handle:
        handle.write('{"step": 7, "lo')
    train(recipe, tmp_path / "run", resume=True)
    assert [line["step"] for line in read_metrics(tmp_path / "run") if "loss" in line] == list(range(1, 21))


def test_sigterm_saves_and_returns(recipe: Recipe, tmp_path: Path) -> None:
    long = replace(recipe, {"stages.stable.tokens": 64 * 100_000, "train.heldout_every": 0})
    metrics = tmp_path / "run" / "metrics.jsonl"

    def kill_when_training() -> None:
        while not (metrics.exists() and metrics.stat().st_size):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=kill_when_training, daemon=True).start()
    result = train(long, tmp_path / "run")
    assert not result.finished
    assert checkpoint_steps(tmp_path / "run")[-1] == result.step


def test_existing_directory_and_changed_recipe_are_refused(recipe: Recipe, tmp_path: Path) -> None:
    train(recipe, tmp_path / "run", stop_after=4)
    with pytest.raises(XmodelError, match="already exists"):
        train(recipe, tmp_path / "run")
    with pytest.raises(XmodelError, match=r"train\.learning_rate was 0\.01, is 0\.02"):
        train(replace(recipe, {"train.learning_rate": 0.02}), tmp_path / "run", resume=True)
    wider = replace(recipe, {"model.intermediate_size": 64})
    with pytest.raises(XmodelError, match=r"intermediate_size"):
        train(wider, tmp_path / "run", resume=True)


def test_two_at_once_are_refused(recipe: Recipe, tmp_path: Path) -> None:
    def second(step: int, _: object) -> bool:
        with pytest.raises(XmodelError, match=r"run: another `xmodel2` works in it"):
            train(recipe, tmp_path / "run", resume=True)
        return False

    recipe = replace(recipe, {"train.heldout_every": 5})
    assert train(recipe, tmp_path / "run", watch=second).finished
    assert [line["step"] for line in read_metrics(tmp_path / "run") if "learning_rate" in line] == list(range(1, 21))
    assert train(recipe, tmp_path / "run", resume=True).finished


def test_damaged_checkpoint_falls_back_to_the_one_before(recipe: Recipe, tmp_path: Path) -> None:
    train(recipe, tmp_path / "run", stop_after=9)
    path = tmp_path / "run" / "checkpoints" / "step-9" / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    assert load_model(tmp_path / "run")[2]["step"] == 8
    with pytest.raises(XmodelError, match=r"step-9.*damaged"):
        load_model(path.parent)
    assert train(recipe, tmp_path / "run", resume=True).finished


def test_checkpoint_of_another_architecture(recipe: Recipe, tmp_path: Path) -> None:
    train(recipe, tmp_path / "run", stop_after=4)
    checkpoint = tmp_path / "run" / "checkpoints" / "step-4"
    text = (checkpoint / "recipe.toml").read_text().replace("intermediate_size = 48", "intermediate_size = 64")
    (checkpoint / "recipe.toml").write_text(text)
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    manifest["files"]["recipe.toml"] = file_record(checkpoint / "recipe.toml")
    (checkpoint / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(XmodelError, match="another architecture"):
        load_model(checkpoint)


def test_full_disk_leaves_the_previous_checkpoint(recipe: Recipe, tmp_path: Path) -> None:
    train(recipe, tmp_path / "run", stop_after=4)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(XmodelError, match=r"could not be written.*previous one is untouched"):
            train(recipe, tmp_path / "run", resume=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, previous)
    assert checkpoint_steps(tmp_path / "run") == [4]
    assert load_model(tmp_path / "run")[2]["step"] == 4
    assert train(recipe, tmp_path / "run", resume=True).finished


def test_a_folder_of_other_files_is_no_run(recipe: Recipe, tmp_path: Path) -> None:
    mine = tmp_path / "recipe.toml"
    mine.write_text("# my own\n")
    with pytest.raises(XmodelError, match="holds other files and is not a run directory"):
        train(recipe, tmp_path, resume=True)
    with pytest.raises(XmodelError, match=r"recipe\.toml: is a file; give --out a folder"):
        train(recipe, mine)
    assert {path.name for path in tmp_path.iterdir()} == {"data", "recipe.toml"}
    assert mine.read_text() == "# my own\n"
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "slurm-12.out").write_text("")
    assert train(recipe, tmp_path / "job", resume=True).finished


def test_weights_that_are_not_finite_are_no_end(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    update, made, bad = TrainStep.apply, 0, {20}

    def broken(self: TrainStep, optimizer: torch.optim.Optimizer, norm: torch.Tensor) -> None:
        nonlocal made
        made += 1
        update(self, optimizer, norm)
        if made in bad:
            with torch.no_grad():
                next(self.model.parameters()).mul_(float("nan"))

    monkeypatch.setattr(TrainStep, "apply", broken)
    with pytest.raises(XmodelError, match="its weights at step 20 are not finite, so they are not saved"):
        train(recipe, tmp_path / "run")
    assert checkpoint_steps(tmp_path / "run") == [8, 12, 16]
    made, bad = 0, {12}  # the end of the stable stage: the run goes back
    assert train(recipe, tmp_path / "back").finished
    assert "step 12: its weights are not finite" in capsys.readouterr().err
    made = 0
    with pytest.raises(DivergedError, match="its weights at step 12 are not finite"):
        train(recipe, tmp_path / "trial", rollback=False)
    made = 0
    with pytest.raises(DivergedError, match="its weights at step 12 are not finite"):
        train(recipe, tmp_path / "stopped", stop_after=12)


def test_data_that_does_not_fit(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(XmodelError, match=r"model\.vocab_size is 50"):
        train(replace(recipe, {"model.vocab_size": 50}), tmp_path / "run")
    with pytest.raises(XmodelError, match="Did you mean 'text'"):
        train(replace(recipe, {"stages.stable.mixture": {"txt": 1.0}}), tmp_path / "run2")


def test_a_failed_start_leaves_nothing_that_blocks_the_next(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(XmodelError, match="sft_mixture is empty"):
        train(replace(recipe, {"stages.decay.sft_mixture": {}}), tmp_path / "run")
    with pytest.raises(XmodelError, match="Did you mean 'text'"):
        train(replace(recipe, {"stages.stable.mixture": {"txt": 1.0}}), tmp_path / "run")
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(XmodelError, match="drop 'wandb' from train"):
        train(replace(recipe, {"train.trackers": ["wandb"]}), tmp_path / "run")
    assert train(recipe, tmp_path / "run").finished


def test_other_data_of_the_same_name_is_refused_on_resume(recipe: Recipe, tmp_path: Path) -> None:
    train(recipe, tmp_path / "run", stop_after=4)
    write_random_shards(tmp_path / "moved", vocab_size=60, seed=0)
    write_random_shards(tmp_path / "data", vocab_size=60, seed=1)
    with pytest.raises(XmodelError, match=r"is not the data that .* was trained on"):
        train(recipe, tmp_path / "run", resume=True)
    assert train(replace(recipe, {"data.dir": str(tmp_path / "moved")}), tmp_path / "run", resume=True).finished


def test_new_checkpoints_are_kept_after_falling_back_past_several(recipe: Recipe, tmp_path: Path) -> None:
    recipe = replace(recipe, {"train.keep_checkpoints": 2, "train.checkpoint_every": 2, "guard.rollback_after": 1})
    train(recipe, tmp_path / "run", stop_after=18)
    assert checkpoint_steps(tmp_path / "run") == [12, 16, 18]
    for step in (16, 18):
        (tmp_path / "run" / "checkpoints" / f"step-{step}" / "model.safetensors").write_bytes(b"")
    train(recipe, tmp_path / "run", resume=True, stop_after=13)
    assert checkpoint_steps(tmp_path / "run") == [12, 13]
    assert load_model(tmp_path / "run")[2]["step"] == 13
    assert (tmp_path / "run" / "checkpoints" / "unused-step-18").is_dir()


def test_checkpoints_without_a_recipe_are_not_started_over(recipe: Recipe, tmp_path: Path) -> None:
    train(recipe, tmp_path / "run", stop_after=4)
    (tmp_path / "run" / "recipe.toml").unlink()
    with pytest.raises(XmodelError, match=r"has checkpoints but no recipe\.toml"):
        train(recipe, tmp_path / "run", resume=True)
