"""Weights averaged over checkpoints: what each counts, and that the result is a checkpoint like another."""

import shutil
from pathlib import Path

import pytest
import torch

from xmodel2.errors import XmodelError
from xmodel2.eval.run import evaluate_run
from xmodel2.model import Xmodel2
from xmodel2.recipe import Recipe, load_recipe
from xmodel2.release.exporting.formats import export_model
from xmodel2.train import load_model
from xmodel2.train.average import average_checkpoints, ema_weights, half_life_weights, mean_weights
from xmodel2.train.checkpoint_writer import CheckpointWriter
from xmodel2.train.optimizer import build_optimizer
from xmodel2.train.schedule import wsd

STEPS = [4, 8, 10, 12]


@pytest.fixture(scope="module")
def run_dir(road: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with the data and tokenizer of the demo whose checkpoint at step N holds N everywhere."""
    run_dir = tmp_path_factory.mktemp("average") / "run"
    recipe: Recipe = load_recipe(road / "run" / "recipe.toml")
    model = Xmodel2(recipe.model)
    optimizer = build_optimizer(model.named_parameters(), recipe.model, recipe.train)
    writer = CheckpointWriter(run_dir, recipe, model, optimizer, always=STEPS)
    state = load_model(road / "run")[2]
    for step in STEPS:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(step)
        writer.save(step, {**state, "step": step, "stage": "stable", "tokens": step * recipe.train.batch_tokens})
    writer.close()
    shutil.copytree(road / "run" / "tokenizer", run_dir / "tokenizer")
    return run_dir


def value(out: Path) -> float:
    (found,) = {float(v) for p in load_model(out)[0].parameters() for v in p.detach().aminmax()}
    return found


@pytest.mark.parametrize(
    ("decay", "weights"),
    [
        ("mean", mean_weights(3)),
        ("ema:0.9", ema_weights(3, 0.9)),
        ("half-life:3", half_life_weights([8, 10, 12], 3)),
        ("half-life", half_life_weights([8, 10, 12], 4)),
    ],
)
def test_the_last_ones(run_dir: Path, tmp_path: Path, decay: str, weights: list[float]) -> None:
    averaged = average_checkpoints(run_dir, tmp_path / "out", last=3, decay=decay)
    assert (averaged["steps"], averaged["weights"]) == ([8, 10, 12], weights)
    assert sum(weights) == pytest.approx(1)
    assert value(tmp_path / "out") == pytest.approx(sum(w * s for w, s in zip(weights, [8, 10, 12], strict=True)))


def test_half_life_weights_undo_the_rate_as_a_decay_would() -> None:
    steps = list(range(100, 121))
    weights = half_life_weights(steps, half_life=7)
    moved = [sum(weights[i:]) for i in range(1, len(steps))]
    rates = [wsd(step, 1.0, 1, stable_steps=100, half_life_steps=7) for step in steps[1:]]
    assert moved == pytest.approx(rates)


def test_it_is_a_checkpoint_like_another(run_dir: Path, road: Path, tmp_path: Path) -> None:
    average_checkpoints(road / "run", tmp_path / "out", steps=[12, 20])
    model, _, state = load_model(tmp_path / "out")
    assert (state["step"], state["averaged"]["steps"]) == (20, [12, 20])
    assert set(evaluate_run(tmp_path / "out", ["heldout"])["heldout"]) == {"decay"}
    (exported,) = export_model(tmp_path / "out", ["hf"], tmp_path / "hf")
    assert exported["max_abs_difference"] < 1e-4
    again = average_checkpoints(road / "run", tmp_path / "out", steps=[20, 12], overwrite=True)
    assert again["steps"] == [12, 20]
    repeated = load_model(tmp_path / "out")[0]
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), repeated.parameters(), strict=True))


def test_what_cannot_be_averaged(run_dir: Path, tmp_path: Path) -> None:
    for wrong in ({}, {"last": 2, "steps": [4, 8]}):
        with pytest.raises(XmodelError, match="either --last N or --steps"):
            average_checkpoints(run_dir, tmp_path / "out", **wrong)
    for wrong in ({"last": 5}, {"last": 1}, {"last": 0}, {"steps": [4]}, {"steps": [4, 6]}):
        with pytest.raises(XmodelError, match=r"its checkpoints are 4, 8, 10, 12; name two or more"):
            average_checkpoints(run_dir, tmp_path / "out", **wrong)
    for decay in ("median", "ema", "ema:1", "ema:x", "half-life:0", "mean:2"):
        with pytest.raises(XmodelError, match="allowed are mean, ema:FACTOR"):
            average_checkpoints(run_dir, tmp_path / "out", last=2, decay=decay)
    assert not (tmp_path / "out").exists()


def test_a_damaged_checkpoint_is_not_averaged(run_dir: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run_dir, tmp_path / "run"))
    (copy / "checkpoints" / "step-8" / "model.safetensors").write_bytes(b"")
    with pytest.raises(XmodelError, match=r"step-8.*damaged"):
        average_checkpoints(copy, tmp_path / "out", last=3)
    average_checkpoints(copy, tmp_path / "out", last=2)
    assert value(tmp_path / "out") == 11
