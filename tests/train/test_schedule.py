"""Learning rates: WSD against its formula (MiniCPM, arXiv 2404.06395), other shapes of its decay, and one cosine over the run."""

import math
from itertools import pairwise
from typing import Any

import pytest

from xmodel2.recipe import Recipe, replace
from xmodel2.train.schedule import falling, rate_at, stage_of, wsd

SHAPES = ("linear", "cosine", "1-sqrt")


def rates(recipe: Recipe, **train: Any) -> list[float]:
    """Return the rates of all 20 steps: 3 of warm-up, 12 stable with them, 8 of decay; the peak is 1."""
    keys = {f"train.{key}": value for key, value in {"learning_rate": 1.0, **train}.items()}
    changed = replace(recipe, keys)
    return [rate_at(changed, step) for step in range(1, changed.total_steps + 1)]


def test_three_pieces() -> None:
    rates = [wsd(s, 0.01, warmup_steps=10, stable_steps=100, half_life_steps=20) for s in range(1, 161)]
    assert rates[:10] == pytest.approx([0.001 * s for s in range(1, 11)])
    assert set(rates[9:100]) == {0.01}
    assert rates[119] == pytest.approx(0.005)
    assert rates[159] == pytest.approx(0.00125)
    assert all(a > b for a, b in pairwise(rates[99:]))


def test_no_warmup_and_no_decay() -> None:
    assert [wsd(s, 1.0, 0, 5, 1) for s in range(1, 6)] == [1.0] * 5


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_falls_from_the_peak_to_what_is_left(shape: str) -> None:
    assert (falling(shape, 0.0), falling(shape, 0.0, final=0.1)) == (1.0, 1.0)
    assert falling(shape, 1.0) == pytest.approx(0.0, abs=1e-15)
    assert falling(shape, 1.0, final=0.1) == pytest.approx(0.1)
    assert all(a > b for a, b in pairwise(falling(shape, i / 50) for i in range(51)))


def test_shapes_by_their_formulas() -> None:
    for x in (0.1, 0.36, 0.81):
        assert falling("linear", x) == pytest.approx(1 - x)
        assert falling("cosine", x) == pytest.approx(math.cos(math.pi * x / 2) ** 2)
        assert falling("1-sqrt", x, final=0.2) == pytest.approx(0.2 + 0.8 * (1 - x**0.5))
    with pytest.raises(KeyError):
        falling("square", 0.5)


@pytest.mark.parametrize("shape", ["exponential", *SHAPES])
def test_the_shape_changes_the_decay_alone(small_recipe: Recipe, shape: str) -> None:
    found = rates(small_recipe, decay_shape=shape)
    assert found[:12] == pytest.approx([1 / 3, 2 / 3, *[1.0] * 10])
    assert all(a > b for a, b in pairwise(found[11:]))
    expected = 0.5 ** (8 / 2) if shape == "exponential" else 0.0  # the exponential's half-life is 2 steps
    assert found[-1] == pytest.approx(expected, abs=1e-15)


def test_the_first_step_of_a_decay_is_its_first_part(small_recipe: Recipe) -> None:
    assert rates(small_recipe, decay_shape="linear")[12:] == pytest.approx([1 - i / 8 for i in range(1, 9)])


def test_what_is_left_at_the_end(small_recipe: Recipe) -> None:
    for shape in SHAPES:
        assert rates(small_recipe, decay_shape=shape, final_learning_rate_share=0.1)[-1] == pytest.approx(0.1)
    assert rates(small_recipe, schedule="cosine", final_learning_rate_share=0.1)[-1] == pytest.approx(0.1)
    exponential = rates(small_recipe, final_learning_rate_share=0.1)
    assert exponential == rates(small_recipe)  # it ends where its half-life takes it


def test_one_cosine_over_both_stages(small_recipe: Recipe) -> None:
    found = rates(small_recipe, schedule="cosine", decay_shape="linear")
    assert found[:3] == pytest.approx([1 / 3, 2 / 3, 1.0])
    assert found[3:] == pytest.approx([math.cos(math.pi * i / 17 / 2) ** 2 for i in range(1, 18)], abs=1e-15)
    assert [stage_of(small_recipe, step) for step in (1, 12, 13, 20)] == ["stable", "stable", "decay", "decay"]


def test_a_cosine_without_warmup_and_a_run_without_decay(small_recipe: Recipe) -> None:
    assert rates(small_recipe, schedule="cosine", warmup_steps=0)[:2] == pytest.approx([0.9938, 0.9755], abs=1e-4)
    stable = replace(small_recipe, {"stages.decay.tokens": 0})
    for shape in ("exponential", *SHAPES):
        assert rates(stable, decay_shape=shape)[-1] == 1.0
