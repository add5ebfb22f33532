"""Warmup-Stable-Decay: the learning rate as a pure function of the step (MiniCPM, arXiv 2404.06395, adopted by the report).

    s < W        lr * s / W            warm-up
    W <= s < S   lr                    stable
    s >= S       lr * 0.5 ** ((s-S)/T) decay

Steps are counted from 1 for the first update, so that the first update already learns; nothing is stored between steps.
"""

from xmodel2.recipe import Recipe


def wsd(step: int, learning_rate: float, warmup_steps: int, stable_steps: int, half_life_steps: int) -> float:
    """Return the rate of update ``step`` (from 1); W, S and T in steps.

    >>> [wsd(s, 0.01, warmup_steps=2, stable_steps=4, half_life_steps=2) for s in (1, 2, 3, 4, 6, 8)]
    [0.005, 0.01, 0.01, 0.01, 0.005, 0.0025]
    """
    if step < warmup_steps:
        return learning_rate * step / warmup_steps
    if step < stable_steps:
        return learning_rate
    return learning_rate * 0.5 ** ((step - stable_steps) / half_life_steps)


def rate_at(recipe: Recipe, step: int) -> float:
    """Return the rate of update ``step`` (from 1) of a recipe's run, at width dim_model_base."""
    train = recipe.train
    return wsd(step, train.learning_rate, train.warmup_steps, recipe.stable_steps, train.decay_half_life_steps)


def stage_of(recipe: Recipe, step: int) -> str:
    """Return the stage of update ``step`` (from 1)."""
    return "stable" if step <= recipe.stable_steps else "decay"
