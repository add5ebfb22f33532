"""What is read off two sides' losses: tokens to the other's loss, loss at a number of tokens, means over seeds."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from scipy.special import stdtrit

Curve = Sequence[tuple[int, float]]
"""(tokens, loss) by rising tokens; between points the loss is linear in the logarithm of the tokens."""
LEVEL = 0.95


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
    found = list(values.values())
    if not found:
        return {"by_seed": {}, "mean": None, "error": None, "interval": None}
    mean, error, interval = sum(found) / len(found), None, None
    if len(found) > 1:
        variance = sum((value - mean) ** 2 for value in found) / (len(found) - 1)
        error = math.sqrt(variance / len(found))
        half = float(stdtrit(len(found) - 1, (1 + LEVEL) / 2)) * error
        interval = [mean - half, mean + half]
    return {
        "by_seed": {str(seed): value for seed, value in values.items()},
        "mean": mean,
        "error": error,
        "interval": interval,
    }
