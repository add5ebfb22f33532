"""The coordinate check holds Table 6's rules to be right, and says which criterion each of them is for."""

import math
from dataclasses import replace as changed
from typing import Any

import pytest

from tests.plain_kernels import kernels_everywhere
from xmodel2.model import tensor_program
from xmodel2.recipe import Recipe, recipe_from_dict
from xmodel2.search.coordinate import (
    ALL_LOGITS,
    BOUND,
    CLASSES,
    HIDDEN,
    LOGITS,
    Finding,
    Series,
    coordinate_check,
    findings,
    measure,
    probe_recipe,
)

SIZES = {"hidden_size": 64, "intermediate_size": 160, "num_attention_heads": 2, "num_key_value_heads": 1}
BREAKS = {
    "embedding": ("start of order one", "embedding"),
    "residual": ("start over depth", "residual stream"),
    "initialisation": ("start over width", "feed-forward"),
    "learning_rate": ("change over width", "queries, keys, values"),
    "head": ("change over width", "logits"),
}
FLAT = Series((64, 128, 256), {name: [[1.2, 0.1, 0.2]] * 3 for name in CLASSES})


def recipe(train: dict[str, Any] | None = None, **model: Any) -> Recipe:
    return recipe_from_dict({"model": {**SIZES, **model}, "train": train or {}})


def violated(found: list[Finding]) -> list[tuple[str, str]]:
    return [(finding.criterion, finding.layer_class) for finding in found if not finding.held]


def growing(name: str, column: int, exponent: float) -> Series:
    rows = [list(row) for row in FLAT.rms[name]]
    for row, size in zip(rows, FLAT.sizes, strict=True):
        row[column] *= size**exponent
    return changed(FLAT, rms={**FLAT.rms, name: rows})


def test_rules_hold() -> None:
    found = coordinate_check(
        recipe(hidden_size=128, intermediate_size=320, num_attention_heads=4, num_key_value_heads=2)
    )
    assert not violated(found), found


@pytest.mark.parametrize("rule", BREAKS)
def test_each_rule_has_a_criterion_that_fails_without_it(rule: str) -> None:
    found = coordinate_check(recipe(rules_off=[rule]), widths=(64, 256), depths=(2, 8), seeds=1, steps=1)
    broken = {(finding.criterion, finding.layer_class): finding for finding in found if not finding.held}
    finding = broken[BREAKS[rule]]
    if finding.criterion != "start of order one":
        assert finding.figure > 6 * BOUND  # clearly


def test_a_gpu_with_kernels_of_its_own_measures_the_same() -> None:
    arguments = {"widths": (64, 128), "depths": (2, 8), "seeds": 1, "steps": 1}
    plain = coordinate_check(recipe(), **arguments)
    with kernels_everywhere():
        found = coordinate_check(recipe(), **arguments)
    assert [finding.figure for finding in found] == pytest.approx([finding.figure for finding in plain], abs=1e-3)


def test_standard_parametrisation_grows() -> None:
    found = coordinate_check(recipe(parametrization="standard"), widths=(64, 256), depths=(2, 8), seeds=1, steps=1)
    grown = [f.layer_class for f in found if f.criterion == "change over width" and f.figure > 0.5]
    assert grown == [*HIDDEN[1:], LOGITS]


def test_muon_is_measured_too() -> None:
    muon = measure(probe_recipe(recipe({"optimizer": "muon"})), seed=0, steps=1)
    adamw = measure(probe_recipe(recipe()), seed=0, steps=1)
    assert all(muon[name][0] == adamw[name][0] for name in CLASSES)
    assert muon["feed-forward"][1] != adamw["feed-forward"][1]


def test_the_same_seed_measures_the_same() -> None:
    assert measure(probe_recipe(recipe()), 3, 2) == measure(probe_recipe(recipe()), 3, 2)


def test_a_broken_rule_is_told_whatever_the_recipe_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensor_program, "learning_rate_scale", lambda name, tensor, settings: 1.0)
    assert BREAKS["learning_rate"] in violated(coordinate_check(recipe(), (64, 256), (2, 4), seeds=1, steps=1))


def test_flat_series_violate_nothing() -> None:
    assert not violated(findings(FLAT, FLAT))


@pytest.mark.parametrize(
    ("name", "column", "exponent", "expected"),
    [
        ("attention", 0, 0.06, [("start over width", "attention")]),
        ("attention", 0, -0.06, [("start over width", "attention")]),
        ("attention", 2, 0.06, [("change over width", "attention")]),
        ("attention", 2, 0.04, []),
        (ALL_LOGITS, 0, 0.06, [("start over width", "logits")]),
        (ALL_LOGITS, 0, -0.5, []),
        (ALL_LOGITS, 2, -0.4, []),
        (LOGITS, 1, -0.1, [("change over width", "logits")]),
    ],
)
def test_verdict_over_width(name: str, column: int, exponent: float, expected: list[tuple[str, str]]) -> None:
    assert violated(findings(growing(name, column, exponent), FLAT)) == expected


def test_verdict_over_depth_is_about_the_start() -> None:
    assert violated(findings(FLAT, growing("residual stream", 0, 0.5))) == [("start over depth", "residual stream")]
    assert not violated(findings(FLAT, growing("residual stream", 2, 0.5)))


@pytest.mark.parametrize("size", [0.1, 12.0])
def test_a_stream_must_start_at_order_one(size: float) -> None:
    series = changed(FLAT, rms={**FLAT.rms, "embedding": [[size, 0.1, 0.2]] * 3})
    assert violated(findings(series, FLAT)) == [("start of order one", "embedding")]


def test_what_is_no_number_is_not_held() -> None:
    series = changed(FLAT, rms={**FLAT.rms, "attention": [[1.0, math.nan, 1.0]] * 3})
    assert violated(findings(series, FLAT)) == [("change over width", "attention")]
