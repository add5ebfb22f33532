"""`eval` on a run: suites by name, questions of the run's own data, and what it refuses."""

import json
import shutil
from pathlib import Path

import pytest

from xmodel2.data.questions import read_questions
from xmodel2.errors import XmodelError
from xmodel2.eval.open_model import RUN_SUITES
from xmodel2.eval.reasoning import evaluate_reasoning, majority_baseline
from xmodel2.eval.run import evaluate_run
from xmodel2.model import Xmodel2
from xmodel2.recipe import Recipe
from xmodel2.tokenizer import load_tokenizer
from xmodel2.train import load_model, train


def test_scores_stand_under_the_checkpoints_stage(road: Path) -> None:
    results = evaluate_run(road / "run" / "checkpoints" / "step-12", RUN_SUITES, limit=5)
    assert set(results["heldout"]) == set(results["questions"]) == {"stable"}
    assert results["questions"]["stable"]["count"] == len(results["transcripts"]["stable"]) == 5
    saved = json.loads((road / "run" / "results.json").read_text())
    assert results["heldout"]["stable"] == saved["heldout"]["stable"]


def test_bits_a_byte_follow_from_the_loss(road: Path) -> None:
    results = json.loads((road / "run" / "results.json").read_text())
    index = json.loads((road / "data" / "index.json").read_text())
    docs, split = results["heldout"]["decay"]["docs"], index["sources"]["docs"]["splits"]["heldout"]
    nats = docs["loss"] * (split["tokens"] - split["documents"])
    assert docs["bits_per_byte"] == pytest.approx(nats / 0.6931471805599453 / split["bytes"])


def test_questions_are_those_held_out(road: Path) -> None:
    held = read_questions(road / "data")
    asked = {json.loads(line)["question"] for line in (road / "corpus" / "reasoning.jsonl").read_text().splitlines()}
    assert len(held) == 18
    assert asked.isdisjoint(question["messages"][-2]["content"] for question in held)


def test_a_right_answer_counts_and_a_wrong_one_does_not(road: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, _, _ = load_model(road / "run")
    tokenizer = load_tokenizer(road / "run" / "tokenizer")
    questions = read_questions(road / "data")[:6]
    said = {e["messages"][-2]["content"]: e["messages"][-1]["content"] for e in questions[:3]}

    def oracle(_: Xmodel2, prompts: list[list[int]], *__: object, pieces: int) -> list[list[int]]:
        assert pieces == tokenizer.vocab_size
        texts = [tokenizer.decode(prompt) for prompt in prompts]
        return [tokenizer.encode(next((a for q, a in said.items() if q in text), "no idea")) for text in texts]

    monkeypatch.setattr("xmodel2.eval.reasoning.generate", oracle)
    outcome = evaluate_reasoning(model, tokenizer, questions)
    assert outcome["accuracy"] == 0.5
    assert [row["correct"] for row in outcome["transcripts"]] == [True] * 3 + [False] * 3


def test_majority_baseline() -> None:
    train = [{"task": "a", "answer": "yes"}, {"task": "a", "answer": "yes"}, {"task": "b", "answer": "1"}]
    held = [{"task": "a", "answer": "yes"}, {"task": "a", "answer": "no"}, {"task": "c", "answer": "1"}]
    assert majority_baseline(train, held)["accuracy"] == pytest.approx(1 / 3)


def test_what_eval_refuses(road: Path, tmp_path: Path) -> None:
    with pytest.raises(XmodelError, match="neither a run directory"):
        evaluate_run(tmp_path, ["heldout"])
    shutil.copytree(road / "data", tmp_path / "data")
    index = json.loads((tmp_path / "data" / "index.json").read_text())
    del index["sources"]["reasoning"]["questions"], index["sha256"]
    (tmp_path / "data" / "index.json").write_text(json.dumps(index))
    with pytest.raises(XmodelError, match="no held-out questions"):
        read_questions(tmp_path / "data")


def test_data_without_questions_is_no_fault_unless_they_are_asked_for(
    small_recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(small_recipe, tmp_path / "run")
    assert set(evaluate_run(tmp_path / "run", RUN_SUITES, skip=True)) == {"steps", "heldout"}
    with pytest.raises(XmodelError, match="no held-out questions"):
        evaluate_run(tmp_path / "run", RUN_SUITES)
