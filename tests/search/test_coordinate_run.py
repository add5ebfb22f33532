"""The whole check: results are kept a model at a time, and nothing is measured twice."""

import json
from pathlib import Path
from typing import Any

import pytest

from xmodel2.errors import XmodelError
from xmodel2.recipe import Recipe, recipe_from_dict
from xmodel2.search import coordinate_run
from xmodel2.search.coordinate_run import OURS, run_coordinate_check

SMALL: dict[str, Any] = {"widths": (64, 32), "depths": (1, 2), "seeds": 1, "steps": 1, "cases": (OURS, "no head")}
RECIPE = recipe_from_dict(
    {"model": {"hidden_size": 64, "intermediate_size": 160, "num_attention_heads": 4, "num_key_value_heads": 2}}
)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Widths of the models that were trained; no figures are drawn."""
    widths: list[int] = []
    true_measure = coordinate_run.measure

    def counted(recipe: Recipe, seed: int, steps: int) -> Any:
        widths.append(recipe.model.hidden_size)
        return true_measure(recipe, seed, steps)

    monkeypatch.setattr(coordinate_run, "measure", counted)
    monkeypatch.setattr(coordinate_run.coordinate_figure, "figures", lambda cases: {})
    return widths


def test_results_and_figures_are_written(tmp_path: Path) -> None:
    said: list[str] = []
    summary = run_coordinate_check(RECIPE, tmp_path, **SMALL, progress=lambda what, done, total: said.append(what))
    assert json.loads((tmp_path / "coordinate.json").read_text()) == summary
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    assert names == {"coordinate-width.svg", "coordinate-depth.svg", "coordinate-rules.svg"}
    assert summary["cases"]["no head"]["width"]["sizes"] == [32, 64]
    assert not summary["cases"]["no head"]["held"]
    assert ("change over width", "logits") in [
        (found["criterion"], found["layer_class"]) for found in summary["cases"]["no head"]["violated"]
    ]
    assert said[0] == "all rules, width 32, seed 0"


def test_an_interrupted_check_goes_on(tmp_path: Path, measured: list[int]) -> None:
    whole = run_coordinate_check(RECIPE, tmp_path / "whole", **SMALL)
    assert measured == [32, 64, 64] * 2  # 64 wide with two layers is on both axes
    lines = (tmp_path / "whole" / "coordinate.jsonl").read_text()
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "coordinate.jsonl").write_text(lines[:-40])  # a kill tore the last line
    measured.clear()
    assert run_coordinate_check(RECIPE, tmp_path / "parts", **SMALL) == whole
    assert measured == [64]
    measured.clear()
    run_coordinate_check(RECIPE, tmp_path / "parts", **SMALL)
    assert not measured


def test_other_settings_are_measured_anew(tmp_path: Path, measured: list[int]) -> None:
    run_coordinate_check(RECIPE, tmp_path, **{**SMALL, "cases": (OURS,)})
    measured.clear()
    other = recipe_from_dict({"model": {"hidden_size": 64, "intermediate_size": 160, "num_attention_heads": 4,
                                        "num_key_value_heads": 2, "scale_emb": 3.0}})  # fmt: skip
    run_coordinate_check(other, tmp_path, **{**SMALL, "cases": (OURS,)})
    assert len(measured) == 3


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"widths": (64, 72)}, "72: is not a multiple of the recipe's head width 16"),
        ({"widths": (64, 64)}, "--widths 64 64: a slope needs at least two different sizes"),
        ({"depths": (2,)}, "--depths 2: a slope needs at least two different sizes"),
    ],
)
def test_sizes_that_cannot_be_compared(sizes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(XmodelError, match=message):
        run_coordinate_check(RECIPE, tmp_path, **{**SMALL, **sizes})
