"""Decays that branch from a stable checkpoint: the same run up to there, and a run of its own from there on."""

import errno
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from xmodel2.data.synthetic import write_random_shards
from xmodel2.errors import XmodelError
from xmodel2.files import file_record
from xmodel2.recipe import Recipe, load_recipe, replace
from xmodel2.train import read_metrics, train
from xmodel2.train.checkpoint import check_files, checkpoint_steps, read_state
from xmodel2.train.step import LossModule, MicroBatch


@pytest.fixture(scope="module")
def recipe(small_recipe: Recipe) -> Recipe:
    kept = {"train.checkpoint_every": 2, "train.keep_checkpoints": 2, "train.keep_checkpoint_every": 4}
    kept |= {"guard.rollback_after": 1}
    return replace(small_recipe, {"stages.decay.tokens": 6 * 64, **kept})


@pytest.fixture(scope="module")
def finished(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, whose checkpoints are at 4, 8, 12, 16 and 18; do not write into it."""
    run_dir = tmp_path_factory.mktemp("origin") / "run"
    train(recipe, run_dir)
    assert checkpoint_steps(run_dir) == [4, 8, 12, 16, 18]
    return run_dir


@pytest.fixture
def origin(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "origin"))


def losses(run_dir: Path) -> list[tuple[int, float]]:
    return [(line["step"], line["loss"]) for line in read_metrics(run_dir) if "loss" in line]


def weights(run_dir: Path, step: int) -> dict[str, torch.Tensor]:
    return load_file(run_dir / "checkpoints" / f"step-{step}" / "model.safetensors")


@pytest.mark.parametrize("step", ["stable", "12"])
def test_the_same_decay_from_the_stable_end_repeats_the_run_bit_for_bit(
    recipe: Recipe, origin: Path, tmp_path: Path, step: str
) -> None:
    assert train(recipe, tmp_path / "branch", branch_from=f"{origin}@{step}").finished
    assert losses(tmp_path / "branch") == losses(origin)[12:]
    a, b = weights(origin, 18), weights(tmp_path / "branch", 18)
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_an_earlier_step_decays_from_there(recipe: Recipe, origin: Path, tmp_path: Path) -> None:
    other = replace(recipe, {"stages.decay.tokens": 4 * 64, "stages.decay.sft_share": 0.5, "train.precision": "auto"})
    assert train(other, tmp_path / "branch", branch_from=f"{origin}@8").step == 12
    resolved = load_recipe(tmp_path / "branch" / "recipe.toml")
    assert (resolved.stable_steps, resolved.decay_steps, resolved.train.precision) == (8, 4, "fp32")
    lines = [line for line in read_metrics(tmp_path / "branch") if "loss" in line]
    assert [(line["step"], line["stage"]) for line in lines] == [(step, "decay") for step in range(9, 13)]
    assert lines[-1]["learning_rate"] == pytest.approx(recipe.train.learning_rate * 0.5**2)
    note = json.loads((tmp_path / "branch" / "branch.json").read_text())
    assert (note["run"], note["step"]) == (str(origin.resolve()), 8)


def test_its_checkpoint_is_its_own(recipe: Recipe, origin: Path, tmp_path: Path) -> None:
    branch, branch_from = tmp_path / "branch", f"{origin}@8"
    train(recipe, branch, stop_after=9, branch_from=branch_from)
    own, theirs = (run / "checkpoints" / "step-8" for run in (branch, origin))
    assert (own / "model.safetensors").samefile(theirs / "model.safetensors")
    assert load_recipe(own / "recipe.toml").stable_steps == 8
    check_files(own)
    shutil.rmtree(branch / "checkpoints" / "step-9")  # killed before it
    origin.rename(tmp_path / "elsewhere")
    assert train(recipe, branch, resume=True, branch_from=branch_from).finished
    assert checkpoint_steps(branch)[0] == 8


def test_it_goes_on_when_the_origin_has_deleted_that_checkpoint(recipe: Recipe, tmp_path: Path) -> None:
    run_dir, branch, branch_from = tmp_path / "run", tmp_path / "branch", f"{tmp_path}/run@6"
    train(recipe, run_dir, stop_after=6)
    train(recipe, branch, stop_after=8, branch_from=branch_from)
    train(recipe, run_dir, resume=True)
    assert 6 not in checkpoint_steps(run_dir)
    with pytest.raises(XmodelError, match=r"is a branch of .*run@6; choose another --out"):
        train(recipe, branch, resume=True, branch_from=f"{run_dir}@4")
    assert train(recipe, branch, resume=True, branch_from=branch_from).finished


def test_a_start_that_fails_after_the_checkpoint_was_taken_over(recipe: Recipe, origin: Path, tmp_path: Path) -> None:
    branch, branch_from = tmp_path / "branch", f"{origin}@8"
    with pytest.raises(XmodelError, match="has no backward pass on a CPU"):
        train(replace(recipe, {"train.attention": "flex"}), branch, branch_from=branch_from)
    assert train(recipe, branch, resume=True, branch_from=branch_from).finished


def test_a_link_is_followed(recipe: Recipe, origin: Path, tmp_path: Path) -> None:
    for path in (origin / "checkpoints" / "step-8").glob("*.safetensors"):
        path.rename(tmp_path / path.name)
        path.symlink_to(f"../../../{path.name}")
    assert train(recipe, tmp_path / "branch", branch_from=f"{origin}@8").finished
    assert not (tmp_path / "branch" / "checkpoints" / "step-8" / "model.safetensors").is_symlink()


def test_trouble_at_once_goes_back_to_where_the_branch_began(
    recipe: Recipe, origin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = replace(
        recipe, {"guard.rollback_after": 3, "train.checkpoint_every": 100, "train.keep_checkpoint_every": 0}
    )
    forward, calls = LossModule.forward, 0

    def bad(self: LossModule, batch: MicroBatch) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return forward(self, batch) * (float("nan") if calls <= 6 else 1.0)

    monkeypatch.setattr(LossModule, "forward", bad)
    assert train(recipe, tmp_path / "branch", branch_from=f"{origin}@12").finished
    assert [step for step, _ in losses(tmp_path / "branch")] == [16, 17, 18]
    guard = json.loads((tmp_path / "branch" / "guard.json").read_text())
    assert guard["rollbacks"] == [{"checkpoint": 12, "from": 10, "to": 15}]


def test_where_there_are_no_links_it_is_a_copy(
    recipe: Recipe, origin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refused)
    assert train(recipe, tmp_path / "branch", branch_from=f"{origin}@8").finished
    own, theirs = (run / "checkpoints" / "step-8" / "model.safetensors" for run in (tmp_path / "branch", origin))
    assert own.read_bytes() == theirs.read_bytes()
    assert not own.samefile(theirs)


def test_what_the_origin_passed_over_is_not_passed_over(recipe: Recipe, origin: Path, tmp_path: Path) -> None:
    checkpoint = origin / "checkpoints" / "step-8"
    state = json.loads((checkpoint / "state.json").read_text())
    state["guard"] |= {"passed_over": [5, *range(7, 13)], "rollbacks": [{"checkpoint": 6, "from": 7, "to": 12}]}
    (checkpoint / "state.json").write_text(json.dumps(state))
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    manifest["files"]["state.json"] = file_record(checkpoint / "state.json")
    (checkpoint / "manifest.json").write_text(json.dumps(manifest))
    assert train(recipe, tmp_path / "branch", branch_from=f"{origin}@8").finished
    assert [step for step, _ in losses(tmp_path / "branch")] == list(range(9, 15))
    guard = read_state(tmp_path / "branch" / "checkpoints" / "step-8")["guard"]
    assert (guard["passed_over"], guard["rollbacks"]) == ([5, 7, 8], [])


def test_a_branch_that_was_killed_goes_on(recipe: Recipe, origin: Path, tmp_path: Path) -> None:
    branch_from = f"{origin}@stable"
    train(recipe, tmp_path / "branch", stop_after=14, branch_from=branch_from)
    shutil.rmtree(tmp_path / "branch" / "checkpoints")  # killed before its first
    train(recipe, tmp_path / "branch", resume=True, stop_after=14)
    train(recipe, tmp_path / "branch", resume=True, stop_after=15, branch_from=branch_from)
    assert train(load_recipe(tmp_path / "branch" / "recipe.toml"), tmp_path / "branch", resume=True).finished
    assert losses(tmp_path / "branch") == losses(origin)[12:]


def test_a_branch_killed_before_its_recipe_was_written(recipe: Recipe, origin: Path, tmp_path: Path) -> None:
    train(recipe, tmp_path / "branch", stop_after=9, branch_from=f"{origin}@8")
    for name in ("checkpoints", "metrics.jsonl", "recipe.toml"):
        path = tmp_path / "branch" / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(XmodelError, match=r"give --branch-from .*origin@8 again"):
        train(recipe, tmp_path / "branch", resume=True)
    assert train(recipe, tmp_path / "branch", resume=True, branch_from=f"{origin}@8").finished


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ("16", r"step 16 is of the decay stage; to branch from there are: 4, 8, 12"),
        ("6", r"step 6 has no checkpoint; to branch from there are: 4, 8, 12 \(train\.keep_checkpoint_every"),
        ("2", r"step 2 is of the warm-up"),
        ("last", r"write it as RUN@STEP"),
    ],
)
def test_steps_that_cannot_be_branched_from(
    recipe: Recipe, finished: Path, tmp_path: Path, step: str, message: str
) -> None:
    with pytest.raises(XmodelError, match=message):
        train(recipe, tmp_path / "branch", branch_from=f"{finished}@{step}")
    assert not (tmp_path / "branch").exists()


def test_what_is_no_run(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(XmodelError, match=r"nowhere is not a run directory"):
        train(recipe, tmp_path / "branch", branch_from=f"{tmp_path}/nowhere@8")
    for not_one in ("runs/nano", ""):
        with pytest.raises(XmodelError, match=r"write it as RUN@STEP"):
            train(recipe, tmp_path / "branch", branch_from=not_one)


@pytest.mark.parametrize(
    ("key", "value"),
    [("seed", 2), ("train.learning_rate", 0.02), ("train.warmup_steps", 2), ("model.num_hidden_layers", 2)],
)
def test_more_than_the_decay_differs(recipe: Recipe, finished: Path, tmp_path: Path, key: str, value: float) -> None:
    with pytest.raises(XmodelError, match=rf"more than its decay \({key} was"):
        train(replace(recipe, {key: value}), tmp_path / "branch", branch_from=f"{finished}@8")


def test_a_branch_needs_a_decay_and_a_place_of_its_own(recipe: Recipe, origin: Path, tmp_path: Path) -> None:
    with pytest.raises(XmodelError, match=r"stages\.decay\.tokens is 0"):
        train(replace(recipe, {"stages.decay.tokens": 0}), tmp_path / "branch", branch_from=f"{origin}@8")
    with pytest.raises(XmodelError, match="already exists"):
        train(recipe, origin, branch_from=f"{origin}@12")
    with pytest.raises(XmodelError, match="is a run of its own"):
        train(recipe, origin, resume=True, branch_from=f"{origin}@12")


def test_a_branch_of_another_run_is_refused(recipe: Recipe, origin: Path, finished: Path, tmp_path: Path) -> None:
    train(recipe, tmp_path / "branch", stop_after=9, branch_from=f"{origin}@8")
    shutil.rmtree(tmp_path / "branch" / "checkpoints")
    with pytest.raises(XmodelError, match=r"is a branch of .*origin@8; choose another --out"):
        train(recipe, tmp_path / "branch", resume=True, branch_from=f"{finished}@8")


@pytest.mark.parametrize("note", ['{"a": 1}', "[1]", '"x"', '{"run": 3, "step": 8}', '{"run": "a", "step": "8"}'])
@pytest.mark.parametrize("started", [True, False])
def test_a_note_that_no_branch_wrote_is_named(
    recipe: Recipe, origin: Path, tmp_path: Path, note: str, started: bool
) -> None:
    run = tmp_path / "branch"
    train(recipe, run, stop_after=9, branch_from=f"{origin}@8")
    (run / "branch.json").write_text(note)
    if not started:
        shutil.rmtree(run / "checkpoints")
    for branch_from in (f"{origin}@8", None):
        with pytest.raises(XmodelError, match=r"branch\.json: wants the run that this one comes from"):
            train(recipe, run, resume=True, branch_from=branch_from)


def test_a_damaged_origin(recipe: Recipe, origin: Path, tmp_path: Path) -> None:
    (origin / "checkpoints" / "step-4" / "model.safetensors").write_bytes(b"")
    with pytest.raises(XmodelError, match=r"model\.safetensors: 0 bytes"):
        train(recipe, tmp_path / "another", branch_from=f"{origin}@4")


def test_other_data_is_refused(recipe: Recipe, finished: Path, tmp_path: Path) -> None:
    write_random_shards(tmp_path / "data", vocab_size=60, seed=1)
    with pytest.raises(XmodelError, match=r"is not the data that .*origin.* was trained on"):
        train(replace(recipe, {"data.dir": str(tmp_path / "data")}), tmp_path / "branch", branch_from=f"{finished}@8")
