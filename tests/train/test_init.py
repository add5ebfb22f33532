"""Runs that begin with the weights of another."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from xmodel2.data.synthetic import write_random_shards
from xmodel2.errors import XmodelError
from xmodel2.recipe import ModelSettings, Recipe, load_recipe, replace
from xmodel2.train import RunResult, load_model, read_metrics, train
from xmodel2.train.checkpoint import check_files, checkpoint_steps
from xmodel2.train.step import LossModule, MicroBatch


@pytest.fixture(scope="module")
def base(small_recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of 20 steps."""
    run_dir = tmp_path_factory.mktemp("base") / "run"
    train(small_recipe, run_dir)
    return run_dir


@pytest.fixture
def chat(small_recipe: Recipe, tmp_path: Path) -> Recipe:
    """A recipe of other data, lengths and rates that says nothing of the model."""
    write_random_shards(tmp_path / "chat", vocab_size=60, seed=7)
    keys = {"data.dir": str(tmp_path / "chat"), "train.learning_rate": 0.002, "train.warmup_steps": 1}
    keys |= {"stages.stable.tokens": 4 * 64, "stages.stable.mixture": {"sft": 1.0}, "stages.decay.tokens": 4 * 64}
    keys |= {"stages.decay.sft_share": 1.0, "train.checkpoint_every": 3}
    model = {f"model.{name}": value for name, value in vars(ModelSettings()).items() if not name.startswith("_")}
    return replace(small_recipe, {**keys, **model})


def weights(run_dir: Path, step: int) -> dict[str, torch.Tensor]:
    return load_file(run_dir / "checkpoints" / f"step-{step}" / "model.safetensors")


def losses(run_dir: Path) -> list[float]:
    return [line["loss"] for line in read_metrics(run_dir) if "loss" in line]


def test_a_run_begins_with_the_weights_and_the_model_of_another(base: Path, chat: Recipe, tmp_path: Path) -> None:
    before = (base / "checkpoints" / "step-20" / "model.safetensors").read_bytes()
    assert train(chat, tmp_path / "run", init_from=base, stop_after=1) == RunResult(
        tmp_path / "run", 1, False, losses(tmp_path / "run")[0]
    )
    check_files(tmp_path / "run" / "checkpoints" / "step-0")
    first, last = weights(tmp_path / "run", 0), weights(base, 20)
    assert all(torch.equal(first[name], last[name]) for name in last)
    recipe = load_recipe(tmp_path / "run" / "recipe.toml")
    assert recipe.model == load_recipe(base / "recipe.toml").model
    assert recipe.total_steps == 8
    assert (base / "checkpoints" / "step-20" / "model.safetensors").read_bytes() == before


