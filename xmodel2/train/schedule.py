"""Warmup-Stable-Decay: the learning rate as a pure function of the step (MiniCPM, arXiv 2404.06395, adopted by the report).

    s < W        lr * s / W            warm-up
    W <= s < S   lr                    stable
    s >= S       lr * 0.5 ** ((s-S)/T) decay

Steps are counted from 1 for the first update, so that the first update already learns; nothing is stored between steps. Other
shapes of the decay, and one cosine over the whole run, are there to be compared with it.
"""

import math

from xmodel2.recipe import Recipe, TrainSettings


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


def falling(shape: str, progress: float, final: float = 0.0) -> float:
    """Return the share of the peak rate when ``progress`` (0 to 1) of a decay is done; ``final`` is left at its end.

    >>> [round(falling(shape, 0.25), 3) for shape in ("linear", "cosine", "1-sqrt")]
    [0.75, 0.854, 0.5]
    """
    left = {
        "linear": 1 - progress,
        "cosine": (1 + math.cos(math.pi * progress)) / 2,
        "1-sqrt": 1 - math.sqrt(progress),
    }[shape]
    return final + (1 - final) * left


def rate_at(recipe: Recipe, step: int) -> float:
    """Return the rate of update ``step`` (from 1) of a recipe's run, at width dim_model_base."""
    train, stable = recipe.train, recipe.stable_steps
    peak = train.learning_rate
    if train.schedule == "cosine":
        return _after(step, train.warmup_steps, recipe.total_steps, "cosine", train)
    if train.decay_shape == "exponential" or step < stable:
        return wsd(step, peak, train.warmup_steps, stable, train.decay_half_life_steps)
    return _after(step, stable, recipe.total_steps, train.decay_shape, train)


def _after(step: int, begin: int, end: int, shape: str, train: TrainSettings) -> float:
    """Return the rate when a decay goes from step ``begin`` to ``end``, after a warm-up."""
    if step <= begin:
        return wsd(step, train.learning_rate, train.warmup_steps, begin, 1)
    return train.learning_rate * falling(shape, (step - begin) / (end - begin), train.final_learning_rate_share)


def stage_of(recipe: Recipe, step: int) -> str:
    """Return the stage of update ``step`` (from 1)."""
    return "stable" if step <= recipe.stable_steps else "decay"
