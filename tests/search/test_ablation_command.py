"""`xmodel2 ablate` as a user meets it: real runs, a table, a figure, and mistakes."""

import json
from pathlib import Path
from typing import Any

import pytest

from xmodel2.cli import main
from xmodel2.recipe import Recipe, recipe_to_toml, replace
from xmodel2.search.ablation_figure import ablation_figure
from xmodel2.search.trial import TrialResult


def ablate(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as stop:
        main(["ablate", *map(str, arguments)])
    return int(stop.value.code or 0)


@pytest.fixture
def file(small_recipe: Recipe, tmp_path: Path) -> Path:
    path = tmp_path / "recipe.toml"
    path.write_text(recipe_to_toml(replace(small_recipe, {"train.checkpoint_every": 1000})))
    return path


def test_runs_are_real(
    file: Path,
    small_recipe: Recipe,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "out"
    arguments = (file, "--compare", "embedding", "--out", out, "--rates", "0.5", "1", "--seeds", "2")
    data = ("--data", f"again={small_recipe.data.dir}")
    assert ablate(*arguments, *data, "--json") == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert found == json.loads((out / "ablation.json").read_text())
    assert "own_rate0.5_seed1: loss " in captured.err
    own, untied = found["comparisons"]["embedding"]["arms"]
    assert untied["parameters"] == own["parameters"]
    assert untied["parameters_total"] == own["parameters_total"] + 60 * 32
    assert untied["losses"].keys() == own["losses"].keys() == {"1", "2"}
    tokenizer = found["comparisons"]["tokenizer"]
    assert tokenizer["measure"] == "bits_per_byte"
    [_, again] = tokenizer["arms"]
    assert again["difference"] == pytest.approx(0, abs=1e-6)  # the same data by the same tokenizer
    assert again["tokens"] == own["tokens"]
    rows = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert len(rows) == 12
    assert all(
        row["loss"] > 0 and row["bits_per_byte"] > 0 and row["heldout"].keys() == {"text", "sft"} for row in rows
    )
    assert (out / "figures" / "ablation.svg").read_text().startswith("<svg")
    monkeypatch.setattr("xmodel2.search.ablation_runs.ablation_figure", lambda found: "<svg/>")
    assert ablate(*arguments) == 0
    printed = capsys.readouterr().out
    assert "untied" in printed
    assert "* best at the edge" in printed
    assert len((out / "results.jsonl").read_text().splitlines()) == 12


def test_the_figure_of_arms_that_diverged() -> None:
    sizes = {"parameters": 1_000_000, "parameters_total": 1_500_000}
    common: dict[str, Any] = {**sizes, "rate": 1.0, "at_edge": False, "losses": {}, "interval": None}
    own = {**common, "name": "own", "own": True, "mean": 3.0, "difference": None}
    arms = [own, {**common, "name": "a", "own": False, "mean": None, "rate": None, "difference": None}]
    drawn = ablation_figure({"comparisons": {"keys": {"measure": "loss", "arms": arms}}})
    assert "diverged" in drawn
    assert "nats a token" in drawn
    assert "1M in blocks, 1.5M in all" in drawn
    assert ablation_figure({"comparisons": {}}).startswith("<svg")


def test_arms_without_a_common_rate(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "xmodel2.search.ablation_runs.train_trials",
        lambda recipes, out: [TrialResult(3.0, {"text": 3.0}, 20, 1.0) for _ in recipes],
    )
    for name, rate in (("a", "1"), ("b", "2")):
        arm = f"{name}:train.weight_decay=0.5"
        assert ablate(file, "--out", tmp_path / "out", "--arm", arm, "--rates", rate, "--seeds", "1") == 0
    printed = capsys.readouterr().out
    assert "tried at no common rate; give the --rates of the earlier calls too" in printed


def test_mistakes_are_named(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for extra, message in (
        (("--compare", "dept"), "Did you mean 'depth'?"),
        (("--arm", "a"), "--arm 'a': write it as NAME:key=value,key=value"),
        (("--data", "bpe=nowhere"), "nowhere/index.json: not found"),
        (("--compare", "depth", "--seeds", "0"), "--seeds 0: give at least 1"),
    ):
        assert ablate(file, "--out", tmp_path / "out", *extra) == 1
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
