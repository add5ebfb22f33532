"""Sweeps: the values that are tried, what is kept, and what goes on after a kill."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from xmodel2.errors import XmodelError
from xmodel2.recipe import Recipe, recipe_from_dict
from xmodel2.search.sweep import Cell, Sweep, read_cells, resized, run_sweep
from xmodel2.search.trial import TrialResult

RATE = Sweep("rate", "train.learning_rate", "width", (64, 128))


@pytest.fixture
def recipe() -> Recipe:
    model = {"hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 160}
    return recipe_from_dict({"model": model, "train": {"learning_rate": 0.01}})


class Runs:
    """Stands for training: a parabola in the rate's logarithm, with its lowest point where it is told."""

    def __init__(self, best: float, stop_after: int = 10**9) -> None:
        self.best, self.left, self.asked = best, stop_after, list[Recipe]()

    def __call__(self, recipes: list[Recipe]) -> list[TrialResult]:
        for recipe in recipes:
            if not self.left:
                raise KeyboardInterrupt
            self.left -= 1
            self.asked.append(recipe)
        return [
            TrialResult(3 + math.log2(one.train.learning_rate / self.best) ** 2 + one.seed / 100) for one in recipes
        ]


def test_values_go_on_until_the_best_is_inside_and_its_neighbours_get_all_seeds(recipe: Recipe, tmp_path: Path) -> None:
    runs = Runs(best=0.01 * 2**3.2)
    cells = list(run_sweep(recipe, RATE, [1, 2, 3], tmp_path, runs))
    first = sorted(cell.octave for cell in cells if cell.size == 64 and cell.seed == 1)
    assert first == [-2, -1, 0, 1, 2, 3, 4]
    assert sorted(cell.octave for cell in cells if cell.size == 64 and cell.seed == 2) == [2, 3, 4]
    assert {recipe.model.hidden_size for recipe in runs.asked} == {64, 128}
    assert cells == read_cells(tmp_path / "cells.jsonl")


@pytest.mark.parametrize(("at_once", "calls"), [(6, [6, 6]), (4, [4, 2, 4, 2])])
def test_every_value_with_every_seed_in_few_calls(
    recipe: Recipe, tmp_path: Path, at_once: int, calls: list[int]
) -> None:
    sweep = replace(RATE, octaves=(-4, -3, -2), every=True)
    groups: list[int] = []

    def run(recipes: list[Recipe]) -> list[TrialResult]:
        groups.append(len(recipes))
        return Runs(best=0.01)(recipes)

    cells = list(run_sweep(recipe, sweep, [1, 2], tmp_path, run, at_once))
    assert groups == calls
    assert [(cell.octave, cell.seed) for cell in cells if cell.size == 128] == [
        (octave, seed) for octave in (-4, -3, -2) for seed in (1, 2)
    ]


def test_a_sweep_of_the_rate_moves_that_of_muon_too(recipe: Recipe, tmp_path: Path) -> None:
    own, asked = recipe.train.muon_learning_rate, set[tuple[float, float]]()

    def run(recipes: list[Recipe]) -> list[TrialResult]:
        asked.update(
            (one.train.learning_rate / recipe.train.learning_rate, one.train.muon_learning_rate / own)
            for one in recipes
        )
        return Runs(best=0.01)(recipes)

    list(run_sweep(recipe, replace(RATE, octaves=(-1, 0, 1), every=True), [1], tmp_path, run))
    assert asked == {(0.5, 0.5), (1.0, 1.0), (2.0, 2.0)}


def test_a_grid_goes_on_in_the_folder_of_a_search_and_a_search_in_that_of_a_grid(
    recipe: Recipe, tmp_path: Path
) -> None:
    sweep = replace(RATE, octaves=(-2, -1, 0, 1, 2), every=True)
    runs = Runs(best=0.01)
    list(run_sweep(recipe, RATE, [1, 2], tmp_path, runs))
    before = len(runs.asked)
    list(run_sweep(recipe, sweep, [1, 2], tmp_path, runs))
    assert len(runs.asked) == 2 * 5 * 2 > before
    list(run_sweep(recipe, RATE, [1, 2], tmp_path, runs))
    assert len(runs.asked) == 2 * 5 * 2  # all that it wants is there


