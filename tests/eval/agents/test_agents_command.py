"""`xmodel2 eval` plays the agents with any model and without one, and leaves what other evaluations leave."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.eval.rival_models import NATIVE, tiny_rival
from xmodel2.cli import main


def run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return int(stop.value.code or 0)


def results_of(folder: Path) -> Any:
    return json.loads((folder / "results.json").read_text())


def test_the_oracle_solves_all_four(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "oracle"
    assert run("eval", "oracle", "--backend", "baseline", "--limit", "2", "--out", out) == 0
    results = results_of(out)
    assert list(results["tasks"]) == ["hotpotqa", "fever", "alfworld", "webshop"]
    for name, task in results["tasks"].items():
        assert (task["score"], task["items"], task["of"], task["made_up"]) == (1.0, 2, None, True)
        assert "made-up" in task["world"]
        assert task["outcomes"] == {"solved": 2}
        assert task["num_fewshot"] is None
        items = [json.loads(line) for line in (out / "items" / f"{name}.jsonl").read_text().splitlines()]
        steps = [json.loads(line) for line in (out / "steps" / f"{name}.jsonl").read_text().splitlines()]
        assert len(steps) == sum(len(item["steps"]) for item in items)
    assert (results["suites"]["agents"]["average"], results["suites"]["agents"]["missing"]) == (1.0, [])
    assert "made-up" in capsys.readouterr().out
    assert "Agents (Table 4)" in (out / "results.html").read_text()
    assert (out / "items.html").exists()


def test_a_model_plays_and_is_not_asked_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, out = tiny_rival(NATIVE[0], tmp_path / "model", context=512), tmp_path / "out"
    arguments = ("eval", model, "--tasks", "fever", "--limit", "2", "--device", "cpu", "--out", out)
    assert run(*arguments) == 0
    before = results_of(out)["tasks"]["fever"]
    assert before["examples_shown"] < before["num_fewshot"]
    assert before["cut"] > 0

    def never(*_: Any) -> None:
        raise AssertionError("asked again")

    monkeypatch.setattr("xmodel2.eval.engine.Engine.converse", lambda engine, begin, reply: [never() for _ in begin])
    assert run(*arguments) == 0
    after = results_of(out)["tasks"]["fever"]
    assert {**after, "seconds": 0} == {**before, "seconds": 0}


def test_what_is_overwritten_is_kept_until_the_worlds_are_there(tmp_path: Path) -> None:
    out, agents = tmp_path / "out", tmp_path / "agents"
    arguments = ("eval", "oracle", "--backend", "baseline", "--tasks", "hotpotqa", "--limit", "1", "--out", out)
    assert run(*arguments) == 0
    (agents / "hotpotqa").mkdir(parents=True)
    (agents / "hotpotqa" / "dev-simplified.jsonl").write_text('{"question": \n')
    assert run(*arguments, "--overwrite", "--agents-dir", agents) == 1
    assert (out / "results.json").exists()
    assert run(*arguments, "--overwrite") == 0


def test_a_folder_without_agents_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = (
        "eval",
        "oracle",
        "--backend",
        "baseline",
        "--tasks",
        "fever",
        "--limit",
        "1",
        "--out",
        tmp_path / "out",
    )
    assert run(*arguments, "--data-dir", tmp_path / "nowhere") == 1
    assert f"--data-dir {tmp_path / 'nowhere'}: no such folder" in capsys.readouterr().err
    assert run(*arguments, "--data-dir", tmp_path) == 0
    assert "has no folder agents" in capsys.readouterr().err


def test_baselines_play_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("eval", "orcale", "--backend", "baseline", "--out", tmp_path / "out") == 1
    assert "Did you mean 'oracle'?" in capsys.readouterr().err
