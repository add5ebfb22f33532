"""Temperature scaling: one number that makes a model's probabilities more or less certain, and changes no answer.

Guo, Pleiss, Sun, Weinberger, "On calibration of modern neural networks", 2017, section 4.2.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq

from xmodel2.errors import XmodelError
from xmodel2.eval.choices import Choices

BOUNDS = (0.01, 100.0)
"""Temperatures that are looked at."""
FEWEST = 10
"""Items below which no interval is given."""


@dataclass(frozen=True)
class Temperature:
    """A fitted temperature: above 1 where the model is over-confident, below 1 where it is too modest."""

    value: float
    """1 if none is determined."""
    low: float | None
    """Of a 95% interval, from the curvature of the likelihood and the spread of the items' slopes (the sandwich); 0 where it
    ends below `BOUNDS`. None without an interval: at a bound, or with fewer than `FEWEST` items."""
    high: float | None
    """None with ``low`` a number: it ends above `BOUNDS`."""
    at_bound: bool = False
    """The items want one beyond `BOUNDS`: the model knows nothing of them, or everything."""
    determined: bool = True
    """Not where all options of each item are equally likely: any temperature leaves them so."""


def fit_temperature(choices: Choices) -> Temperature:
    """Return the temperature at which the right options are likeliest.

    The mean negative log-likelihood is convex in 1 / temperature, so its slope has one zero at most.
    """
    logits_NK = np.where(np.isfinite(choices.loglikelihoods), choices.loglikelihoods, 0.0)
    right_N = logits_NK[np.arange(len(logits_NK)), choices.targets]

    def slopes(inverse: float) -> np.ndarray:
        expected = (choices.probabilities(1 / inverse) * logits_NK).sum(1)
        return np.asarray(expected - right_N)

    coldest, hottest = (1 / bound for bound in BOUNDS)
    if not np.any(logits_NK):  # less that of the chosen one, so that equal ones are all 0
        return Temperature(1.0, None, None, determined=False)
    if slopes(hottest).sum() >= 0:
        return Temperature(BOUNDS[1], None, None, at_bound=True)
    if slopes(coldest).sum() <= 0:
        return Temperature(BOUNDS[0], None, None, at_bound=True)
    inverse = float(brentq(lambda x: slopes(x).sum(), hottest, coldest, xtol=1e-10))
    p_NK = choices.probabilities(1 / inverse)
    curvature = ((p_NK * logits_NK**2).sum(1) - (p_NK * logits_NK).sum(1) ** 2).sum()
    error = float(np.sqrt((slopes(inverse) ** 2).sum()) / curvature)
    if len(right_N) < FEWEST:
        return Temperature(1 / inverse, None, None)
    largest, smallest = inverse + 1.96 * error, inverse - 1.96 * error
    low = 1 / largest if largest < coldest else 0.0
    return Temperature(1 / inverse, low, 1 / smallest if smallest > hottest else None)


def halves(keys: tuple[str, ...], seed: int = 0) -> np.ndarray:
    """Return which half each item is in [N]: by a hash of its key, so that neither order nor other settings move it."""
    ranked = sorted(range(len(keys)), key=lambda i: hashlib.sha256(f"{seed} {keys[i]}".encode()).digest())
    half = np.zeros(len(keys), dtype=int)
    half[ranked[len(keys) // 2 :]] = 1
    return half


def cross_fit(choices: Choices, seed: int = 0) -> tuple[np.ndarray, tuple[Temperature, Temperature]]:
    """Return each item's temperature [N], fitted on the half that it is not in, and that of each half.

    Raises `XmodelError` if there are fewer than two items.
    """
    if len(choices.keys) < 2:
        raise XmodelError("temperature scaling: needs two items or more")
    half = halves(choices.keys, seed)
    used = (fit_temperature(choices.subset(half == 1)), fit_temperature(choices.subset(half == 0)))
    return np.where(half == 0, used[0].value, used[1].value), used
