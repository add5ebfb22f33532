"""What the loop does with what evaluates: when it is called, with which weights, and that its troubles stay its own."""

import json
import os
import random
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from xmodel2.recipe import Recipe, replace
from xmodel2.train import load_model, read_metrics, train
from xmodel2.train.evaluation import Alive, Snapshot, has_scores, outcome


@pytest.fixture
def recipe(small_recipe: Recipe) -> Recipe:
    return replace(small_recipe, {"evaluation.every": 5, "train.checkpoint_every": 100})


def evaluations(run: Path) -> list[dict[str, Any]]:
    return [line for line in read_metrics(run) if line.get("kind") == "evaluation"]


def test_it_is_called_with_the_weights_of_its_step(recipe: Recipe, tmp_path: Path) -> None:
    seen: dict[int, dict[str, torch.Tensor]] = {}

    def evaluate(snapshot: Snapshot, alive: Alive) -> dict[str, float]:
        seen[snapshot.step] = {name: tensor.clone() for name, tensor in snapshot.tensors.items()}
        return {"piqa": snapshot.step / 100}

    assert train(recipe, tmp_path / "run", evaluate=evaluate).finished
    assert list(seen) == [5, 10, 12, 15, 20]
    for step in (12, 20):
        saved = dict(load_model(tmp_path / "run" / "checkpoints" / f"step-{step}")[0].named_parameters())
        assert saved.keys() == seen[step].keys()
        assert all(torch.equal(saved[name], tensor) for name, tensor in seen[step].items())
    assert [line["scores"] for line in evaluations(tmp_path / "run")] == [{"piqa": step / 100} for step in seen]
    seen.clear()
    train(replace(recipe, {"evaluation.every": 0}), tmp_path / "off", evaluate=evaluate)
    assert seen == {}


def test_a_failure_is_told_once_and_ends_nothing(
    recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def evaluate(snapshot: Snapshot, alive: Alive) -> dict[str, float]:
        if snapshot.step < 20:
            raise RuntimeError("the disk is on fire")
        return {"piqa": 0.5}

    assert train(recipe, tmp_path / "run", evaluate=evaluate).finished
    lines = evaluations(tmp_path / "run")
    assert [line.get("error") for line in lines] == ["RuntimeError: the disk is on fire"] * 4 + [None]
    assert capsys.readouterr().err.count("on fire") == 1


def stopped(alive: Alive) -> dict[str, float]:
    """Evaluate while SIGTERM comes."""
    os.kill(os.getpid(), signal.SIGTERM)
    for _ in range(1000):
        alive("piqa 1/2")
    return {}


def test_a_signal_stops_it_and_resuming_comes_back_to_it(recipe: Recipe, tmp_path: Path) -> None:
    steps: list[int] = []

    def evaluate(snapshot: Snapshot, alive: Alive) -> dict[str, float]:
        steps.append(snapshot.step)
        return stopped(alive) if len(steps) == 1 else {"piqa": 0.5}

    result = train(recipe, tmp_path / "run", evaluate=evaluate)
    assert (result.finished, result.step) == (False, 5)
    assert evaluations(tmp_path / "run") == []
    assert train(recipe, tmp_path / "run", resume=True, evaluate=evaluate).finished
    assert steps == [5, 5, 10, 12, 15, 20]
    train(recipe, tmp_path / "run", resume=True, evaluate=evaluate)
    assert steps == [5, 5, 10, 12, 15, 20]


def test_a_run_whose_last_evaluation_was_stopped_is_not_finished(recipe: Recipe, tmp_path: Path) -> None:
    def evaluate(snapshot: Snapshot, alive: Alive) -> dict[str, float]:
        return stopped(alive) if snapshot.step == 20 else {"piqa": 0.5}

    result = train(recipe, tmp_path / "run", evaluate=evaluate)
    assert (result.finished, result.step) == (False, 20)
    assert train(recipe, tmp_path / "run", resume=True, evaluate=lambda *_: {"piqa": 0.5}).finished
    assert [line["step"] for line in evaluations(tmp_path / "run")] == [5, 10, 12, 15, 20]


def test_scores_of_a_step_that_was_made_again_are_not_its_own(tmp_path: Path) -> None:
    def write(*lines: dict[str, Any]) -> None:
        (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    made, scored = {"step": 12, "loss": 4.0}, {"step": 12, "kind": "evaluation", "scores": {"piqa": 0.5}}
    write(made, scored, {"step": 12, "kind": "heldout"}, {"step": 13, "loss": 4.0})
    assert has_scores(tmp_path, 12)
    write(made, scored, made)
    assert not has_scores(tmp_path, 12)
    write(made, scored, {"step": 12, "kind": "skipped"})
    assert not has_scores(tmp_path, 12)
    write(made, {"step": 12, "kind": "evaluation", "error": "the disk is on fire"})
    assert not has_scores(tmp_path, 12)


def test_random_states_are_left_as_they_were(recipe: Recipe, tmp_path: Path) -> None:
    def states() -> tuple[Any, ...]:
        return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # type: ignore[index]

    def evaluate(snapshot: Snapshot, alive: Alive) -> dict[str, float]:
        return {"noise": random.random() + np.random.rand() + float(torch.rand(1))}

    before = states()
    found = outcome("scores", evaluate, Snapshot(recipe, tmp_path, 1, torch.device("cpu"), {}), lambda what: None)
    assert found is not None
    assert states() == before
