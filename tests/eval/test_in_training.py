"""A run is scored while it trains: its losses stay the same, a killed evaluation goes on, and what lacks is told first."""

import argparse
import inspect
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace as changed
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.eval.benchmark_rows import ROWS
from xmodel2.commands.train import train as train_command
from xmodel2.data.synthetic import write_random_shards
from xmodel2.errors import XmodelError
from xmodel2.eval.engine import Engine
from xmodel2.eval.in_training import InTraining, tasks_of
from xmodel2.eval.open_model import open_backend
from xmodel2.eval.tasks import SUITES
from xmodel2.files import sha256_file
from xmodel2.recipe import Recipe, recipe_to_toml, replace
from xmodel2.tokenizer import train_unigram
from xmodel2.train import load_model, read_metrics, train
from xmodel2.train.evaluation import Snapshot


@pytest.fixture(scope="module")
def recipe(small_recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """20 steps, of which 8, 12, 16 and 20 are evaluated, on data with a tokenizer."""
    folder = tmp_path_factory.mktemp("evaluated")
    write_random_shards(folder / "data", vocab_size=500, seed=0)
    train_unigram([inspect.getsource(argparse)], 500, folder / "data" / "tokenizer")
    for task, split in (("arc_easy", "test"), ("piqa", "validation")):
        (folder / "mirror" / task).mkdir(parents=True)
        lines = "".join(json.dumps(row) + "\n" for row in ROWS[task])
        (folder / "mirror" / task / f"{split}.jsonl").write_text(lines)
    evaluation = {"every": 8, "tasks": ["arc_easy", "piqa"], "data_dir": str(folder / "mirror")}
    return replace(
        small_recipe,
        {
            "data.dir": str(folder / "data"),
            "model.vocab_size": 500,
            "train.checkpoint_every": 100,
            **{f"evaluation.{key}": value for key, value in evaluation.items()},
        },
    )


@pytest.fixture(autouse=True)
def _no_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their figure takes longer than all else here; test_evaluation.py looks at them."""
    monkeypatch.setattr("xmodel2.eval.evaluation.write_pages", lambda out: None)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return what counts the questions of each call of the model; a negative number beforehand kills it at that call."""
    calls: list[int] = []
    score = Engine.loglikelihood

    def counted(self: Engine, pairs: Sequence[tuple[str, str]]) -> Iterator[tuple[int, tuple[float, bool]]]:
        if calls[:1] == [-len(calls)]:
            raise Killed
        calls.append(len(pairs))
        return score(self, pairs)

    monkeypatch.setattr(Engine, "loglikelihood", counted)
    return calls


class Killed(BaseException):
    """As SIGKILL, nothing handles it."""


def evaluations(run: Path) -> list[dict[str, Any]]:
    return [line for line in read_metrics(run) if line.get("kind") == "evaluation"]


def test_training_is_the_same_bit_for_bit(recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(recipe, tmp_path / "off")
    assert train(recipe, tmp_path / "on", evaluate=InTraining(recipe)).finished
    steps = [
        [(line["loss"], line["grad_norm"]) for line in read_metrics(tmp_path / run) if "kind" not in line]
        for run in ("off", "on")
    ]
    assert steps[0] == steps[1]
    for file in ("model", "optimizer"):
        off, on = (tmp_path / run / "checkpoints" / "step-20" / f"{file}.safetensors" for run in ("off", "on"))
        assert sha256_file(off) == sha256_file(on)
    lines = evaluations(tmp_path / "on")
    assert [(line["step"], line["stage"]) for line in lines] == [
        (8, "stable"),
        (12, "stable"),
        (16, "decay"),
        (20, "decay"),
    ]
    assert all(set(line["scores"]) == {"arc_easy", "piqa"} for line in lines)
    assert lines[0]["tokens"] == 8 * 64
    assert evaluations(tmp_path / "off") == []
    assert f"step 8: arc_easy {lines[0]['scores']['arc_easy']:.3f}  piqa " in capsys.readouterr().err

    results = json.loads((tmp_path / "on" / "evaluation" / "during" / "step-20" / "results.json").read_text())
    assert results["model"]["dtype"] == "float32"
    saved = open_backend(str(tmp_path / "on"))
    pairs = [("Question: Boil water\nAnswer:", " Heat it.")]
    model, _, _ = load_model(tmp_path / "on")
    assert (
        results["model"]["parameters"] == saved.description["parameters"] == sum(p.numel() for p in model.parameters())
    )
    item = json.loads((tmp_path / "on" / "evaluation" / "during" / "step-20" / "items" / "piqa.jsonl").read_text())
    [(_, (nats, _))] = saved.loglikelihood(pairs)
    assert item["output"][0] == pytest.approx(nats, abs=1e-5)


def test_a_killed_evaluation_goes_on_and_one_that_ended_is_not_made_again(
    recipe: Recipe, tmp_path: Path, asked: list[int]
) -> None:
    run, evaluator = tmp_path / "run", InTraining(recipe)

    def killed_at(call: int) -> list[int]:
        asked[:] = [-call]
        with pytest.raises(Killed):
            train(recipe, run, resume=True, evaluate=evaluator)
        return asked[1:]

    assert killed_at(2) == [5]  # step 8, of which no checkpoint is kept: after the first task of two
    assert killed_at(3) == [2, 5]  # came there again, with the same weights; step 12 is one of a checkpoint
    asked.clear()
    assert train(recipe, run, resume=True, evaluate=evaluator).finished
    assert asked == [2, 5, 2, 5, 2]
    assert [line["step"] for line in evaluations(run)] == [8, 12, 16, 20]
    assert train(recipe, run, resume=True, evaluate=evaluator).finished
    assert asked == [2, 5, 2, 5, 2]


def test_answers_are_those_of_the_same_weights_only(recipe: Recipe, tmp_path: Path, asked: list[int]) -> None:
    train(recipe, tmp_path / "run", stop_after=1)
    model, _, _ = load_model(tmp_path / "run")
    evaluator, tensors = InTraining(recipe), {name: p.detach() for name, p in model.named_parameters()}
    snapshot = Snapshot(recipe, tmp_path / "run", 1, torch.device("cpu"), tensors)
    random_state = torch.get_rng_state()
    first = evaluator(snapshot, lambda what: None)
    assert evaluator(snapshot, lambda what: None) == first
    assert asked == [5, 2]
    tensors["norm.weight"] = tensors["norm.weight"] + 0.5
    evaluator(snapshot, lambda what: None)
    evaluator(changed(snapshot, recipe=replace(recipe, {"train.precision": "bf16"})), lambda what: None)
    assert asked == [5, 2] * 3
    InTraining(replace(recipe, {"evaluation.limit": 1}))(snapshot, lambda what: None)
    assert asked == [*[5, 2] * 3, 3, 2]
    assert torch.equal(torch.get_rng_state(), random_state)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks": ["arc_esy"]}, r"evaluation\.tasks: 'arc_esy': there are commonsense, .* Did you mean 'arc_easy'\?"),
        (
            {"data_dir": "absent"},
            r"evaluation\.data_dir absent: no such folder; `xmodel2 eval fetch --tasks arc_easy,piqa",
        ),
        ({"tasks": ["piqa", "sciq"]}, r"evaluation\.tasks: .*sciq.*no such file.*xmodel2 eval fetch --tasks sciq"),
    ],
)
def test_what_lacks_is_told_before_the_first_step(
    recipe: Recipe, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    bad = replace(recipe, {f"evaluation.{key}": value for key, value in changes.items()})
    (tmp_path / "recipe.toml").write_text(recipe_to_toml(bad))
    with pytest.raises(XmodelError, match=message):
        train_command(tmp_path / "recipe.toml", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_data_without_a_tokenizer_is_told(recipe: Recipe, small_recipe: Recipe) -> None:
    with pytest.raises(XmodelError, match=r"has no tokenizer/.*set evaluation\.every = 0"):
        InTraining(replace(recipe, {"data.dir": small_recipe.data.dir}))


def test_suites_are_their_tasks() -> None:
    assert tasks_of(["gsm8k", "commonsense", "piqa"]) == [*SUITES["commonsense"], "gsm8k"]


@pytest.mark.parametrize(("name", "how"), [("agents", "--suite agents"), ("alfworld", "--tasks alfworld")])
def test_agents_are_played_afterwards(name: str, how: str) -> None:
    with pytest.raises(XmodelError, match=rf"evaluation\.tasks: '{name}' is not played .*: `xmodel2 eval RUN {how}`"):
        tasks_of(["piqa", name])
