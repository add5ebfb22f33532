"""The transfer command: sweeps that are real trainings, gone on with, refused and drawn."""

import json
from pathlib import Path

import pytest

from xmodel2.cli import main
from xmodel2.recipe import Recipe, recipe_to_toml, replace
from xmodel2.search.sweep import read_cells

ARGUMENTS = ["--widths", "32,64", "--depths", "", "--sweeps", "scale_emb-width", "--seeds", "1", "--json"]


@pytest.fixture
def file(small_recipe: Recipe, tmp_path: Path) -> Path:
    path = tmp_path / "recipe.toml"
    path.write_text(recipe_to_toml(replace(small_recipe, {"train.checkpoint_every": 1000})))
    return path


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(["transfer", *arguments])
    code: int = stopped.value.code  # type: ignore[assignment]
    return code


def test_a_sweep_from_the_command_line(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert run(str(file), "--out", str(out), *ARGUMENTS) == 0
    result = json.loads(capsys.readouterr().out)
    [sweep] = result["sweeps"]
    assert [optimum["size"] for optimum in sweep["optima"]] == [32, 64]
    assert sweep["verdict"].startswith("not told")
    assert json.loads((out / "transfer.json").read_text()) == result
    assert (out / "figures" / "scale_emb-width.svg").read_text().startswith("<svg")
    before = (out / "cells.jsonl").read_bytes()
    assert run(str(file), "--out", str(out), *ARGUMENTS) == 0
    assert (out / "cells.jsonl").read_bytes() == before  # nothing is made twice
    capsys.readouterr()
    assert run(str(file), "--out", str(out), *ARGUMENTS, "--set", "train.weight_decay=0.5") == 1
    assert "another recipe (train.weight_decay was 0.1, is 0.5)" in capsys.readouterr().err


def test_octaves_are_those_of_both_parametrisations(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    arguments = ["--widths", "32,64", "--sweeps", "learning_rate-width", "--seeds", "2", "--octaves", "1,-1,0,0"]
    assert run(str(file), "--out", str(out), *arguments, "--set", "stages.stable.tokens=512", "--json") == 0
    made = [(cell.parametrization, cell.size, cell.octave, cell.seed) for cell in read_cells(out / "cells.jsonl")]
    assert made == [
        (rules, size, octave, seed)
        for rules in ("tensor_program", "standard")
        for size in (32, 64)
        for octave in (-1, 0, 1)
        for seed in (1, 2)
    ]
    assert [sweep["parametrization"] for sweep in json.loads(capsys.readouterr().out)["sweeps"]] == [
        "tensor_program",
        "standard",
    ]


def test_the_coordinate_check_from_the_command_line(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--widths", "32,64", "--depths", "2,3", "--sweeps", "coordinate", "--check-seeds", "1", "--json"]
    assert run(str(file), "--out", str(tmp_path / "out"), *arguments) == 0
    cases = json.loads(capsys.readouterr().out)["coordinate"]
    assert {"all rules", "standard", "no head"} <= set(cases)
    assert not cases["standard"]["held"]
    assert (tmp_path / "out" / "coordinate.json").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--widths", "32,50"], "--widths 50: is not a multiple"),
        (["--widths", "a,b"], "--widths 'a,b': write whole numbers"),
        (["--sweeps", "learning_rate-widht"], "learning_rate-width"),
        (["--octaves", "-1,0"], "--octaves '-1,0': give at least three"),
        (["--octaves=-1,0,nan"], "--octaves '-1,0,nan': an octave is a factor of two; give numbers from -30 to 30"),
        (["--octaves=-1,0,2000"], "give numbers from -30 to 30"),
        (["--octaves=-1,0,x"], "--octaves '-1,0,x': give numbers with commas"),
        (["--seeds", "0"], "--seeds 0: must be at least 1"),
        (["--widths", "64", "--depths", "2"], "nothing to do"),
        (["--sweeps", "coordinate", "--widths", "64"], "--widths 64: a slope needs at least two"),
    ],
)
def test_mistakes_are_named(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert run(str(file), "--out", str(tmp_path / "out"), *arguments) == 1
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out" / "cells.jsonl").exists()
