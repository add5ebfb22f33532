"""`xmodel2 scaling` as a user meets it."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from xmodel2.cli import main
from xmodel2.eval.test_time import scaling_law
from xmodel2.eval.test_time_text import Text


class Fake:
    """A scorer whose loss falls as ``b`` t^-0.5 to 2."""

    max_length, prefix_token_id = 64, 0

    def __init__(self, name: str, b: float) -> None:
        self.description, self.b = {"name": name}, b

    def encode(self, text: str) -> list[int]:
        return [ord(character) for character in text]

    def token_losses(self, rows: Sequence[Sequence[int]]) -> Iterator[tuple[int, np.ndarray]]:
        for index, row in enumerate(rows):
            yield index, 2 + self.b * np.arange(1.0, len(row)) ** -0.5 + np.array(row[1:]) % 5 / 100


def run(*arguments: str | Path) -> int:
    """Run one command in this process and return its exit code."""
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return int(stop.value.code or 0)


def test_a_run_is_measured_once(road: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    measure = (
        "scaling",
        road / "run",
        "--text",
        road / "corpus" / "docs.jsonl",
        "--max-context",
        "32",
        "--stride",
        "300",
    )
    assert run(*measure, "--draws", "50", "--out", tmp_path / "one", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["settings"]["context"] == 32
    assert result["model"]["parameters"] > 0
    assert run(*measure, "--draws", "50", "--out", tmp_path / "one") == 0  # from the losses that are there
    assert "scaling.svg" in capsys.readouterr().out


def test_measurements_are_drawn_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = Text("x", ["abcdefghijklm" * n for n in range(3, 33)])
    for name, b in (("nano", 3.0), ("flat", 0.0)):
        scaling_law(Fake(name, b), text, tmp_path / name, draws=20)
    assert run("scaling", "--from", tmp_path / "nano", "--from", tmp_path / "flat", "--out", tmp_path / "both") == 0
    said = capsys.readouterr().out
    assert "0.500 (" in said
    assert "flat: no law is given: the loss" in said
    assert (tmp_path / "both" / "scaling.svg").read_text().startswith("<svg")
    assert run("scaling", "--from", tmp_path / "nano", "--out", tmp_path / "one", "--json") == 0
    assert json.loads(capsys.readouterr().out)[0]["model"]["name"] == "nano"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "give a MODEL to measure, or --from DIR"),
        (("x", "--from", "y"), "give a MODEL to measure, or --from DIR"),
        (("--from", "y"), "--from draws into --out DIR"),
        (
            ("--from", "y", "--text", "a", "--stride", "4", "--draws", "50"),
            "--text, --stride, --draws would not be used",
        ),
        (("--from", "y", "--dtype", "bfloat16"), "--dtype would not be used"),
        (("x", "--backend", "endpoint"), "only --backend transformers gives"),
        (("x", "--text", "a", "--data-dir", "b"), "not both"),
        (("x", "--draws", "3"), "--draws must be 20 or more"),
        (("x", "--text", "absent.txt"), "absent.txt: no such file"),
    ],
)
def test_a_mistake_is_one_message(arguments: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("scaling", *arguments) == 1
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error
