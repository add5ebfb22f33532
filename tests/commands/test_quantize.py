"""The command's options and what it prints."""

import json
from pathlib import Path

import pytest

from xmodel2.cli import main


def run(*arguments: str | Path) -> int:
    """Run one command in this process and return its exit code."""
    with pytest.raises(SystemExit) as stop:
        main(["quantize", *map(str, arguments)])
    return int(stop.value.code or 0)


def test_a_run_is_quantised_into_a_folder_of_its_own(
    road: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--types", "int8", "--out", tmp_path / "out", "--limit-tokens", "100", "--rounds", "0")
    assert run(road / "run", *options) == 0
    printed = capsys.readouterr().out
    assert "int8" in printed
    assert str(tmp_path / "out" / "quantize.md") in printed
    assert run(road / "run", *options, "--json") == 0
    assert json.loads(capsys.readouterr().out)["types"]["int8"]["losses"]["all"]["tokens"] <= 104


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--types", "int3"], "Did you mean 'int8'?|Did you mean 'int4'?"),
        (["--limit-tokens", "0"], "--limit-tokens"),
        (["--rounds", "-1"], "--rounds"),
        ([], "is no run, so give --out"),
        (["--out", "x", "--data", "absent"], "absent/index.json: not found"),
    ],
)
def test_a_mistake_is_one_message(
    road: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(road / "hf", *options) == 1
    error = capsys.readouterr().err
    assert any(part in error for part in message.split("|"))
    assert "Traceback" not in error
