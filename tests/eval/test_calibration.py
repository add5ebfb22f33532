"""Calibration against models whose calibration is known: by construction, by drawing, and at the ends of what can be."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xmodel2.errors import XmodelError
from xmodel2.eval.calibration import calibrate, measures
from xmodel2.eval.choices import Choices, make_choices, read_choices
from xmodel2.eval.temperature import BOUNDS, cross_fit, fit_temperature, halves

LEVELS = {0.6: 40, 0.8: 60}
"""True probability of the likelier of two options, to the number of items."""


def stated(overstatement: float) -> Choices:
    """Return items of which each level is right exactly as often as it should be, its log-odds overstated by a factor."""
    options, targets = [], []
    for level, count in LEVELS.items():
        for item in range(count):
            options.append(overstatement * np.log([level, 1 - level]) - 7.0)
            targets.append(0 if item < round(level * count) else 1)
    return make_choices(options, targets)


def drawn(count: int, overstatement: float = 1.0, options: int = 4, seed: int = 0) -> Choices:
    """Return items answered right with the true probability of the option, log-likelihoods overstated by a factor."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=1.2, size=(count, options))
    true = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    targets = (true.cumsum(1) > rng.random((count, 1))).argmax(1)
    return make_choices(list(overstatement * np.log(true)), targets)


@pytest.mark.parametrize("overstatement", [0.5, 1.0, 2.0, 4.0])
def test_errors_are_the_analytic_ones(overstatement: float) -> None:
    says = {level: 1 / (1 + ((1 - level) / level) ** overstatement) for level in LEVELS}
    apart = {level: abs(says[level] - level) for level in LEVELS}
    found = calibrate(stated(overstatement), draws=20)
    assert found["accuracy"]["value"] == pytest.approx(0.72)
    assert found["confidence"] == pytest.approx(sum(says[level] * count for level, count in LEVELS.items()) / 100)
    assert found["ece"]["value"] == pytest.approx(sum(apart[level] * count for level, count in LEVELS.items()) / 100)
    assert found["mce"]["value"] == pytest.approx(max(apart.values()))
    brier = sum(c * 2 * (p * (1 - says[p]) ** 2 + (1 - p) * says[p] ** 2) for p, c in LEVELS.items()) / 100
    nats = -sum(c * (p * np.log(says[p]) + (1 - p) * np.log(1 - says[p])) for p, c in LEVELS.items()) / 100
    assert found["brier"]["value"] == pytest.approx(brier)
    assert found["nll"]["value"] == pytest.approx(nats)


@pytest.mark.parametrize("overstatement", [0.5, 1.0, 2.0, 4.0])
def test_temperature_undoes_what_was_overstated(overstatement: float) -> None:
    fitted = fit_temperature(stated(overstatement))
    assert fitted.value == pytest.approx(overstatement, rel=1e-6)
    assert fitted.low is not None
    assert fitted.high is not None
    assert fitted.low < overstatement < fitted.high
    assert measures(stated(overstatement), fitted.value, draws=5)["ece"]["value"] == pytest.approx(0, abs=1e-6)


def test_a_right_option_of_no_probability_costs_what_it_does() -> None:
    choices = make_choices([[0.0, -1000.0], [0.0, 0.0]], [1, 0])
    assert choices.nats() == pytest.approx([1000.0, np.log(2)])
    assert choices.nats(np.array([0.1, 1.0])) == pytest.approx([10_000.0, np.log(2)])
    assert measures(choices, draws=5)["nll"]["value"] == pytest.approx((1000 + np.log(2)) / 2)


def test_a_calibrated_model_errs_by_chance_only() -> None:
    found = calibrate(drawn(3000), draws=200)
    assert found["ece"]["value"] < found["ece_by_chance"]["high"]
    assert found["ece"]["low"] == 0
    assert found["ece_debiased"] < found["ece"]["value"]
    assert found["gap"]["low"] < 0 < found["gap"]["high"]
    inside = [
        row["interval"][0] <= row["confidence"] <= row["interval"][1] for row in found["bins"] if row["items"] > 100
    ]
    assert sum(inside) >= len(inside) - 1


def test_an_over_confident_model_is_told_and_mended() -> None:
    found = calibrate(drawn(3000, overstatement=2.0), draws=100)
    scaled = found["temperature"]
    assert found["gap"]["low"] > 0
    assert found["ece"]["low"] > found["ece_by_chance"]["high"]
    assert found["over_confidence"] > 10 * found["under_confidence"]
    assert scaled["low"] < 2.0 < scaled["high"]
    assert all(half == pytest.approx(2.0, rel=0.1) for half in scaled["halves"])
    assert scaled["after"]["ece"]["low"] == 0
    assert scaled["after"]["accuracy"] == found["accuracy"]
    assert scaled["after"]["brier"]["high"] < found["brier"]["low"]
    assert scaled["after"]["nll"]["high"] < found["nll"]["low"]