def test_stopped_and_gone_on_with_it_ends_as_if_never_stopped(base: Path, chat: Recipe, tmp_path: Path) -> None:
    gone = Path(shutil.copytree(base, tmp_path / "gone"))
    train(chat, tmp_path / "whole", init_from=gone)
    train(chat, tmp_path / "run", init_from=gone, stop_after=2)
    shutil.rmtree(gone)
    train(chat, tmp_path / "run", resume=True, stop_after=5)  # it needs neither the option nor the other run
    train(chat, tmp_path / "run", resume=True, init_from=gone)
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")
    one, other = load_model(tmp_path / "run")[0], load_model(tmp_path / "whole")[0]
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_the_guard_goes_back_to_these_weights(
    base: Path, chat: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward, calls = LossModule.forward, [0]

    def poisoned(self: LossModule, batch: MicroBatch) -> torch.Tensor:
        calls[0] += torch.is_grad_enabled()
        return forward(self, batch) * (float("nan") if calls[0] == 1 else 1.0)

    monkeypatch.setattr(LossModule, "forward", poisoned)
    recipe = replace(chat, {"guard.rollback_after": 1, "train.micro_batch_size": 4, "train.learning_rate": 1e-7})
    train(recipe, tmp_path / "run", init_from=base)
    assert json.loads((tmp_path / "run" / "guard.json").read_text())
    before, after = weights(base, 20), weights(tmp_path / "run", 8)
    assert all(torch.allclose(before[name], after[name], atol=1e-4) for name in before)


def test_what_does_not_go_is_named(base: Path, chat: Recipe, small_recipe: Recipe, tmp_path: Path) -> None:
    for key, value in (("hidden_size", 64), ("scale_emb", 6.0), ("rope_theta", 500.0), ("scale_depth", 2.0)):
        with pytest.raises(XmodelError, match=f"{key} is .* there and {value} here"):
            train(replace(small_recipe, {f"model.{key}": value}), tmp_path / "a", init_from=base)
    with pytest.raises(XmodelError, match="neither a run directory with checkpoints nor a checkpoint"):
        train(chat, tmp_path / "b", init_from=tmp_path / "absent")
    with pytest.raises(XmodelError, match="give one"):
        train(chat, tmp_path / "c", init_from=base, branch_from=f"{base}@12")
    with pytest.raises(XmodelError, match="did not begin with the weights of another run"):
        train(small_recipe, Path(shutil.copytree(base, tmp_path / "d")), init_from=base, resume=True)
    train(chat, tmp_path / "e", init_from=base, stop_after=1)
    other = Path(shutil.copytree(base, tmp_path / "other"))
    with pytest.raises(XmodelError, match="began with the weights of"):
        train(chat, tmp_path / "e", init_from=other, resume=True)
    with pytest.raises(XmodelError, match="is a run of its own, not a branch"):
        train(chat, tmp_path / "e", branch_from=f"{base}@12", resume=True)
    (tmp_path / "e" / "init.json").write_text("[]")
    with pytest.raises(XmodelError, match=r"init.json: wants in 'from' whose weights"):
        train(chat, tmp_path / "e", resume=True)
    (tmp_path / "e" / "init.json").write_text(f'{{"from": "{base.resolve()}"}}')
    shutil.rmtree(tmp_path / "e" / "checkpoints")
    with pytest.raises(XmodelError, match="give --init-from again"):
        train(replace(chat, {"model": vars(load_recipe(base / "recipe.toml").model)}), tmp_path / "e", resume=True)
    assert checkpoint_steps(tmp_path / "e") == []


def test_a_longer_context_and_fewer_pieces_may_be_said(base: Path, chat: Recipe, tmp_path: Path) -> None:
    longer = replace(chat, {"model.max_position_embeddings": 8192, "model.vocab_size": 50})
    with pytest.raises(XmodelError, match="its tokenizer has 60 pieces"):
        train(longer, tmp_path / "run")
    train(longer, tmp_path / "run", init_from=base, stop_after=1)
    model = load_recipe(tmp_path / "run" / "recipe.toml").model
    assert (model.max_position_embeddings, model.vocab_size, model.hidden_size) == (8192, 60, 32)


def test_a_first_checkpoint_that_is_lost_is_made_again(
    base: Path, chat: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("xmodel2.train.checkpoint_writer.publish", killed)
        with pytest.raises(KeyboardInterrupt):
            train(chat, tmp_path / "run", init_from=base)
    assert (tmp_path / "run" / "recipe.toml").exists()
    with pytest.raises(XmodelError, match="give --init-from again"):
        train(replace(chat, {"model": vars(load_recipe(base / "recipe.toml").model)}), tmp_path / "run", resume=True)
    train(chat, tmp_path / "run", init_from=base, resume=True, stop_after=1)
    assert checkpoint_steps(tmp_path / "run") == [0, 1]


def test_data_of_another_tokenizer_is_refused(base: Path, chat: Recipe, tmp_path: Path) -> None:
    source = Path(shutil.copytree(base, tmp_path / "source"))
    for folder, text in ((source, "one"), (Path(chat.data.dir), "another")):
        (folder / "tokenizer").mkdir(exist_ok=True)
        (folder / "tokenizer" / "tokenizer.json").write_text(text)
    with pytest.raises(XmodelError, match="made with another tokenizer than the weights"):
        train(chat, tmp_path / "run", init_from=source)
