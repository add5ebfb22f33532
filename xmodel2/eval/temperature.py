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


@dataclass(frozen=True)
class Temperature:
    """A fitted temperature: above 1 where the model is over-confident, below 1 where it is too modest."""

    value: float
    low: float
    """Of a 95% interval, from the curvature of the likelihood and the spread of the items' slopes (the sandwich)."""
    high: float
    at_bound: bool
    """The items want one beyond `BOUNDS`: the model knows nothing of them, or everything."""


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
    if slopes(hottest).sum() >= 0:
        return Temperature(BOUNDS[1], BOUNDS[1], BOUNDS[1], True)
    if slopes(coldest).sum() <= 0:
        return Temperature(BOUNDS[0], BOUNDS[0], BOUNDS[0], True)
    inverse = float(brentq(lambda x: slopes(x).sum(), hottest, coldest, xtol=1e-10))
    p_NK = choices.probabilities(1 / inverse)
    curvature = ((p_NK * logits_NK**2).sum(1) - (p_NK * logits_NK).sum(1) ** 2).sum()
    error = float(np.sqrt((slopes(inverse) ** 2).sum()) / curvature)
    ends = [1 / np.clip(inverse + side * 1.96 * error, hottest, coldest) for side in (1, -1)]
    return Temperature(1 / inverse, float(ends[0]), float(ends[1]), False)


def halves(keys: tuple[str, ...], seed: int = 0) -> np.ndarray:
    """Return which half each item is in [N]: by a hash of its key, so that neither order nor other settings move it."""
    ranked = sorted(range(len(keys)), key=lambda i: hashlib.sha256(f"{seed} {keys[i]}".encode()).digest())
    half = np.zeros(len(keys), dtype=int)
    half[ranked[len(keys) // 2 :]] = 1
    return half


def cross_fit(choices: Choices, seed: int = 0) -> tuple[np.ndarray, tuple[Temperature, Temperature]]:
    """Return probabilities [N, K] of each half at the temperature fitted on the other, and the temperature that each used.

    Raises `XmodelError` if there are fewer than two items.
    """
    if len(choices.keys) < 2:
        raise XmodelError("temperature scaling: needs two items or more")
    half = halves(choices.keys, seed)
    used = (fit_temperature(choices.subset(half == 1)), fit_temperature(choices.subset(half == 0)))
    return choices.probabilities(np.where(half == 0, used[0].value, used[1].value)), used