def test_a_modest_model_is_told() -> None:
    found = calibrate(drawn(3000, overstatement=0.5), draws=100)
    assert found["gap"]["high"] < 0
    assert found["under_confidence"] > 10 * found["over_confidence"]
    assert found["temperature"]["low"] < 0.5 < found["temperature"]["high"]


def test_intervals_hold_what_they_should() -> None:
    """The error of many items lies inside most intervals of 40 samples of few."""
    many = drawn(50_000, 1.5)
    true = measures(many, draws=2)
    held = {"ece": 0, "brier": 0, "nll": 0, "gap": 0}
    for seed in range(1, 41):
        choices = drawn(500, 1.5, seed=seed)
        found = measures(choices, draws=100)
        for name in held:
            held[name] += found[name]["low"] <= true[name]["value"] <= found[name]["high"]
    assert all(count >= 33 for count in held.values()), held


def test_what_all_options_share_is_nothing() -> None:
    rng = np.random.default_rng(1)
    plain = drawn(200, 1.5)
    moved = make_choices([row + 100 * rng.normal() for row in plain.loglikelihoods], plain.targets)
    assert _rounded(calibrate(moved, draws=20)) == _rounded(calibrate(plain, draws=20))


def test_the_order_of_options_is_nothing() -> None:
    plain = drawn(200, 1.5)
    turned = make_choices([row[::-1] for row in plain.loglikelihoods], 3 - plain.targets)
    assert _rounded(calibrate(turned, draws=20)) == _rounded(calibrate(plain, draws=20))


def test_items_with_different_numbers_of_options() -> None:
    rows = [[0.0, 0.0], [0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 0.0]]
    found = calibrate(make_choices(rows, [0, 0, 0]), draws=10)
    assert found["options"] == [2, 4, 5]
    assert found["confidence"] == pytest.approx((1 / 2 + 1 / 4 + 1 / 5) / 3)
    assert found["brier"]["value"] == pytest.approx(found["guess"]["brier"])
    assert found["nll"]["value"] == pytest.approx(found["guess"]["nll"])
    mixed = [*drawn(1500, 1.7, options=2).loglikelihoods, *drawn(1500, 1.7, options=5).loglikelihoods]
    targets = [*drawn(1500, 1.7, options=2).targets, *drawn(1500, 1.7, options=5).targets]
    fitted = fit_temperature(make_choices(mixed, targets))
    assert fitted.low is not None
    assert fitted.high is not None
    assert fitted.low < 1.7 < fitted.high


def test_a_bin_has_its_upper_edge() -> None:
    rows = [row for row in calibrate(make_choices([[0.0, 0.0]], [0]), draws=2)["bins"] if row["items"]]
    assert [row["bin"] for row in rows] == [[0.4, 0.5]]


def test_the_parts_of_the_error_add_up() -> None:
    found = calibrate(drawn(300, 1.2), draws=10)
    assert found["over_confidence"] + found["under_confidence"] == pytest.approx(found["ece"]["value"])
    assert sum(row["items"] for row in found["bins"]) == found["items"] == 300
    assert found["over_confidence"] - found["under_confidence"] == pytest.approx(found["gap"]["value"])


def test_who_knows_everything_or_nothing_has_no_temperature() -> None:
    sure = [[0.0, -3.0]] * 10
    right, wrong = calibrate(make_choices(sure, [0] * 10), draws=5), calibrate(make_choices(sure, [1] * 10), draws=5)
    assert right["temperature"]["at_bound"]
    assert wrong["temperature"]["at_bound"]
    assert (right["temperature"]["value"], wrong["temperature"]["value"]) == BOUNDS
    assert calibrate(make_choices([[0.0, -1.0]], [0]), draws=5)["temperature"] is None
    flat = calibrate(make_choices([[0.0, 0.0]] * 10, [0, 1] * 5), draws=5)
    assert flat["ece"]["value"] == 0
    assert json.loads(json.dumps(wrong, allow_nan=False)) == wrong


