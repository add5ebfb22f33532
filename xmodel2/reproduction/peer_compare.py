"""The comparison with a peer: factors of tokens and of time, their product, and its verdict."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from xmodel2.release.reporting.verdicts import HELD, NOT_HELD, NOT_TOLD
from xmodel2.reproduction.peer_numbers import Curve, loss_at, over_seeds, tokens_to_reach

BOUND = 0.6
"""Tokens-time to the peer's final loss, as a share of the peer's."""
PEERS = ("eager", "compiled")


class Tuned(NamedTuple):
    """Whether a side's best rate lies between others that were tried."""

    ours: bool = True
    peer: bool = True

    def settles(self, verdict: str) -> bool:
        """Tell whether a better rate of a side whose best is at its grid's edge could not overturn the verdict."""
        return self.peer if verdict == HELD else self.ours


BOTH_TUNED = Tuned()


def compare(
    ours: Mapping[int, Mapping[int, float]],
    peer: Mapping[int, float | None],
    whole: int,
    speed: Mapping[str, Any],
    tuned: Tuned = BOTH_TUNED,
) -> dict[str, Any]:
    """Return the comparison of losses {seed: {tokens: loss}} with those after ``whole`` tokens, {seed: loss}, and of times.

    A seed of which a run diverged is named, and leaves the verdict open, as does a rate that may be better still.
    """
    diverged = [seed for seed in ours if peer[seed] is None or not all(map(math.isfinite, ours[seed].values()))]
    curves: dict[int, Curve] = {seed: sorted(ours[seed].items()) for seed in ours if seed not in diverged}
    final = {seed: loss for seed, loss in peer.items() if seed in curves and loss is not None}
    reached = {seed: tokens_to_reach(curves[seed], final[seed]) for seed in curves}
    tokens = over_seeds({seed: place.tokens / whole for seed, place in reached.items() if place})
    tokens |= {
        "at_most": [seed for seed, place in reached.items() if place and place.at_most],
        "not_reached": [seed for seed, place in reached.items() if place is None],
        "longest": max((curve[-1][0] for curve in curves.values()), default=whole) / whole,
    }
    times = {name: speed[name] for name in PEERS}
    product = {name: _product(tokens, times[name]) for name in PEERS if times[name]}
    for row in product.values():
        if diverged or not tuned.settles(row["verdict"]):
            row["verdict"] = NOT_TOLD
    return {
        "difference": over_seeds({seed: dict(curves[seed])[whole] - final[seed] for seed in curves}),
        "tokens_factor": tokens,
        "time_factor": times,
        "tokens_time": product,
        "equal_time": {name: _equal_time(curves, final, whole, times[name]) for name in PEERS if times[name]},
        "diverged": diverged,
        "bound": BOUND,
        "verdict": product["eager"]["verdict"],
    }


def _product(tokens: dict[str, Any], time: dict[str, Any]) -> dict[str, Any]:
    """Return tokens factor x time factor; its interval is as wide as both together can make it."""
    if tokens["not_reached"] or tokens["mean"] is None:
        beyond = tokens["mean"] is None and tokens["longest"] * time["low"] > BOUND  # no seed reached it
        return {"factor": None, "interval": None, "verdict": NOT_HELD if beyond else NOT_TOLD}
    interval, verdict = None, NOT_TOLD
    if tokens["interval"]:
        low, high = tokens["interval"]
        interval = [max(0.0, low) * time["low"], high * time["high"]]
        if interval[1] <= BOUND:
            verdict = HELD
        elif interval[0] > BOUND and not tokens["at_most"]:
            verdict = NOT_HELD
    factor = tokens["mean"] * time["factor"]
    return {"factor": factor, "interval": interval, "verdict": verdict}


def _equal_time(
    curves: Mapping[int, Curve], final: Mapping[int, float], whole: int, time: dict[str, Any]
) -> dict[str, Any]:
    """Return our loss less the peer's after the peer's time; at our longest length, if there is time for more."""
    affordable = whole / time["factor"]
    tokens = min([affordable, *(curve[-1][0] for curve in curves.values())])
    losses = {seed: loss_at(curve, tokens) for seed, curve in curves.items()}
    differences = {seed: loss - final[seed] for seed, loss in losses.items() if loss is not None}
    return {"tokens": affordable, "measured_at": tokens, "difference": over_seeds(differences)}
