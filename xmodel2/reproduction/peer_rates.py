"""The best peak rate of each side, from equally many trials: where one side's best is at its edge, both try another."""

import math
from collections.abc import Callable, Mapping, Sequence

from xmodel2.errors import XmodelError
from xmodel2.search.rates import is_edge

Tried = dict[float, float]
"""Loss by rate; infinite if it diverged."""
Run = Callable[[float], float]

_STEP = 2.0
"""Between rates of a grid that has only one."""


def tune_both(
    ours: tuple[Run, Sequence[float]], theirs: tuple[Run, Sequence[float]], widen: int
) -> tuple[Tried, Tried]:
    """Return the losses of both grids, widened up to ``widen`` times. Raises `XmodelError` if nothing of a side converged."""
    sides = [(run, {rate: _finite(run(rate)) for rate in sorted(rates)}) for run, rates in (ours, theirs)]
    for _ in range(widen):
        if not any(at_edge(tried) for _, tried in sides):
            break
        for run, tried in sides:
            rate = next_rate(tried)
            tried[rate] = _finite(run(rate))
    for name, (_, tried) in zip(("our", "the peer's"), sides, strict=True):
        if math.isinf(min(tried.values())):
            raise XmodelError(
                f"peer: {name} runs diverged at every rate ({', '.join(f'{r:g}' for r in tried)}); give lower ones"
            )
    return sides[0][1], sides[1][1]


def best_rate(tried: Mapping[float, float]) -> float:
    """Return the rate of the lowest loss."""
    return min(tried, key=lambda rate: tried[rate])


def at_edge(tried: Mapping[float, float]) -> bool:
    """Tell whether the best rate is the lowest or the highest tried, or beside one that diverged.

    >>> at_edge({1.0: 5.0, 2.0: 4.0, 4.0: 6.0}), at_edge({1.0: 5.0, 2.0: 4.0}), at_edge({1.0: 5.0, 2.0: 4.0, 4.0: math.inf})
    (False, True, True)
    """
    return is_edge(best_rate(tried), tried, [rate for rate, loss in tried.items() if math.isinf(loss)])


def next_rate(tried: Mapping[float, float]) -> float:
    """Return the next rate to try: beyond the edge at which the best is, or between the best and a neighbour.

    That is one that diverged, since the best may lie before it, else the better one.

    >>> next_rate({1.0: 5.0, 2.0: 4.0}), next_rate({1.0: 5.0, 2.0: 4.0, 8.0: 4.5}), next_rate({1.0: 5.0, 2.0: 4.0, 8.0: math.inf})
    (4.0, 4.0, 4.0)
    """
    rates, best = sorted(tried), best_rate(tried)
    at = rates.index(best)
    if len(rates) == 1:
        rate = best * _STEP
    elif at == 0:
        rate = best * best / rates[1]
    elif at == len(rates) - 1:
        rate = best * best / rates[-2]
    else:
        beside = sorted((rates[at - 1], rates[at + 1]), key=lambda other: tried[other])
        rate = math.sqrt(best * beside[1 if math.isinf(tried[beside[1]]) else 0])
    return float(f"{rate:.3g}")


def _finite(loss: float) -> float:
    return loss if math.isfinite(loss) else math.inf