def test_halves_depend_on_keys_and_seed_only() -> None:
    keys = tuple(f"algebra {i}" for i in range(101))
    half = halves(keys)
    assert abs(2 * half.sum() - 101) == 1
    assert (halves(keys[::-1])[::-1] == half).all()
    assert (halves(keys, seed=1) != half).any()
    choices = make_choices(list(drawn(101).loglikelihoods), drawn(101).targets, keys=keys)
    temperature_N, (first, second) = cross_fit(choices)
    assert first == fit_temperature(choices.subset(half == 1))
    assert (temperature_N == np.where(half == 0, first.value, second.value)).all()


def test_subjects_are_measured_each() -> None:
    sure, unsure = drawn(400, 3.0), drawn(400, 1.0, seed=2)
    rows = [*sure.loglikelihoods, *unsure.loglikelihoods]
    names = ["law"] * 400 + ["physics"] * 400
    found = calibrate(make_choices(rows, [*sure.targets, *unsure.targets], names), draws=50)
    assert list(found["parts"]) == ["law", "physics"]
    assert found["parts"]["law"]["gap"]["low"] > 0.1
    assert found["parts"]["physics"]["gap"]["low"] < 0 < found["parts"]["physics"]["gap"]["high"]
    assert found["parts"]["law"]["items"] == 400


@pytest.mark.parametrize(
    ("options", "targets", "message"),
    [
        ([[0.0, -1.0], [0.0]], [0, 0], "item 1: needs finite log-likelihoods of two options or more"),
        ([[0.0, float("nan")]], [0], "item 0: needs finite log-likelihoods"),
        ([[0.0, -float("inf")]], [0], "item 0: needs finite log-likelihoods"),
        ([[0.0, -1.0]], [2], "item 0: the right option is number 2 of 2"),
        ([], [], "no items"),
    ],
)
def test_what_cannot_be_calibrated_is_named(options: list[list[float]], targets: list[int], message: str) -> None:
    with pytest.raises(XmodelError, match=message):
        make_choices(options, targets)


def test_items_are_read_in_the_order_of_their_numbers(evaluation: Callable[..., Path]) -> None:
    rows = [
        item(2, [-2.0, -1.0], 1, part="mmlu_college_biology"),
        item(1, [-1.0, -3.0], "yes", part="mmlu_college_biology"),
        item(0, [-1.0, -4.0, -2.0], 2, part="mmlu_anatomy"),
    ]
    choices = read_choices(evaluation("run", {"mmlu": rows}), "mmlu")
    assert choices.parts == ("anatomy", "college biology", "college biology")
    assert choices.keys == ("mmlu_anatomy 0", "mmlu_college_biology 1", "mmlu_college_biology 2")
    assert choices.targets.tolist() == [2, 0, 1]
    assert choices.loglikelihoods.tolist() == [[0, -3, -1], [0, -2, -np.inf], [-1, 0, -np.inf]]
    assert calibrate(choices, draws=2)["accuracy"]["value"] == pytest.approx(2 / 3)


def test_which_of_two_sentences_is_right_follows_from_the_score(evaluation: Callable[..., Path]) -> None:
    rows = [item(0, [-1.0, -2.0], "is it.") | {"correct": 0}, item(1, [-1.0, -2.0], "is it.")]
    assert read_choices(evaluation("run", {"winogrande": rows}), "winogrande").targets.tolist() == [1, 0]


def test_a_task_that_cannot_be_calibrated_is_named(evaluation: Callable[..., Path]) -> None:
    generated = item(0, "4", "4") | {"options": None}
    folder = evaluation("run", {"arc_easy": [item(0, [-1.0, -2.0, -3.0], "perhaps")], "gsm8k": [generated]})
    for task, message in {
        "mmlu": r"mmlu.jsonl: no such items; the evaluation has arc_easy, gsm8k",
        "gsm8k": "gsm8k is not multiple choice: item 0",
        "arc_easy": r"arc_easy.jsonl: item 0: the target 'perhaps' is none of its options; evaluate arc_easy again",
    }.items():
        with pytest.raises(XmodelError, match=message):
            read_choices(folder, task)


def item(number: int, output: Any, target: int | str, part: str | None = None) -> dict[str, Any]:
    """Return a line of an evaluation's items, of options "yes", "no", "maybe"; the first is chosen."""
    options = ["yes", "no", "maybe"][: len(output)]
    fixed = {"prompt": "Is it?", "options": options, "answer": 0, "scores": {"acc": 1.0}, "correct": 1}
    return {"id": number, "part": part, "output": output, "target": target, **fixed}


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_rounded(inner) for inner in value]
    return round(value, 9) if isinstance(value, float) else value
