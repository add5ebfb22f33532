"""The search space: `recipe.search.space` as distributions that Optuna draws from, and a draw as a recipe.

{"train.learning_rate": Range(low=0.001, high=0.1, step=0.001)}  ->  FloatDistribution  ->  0.013  ->  Recipe
"""

import itertools
import random
import tomllib
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from xmodel2.errors import XmodelError, nearest
from xmodel2.recipe import Recipe, recipe_to_toml, replace
from xmodel2.recipe.search import Range, Value

NOT_SEARCHED = ("name", "seed", "model.preset", "data.dir", "data.cache_dir", "search.")
"""Keys, or beginnings of keys, that are no hyperparameters: what they change would not show in a draw's loss."""
MOST_CHECKED = 64
"""Values of a range that are tried before the search begins; of a longer one, its two ends."""
OTHER_DRAWS = 64
"""Draws of the other keys with which a value that the recipe refuses is tried again, before it counts as impossible."""

Values = Mapping[str, Value]


def flat(recipe: Recipe) -> dict[str, Any]:
    """Return the recipe as {dotted key: value}, as its TOML has them."""
    return dict(_leaves(tomllib.loads(recipe_to_toml(recipe))))


def _leaves(tree: dict[str, Any], at: str = "") -> list[tuple[str, Any]]:
    return [
        leaf
        for key, value in tree.items()
        for leaf in (_leaves(value, f"{at}{key}.") if isinstance(value, dict) else [(f"{at}{key}", value)])
    ]


def distributions(recipe: Recipe) -> dict[str, BaseDistribution]:
    """Return what each key is drawn from: whole numbers where the recipe's own value is one.

    Raises `XmodelError` for a key that the recipe does not have, or a range that does not suit its type.
    """
    own = {key: value for key, value in flat(recipe).items() if not key.startswith(NOT_SEARCHED)}
    return {key: _distribution(key, range_, own) for key, range_ in sorted(recipe.search.space.items())}


def _distribution(key: str, range_: Range, own: dict[str, Any]) -> BaseDistribution:
    if key not in own:
        raise XmodelError(
            f"search.space: {key!r} is not a key of the recipe that can be searched.{nearest(key, own)}"
            ' Write the key as --set has it, such as "train.weight_decay"'
        )
    if range_.choices is not None:
        return CategoricalDistribution(range_.choices)
    if isinstance(own[key], bool) or not isinstance(own[key], int | float):
        raise XmodelError(f"search.space: {key} is {own[key]!r} in the recipe, not a number; give its choices")
    low, high, step = range_.low, range_.high, range_.step
    assert low is not None
    assert high is not None
    if isinstance(own[key], float):
        return FloatDistribution(low, _last(low, high, step), log=range_.log, step=step)
    if not all(isinstance(number, int) for number in (low, high, step or 1)):
        raise XmodelError(f"search.space: {key} takes whole numbers; give low, high and step without a point")
    return IntDistribution(int(low), int(_last(low, high, step)), log=range_.log, step=int(step or 1))


def _last(low: float, high: float, step: float | None) -> float:
    """Return the largest value on the grid: Optuna wants the range to be a whole number of steps."""
    if step is None:
        return high
    first, last, distance = (Decimal(str(number)) for number in (low, high, step))
    return float(first + (last - first) // distance * distance)


def drawn(recipe: Recipe, values: Values) -> Recipe:
    """Return the recipe with the values of a draw. Raises `XmodelError` if it refuses them."""
    return replace(recipe, rounded(values))


def rounded(values: Values) -> dict[str, Value]:
    """Return the values as a person writes them: steps of 0.1 add up to 1.7000000000000002."""
    return {key: float(f"{value:.12g}") if isinstance(value, float) else value for key, value in values.items()}


def check_space(recipe: Recipe) -> None:
    """Raise `XmodelError` for a value that the recipe refuses whatever the other keys are."""
    points = {key: _points(distribution) for key, distribution in distributions(recipe).items()}
    choose = random.Random(recipe.seed)
    for key, values in points.items():
        for value in values:
            others = ({k: choose.choice(v) for k, v in points.items()} | {key: value} for _ in range(OTHER_DRAWS))
            reason = _refusal(recipe, {key: value})
            if reason and all(_refusal(recipe, draw) for draw in others):
                raise XmodelError(f"search.space: {key} = {value!r} gives no recipe: {reason}")


def _refusal(recipe: Recipe, values: Values) -> str:
    try:
        drawn(recipe, values)
    except XmodelError as error:
        return str(error)
    return ""


def _points(distribution: BaseDistribution) -> Sequence[Value]:
    if isinstance(distribution, CategoricalDistribution):
        return [value for value in distribution.choices if value is not None]
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high, step = distribution.low, distribution.high, distribution.step
    if step is None or (high - low) / step >= MOST_CHECKED:
        return [low, high]
    grid = itertools.takewhile(lambda value: value <= high + step / 2, itertools.count(low, step))
    return list(grid)


def comparable_tokens(recipe: Recipe) -> int:
    """Return up to how many tokens losses of two draws compare: all, or the stable stage if stages differ in length."""
    space = recipe.search.space
    if not any(key.startswith("stages.") for key in space):
        return recipe.total_steps * recipe.train.batch_tokens
    stable = distributions(recipe).get("stages.stable.tokens")
    return int(min(_points(stable))) if stable else recipe.stages.stable.tokens