def test_an_optimum_out_of_reach_does_not_go_on_for_ever(recipe: Recipe, tmp_path: Path) -> None:
    cells = list(run_sweep(recipe, RATE, [1], tmp_path, Runs(best=0.01 * 2.0**-40)))
    assert len([cell for cell in cells if cell.size == 64]) == RATE.most


def test_what_diverges_sends_the_search_to_lower_values(recipe: Recipe, tmp_path: Path) -> None:
    def run(recipes: list[Recipe]) -> list[TrialResult]:
        return [TrialResult(math.nan if one.train.learning_rate > 0.002 else 3.0) for one in recipes]

    cells = list(run_sweep(recipe, RATE, [1], tmp_path, run))
    assert min(cell.octave for cell in cells) == -5  # -3 does not diverge, and its neighbours tell that it is no edge
    assert all(math.isnan(cell.loss) for cell in read_cells(tmp_path / "cells.jsonl") if cell.octave >= -2)


@pytest.mark.parametrize("at_once", [1, 3])
def test_a_killed_sweep_goes_on_where_it_was(recipe: Recipe, tmp_path: Path, at_once: int) -> None:
    whole = list(run_sweep(recipe, RATE, [1, 2], tmp_path / "whole", Runs(0.01)))
    with pytest.raises(KeyboardInterrupt):
        list(run_sweep(recipe, RATE, [1, 2], tmp_path / "killed", Runs(0.01, stop_after=6), at_once))
    path = tmp_path / "killed" / "cells.jsonl"
    kept = len(read_cells(path))
    path.write_bytes(path.read_bytes() + b'{"sweep": "rate", "los')  # a line that a kill cut off
    rest = Runs(0.01)
    list(run_sweep(recipe, RATE, [1, 2], tmp_path / "killed", rest, at_once))
    assert len(rest.asked) == len(whole) - kept
    by_place = {cell.place: cell.loss for cell in whole}
    assert {cell.place: cell.loss for cell in read_cells(path)} == by_place


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "cells.jsonl"
    path.write_text('{"sweep": 1}\n')
    with pytest.raises(XmodelError, match=r"cells.jsonl, line 1: not a finished cell"):
        read_cells(path)


def test_a_width_that_does_not_divide_into_heads(recipe: Recipe) -> None:
    with pytest.raises(XmodelError, match=r"--widths 100: is not a multiple of the recipe's head width 16"):
        resized(recipe, "width", 100)


def test_sizes_of_each_axis(recipe: Recipe) -> None:
    wide = resized(recipe, "width", 128).model
    assert (wide.hidden_size, wide.intermediate_size, wide.num_attention_heads, wide.num_key_value_heads) == (
        128,
        320,
        8,
        4,
    )
    assert wide.head_dim == recipe.model.head_dim
    assert wide.dim_model_base == recipe.model.dim_model_base
    assert resized(recipe, "depth", 7).model.num_hidden_layers == 7
    batch = resized(recipe, "batch", 3 * 4096)
    assert (batch.train.batch_tokens, batch.batch_rows % batch.train.micro_batch_size) == (3 * 4096, 0)
    assert batch.train.warmup_steps == round(recipe.train.warmup_steps * recipe.train.batch_tokens / (3 * 4096))
    whole = recipe.stages.stable.tokens + recipe.stages.decay.tokens
    half = resized(recipe, "length", whole // 2)
    assert half.stages.stable.tokens == recipe.stages.stable.tokens // 2
    assert half.train.warmup_steps == recipe.train.warmup_steps // 2
    stages = recipe.stages.stable.tokens, recipe.stages.decay.tokens
    shortest = math.ceil(recipe.train.batch_tokens * whole / min(stages))
    assert resized(recipe, "length", shortest).train.warmup_steps >= 1
    with pytest.raises(
        XmodelError, match=rf"--lengths {shortest - 1:,}: leaves less than a step .* at least {shortest:,}"
    ):
        resized(recipe, "length", shortest - 1)


def test_cells_are_told_apart_by_all_but_their_result() -> None:
    a, b = Cell("s", "standard", 1, 0.0, 1.0, 1, loss=2.0), Cell("s", "standard", 1, 0.0, 1.0, 1, loss=3.0)
    assert a.place == b.place != Cell("s", "standard", 1, 0.0, 1.0, 2).place
