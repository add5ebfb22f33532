"""`xmodel2 scaling` as a user meets it."""

import json
from pathlib import Path

import pytest

from xmodel2.cli import main


def run(*arguments: str | Path) -> int:
    """Run one command in this process and return its exit code."""
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return int(stop.value.code or 0)


def test_a_run_is_measured_and_drawn_with_another(
    road: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
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
    both = ("--from", tmp_path / "one", "--from", tmp_path / "one", "--out", tmp_path / "both")
    assert run("scaling", *both) == 0
    assert (tmp_path / "both" / "scaling.svg").read_text().startswith("<svg")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "give a MODEL to measure, or --from DIR"),
        (("x", "--from", "y"), "give a MODEL to measure, or --from DIR"),
        (("--from", "y"), "--from draws into --out DIR"),
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
