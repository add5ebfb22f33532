"""What is printed of an evaluation: every score with what it holds for, and nothing that moves a terminal's cursor."""

from pathlib import Path
from typing import Any

import pytest

from xmodel2.output import print_evaluation

MADE_UP = "made-up encyclopedia, seed 0: 400 articles, 200 questions"


def entry(**changes: Any) -> dict[str, Any]:
    found = {"metric": "exact_match", "score": 0.5, "interval": [0.3, 0.7], "items": 20, "of": None, "version": None}
    found |= {"world": MADE_UP, "made_up": True, "examples": "the oracle", "mean_steps": 3.5}
    return {**found, "outcomes": {"solved": 10, "wrong": 10, "out of steps": 0}, **changes}


def results(name: str, tasks: dict[str, Any], **suites: list[str]) -> dict[str, Any]:
    averages = {suite: {"average": 0.5, "interval": [0.4, 0.6], "missing": names} for suite, names in suites.items()}
    return {"model": {"name": name}, "settings": {"limit": 20}, "tasks": tasks, "suites": averages}


def test_an_agents_score_is_printed_with_its_world(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = {"metric": "acc", "score": 0.5, "interval": [0.4, 0.6], "items": 500, "of": 500, "num_fewshot": 0, "cut": 0}
    tasks = {"openbookqa": whole, "hotpotqa": entry(), "fever": entry(items=20, of=9999, world="FEVER", made_up=False)}
    print_evaluation(results("nano", tasks, commonsense=[], agents=["alfworld", "webshop"]), tmp_path)
    said = capsys.readouterr().out
    assert "500 of 500 " in said
    assert "acc, 0-shot" in said
    assert "20; made-up encyclopedia, seed 0: 400 … " in said
    assert "20 of 9,999; FEVER " in said
    assert "without alfworld, webshop, made-up tasks" in said
    assert " whole " in said  # commonsense, whatever the agents are
    assert f"hotpotqa: {MADE_UP}; examples by the oracle\n" in said
    assert "10 solved, 10 wrong; 3.5 steps on average" in said
    assert "None" not in said


def test_hostile_text_is_written_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hostile = "[red]\x1b[2J\u202e\x00"
    task = entry(world=hostile, examples=hostile, outcomes={hostile: 20})
    print_evaluation(results(hostile, {"hotpotqa": task}), tmp_path)
    said = capsys.readouterr().out
    assert said.count("[red]\\x1b[2J\\u202e\\x00") == 5
    assert not set("\x1b\u202e\x00") & set(said)
