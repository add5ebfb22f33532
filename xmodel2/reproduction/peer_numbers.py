"""What is read off two sides' losses: tokens to the other's loss, loss at a number of tokens, means over seeds."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from xmodel2.search.over_seeds import mean_and_error, t_interval

Curve = Sequence[tuple[int, float]]
"""(tokens, loss) by rising tokens; between points the loss is linear in the logarithm of the tokens."""


class Reached(NamedTuple):
    """Tokens at which a curve comes down to a loss."""

    tokens: float
    at_most: bool
    """The shortest length is below the loss already, so that fewer tokens may do."""


def tokens_to_reach(curve: Curve, loss: float) -> Reached | None:
    """Return where a curve first comes down to ``loss``; None if it does not.

    >>> tokens_to_reach([(100, 5.0), (400, 4.0)], 4.5)
    Reached(tokens=200.0, at_most=False)
    """
    if curve[0][1] <= loss:
        return Reached(float(curve[0][0]), True)
    for (a, before), (b, after) in pairwise(curve):
        if after <= loss:
            share = (before - loss) / (before - after)
            return Reached(round(a * (b / a) ** share, 6), False)
    return None


def loss_at(curve: Curve, tokens: float) -> float | None:
    """Return a curve's loss at a number of tokens; None outside its lengths.

    >>> loss_at([(100, 5.0), (400, 4.0)], 200)
    4.5
    """
    for (a, before), (b, after) in pairwise(curve):
        if a <= tokens <= b:
            share = math.log(tokens / a) / math.log(b / a)
            return before + share * (after - before)
    return None


def over_seeds(values: Mapping[int, float]) -> dict[str, Any]:
    """Return a value by seed, its mean, and the error and interval (Student's t, 95%) of the mean; None with one seed."""
    mean, error = mean_and_error(list(values.values()))
    interval = t_interval(mean, error, len(values))
    return {
        "by_seed": {str(seed): value for seed, value in values.items()},
        "mean": mean,
        "error": error,
        "interval": interval and list(interval),
    }
