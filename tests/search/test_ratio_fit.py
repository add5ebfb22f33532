"""The curve over the share: it finds a known optimum, its intervals hold what they say, and it does not see what is not there."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from xmodel2.errors import XmodelError
from xmodel2.search.ratio_fit import ShareCurve, fit_shares

SHARES = [i / 10 for i in range(11)]


def drawn(curve: Callable[[float], float], seed: int, noise: float = 0.01, seeds: int = 3) -> ShareCurve:
    random = np.random.default_rng(seed)
    levels = random.normal(5, 0.3, seeds)  # far apart, as stable stages are
    points = [(s, x, float(levels[s] + curve(x) + random.normal(0, noise))) for s in range(seeds) for x in SHARES]
    return fit_shares(points)


def steep(share: float) -> float:
    """As losses are: steep where instruction data begin and where text ends; smallest at 0.244."""
    return -0.06 * math.log(share + 0.03) + 0.45 * share**2


def test_a_known_optimum_is_found() -> None:
    found = drawn(lambda share: (share - 0.62) ** 2, seed=0)
    low, high = found.interval
    assert found.verdict == "inside"
    assert low <= 0.62 <= high
    assert high - low < 0.12
    assert found.gain == pytest.approx(0.38**2, abs=0.03)
    assert found.noise == pytest.approx(0.01, rel=0.5)
    assert found.sentence().startswith(f"{found.optimum:.2f} (95%: ")


@pytest.mark.parametrize(("curve", "optimum"), [(lambda x: (x - 0.62) ** 2, 0.62), (steep, 0.244)])
def test_intervals_hold_the_optimum(curve: Callable[[float], float], optimum: float) -> None:
    found = [drawn(curve, seed).interval for seed in range(12)]
    assert sum(low - 0.005 <= optimum <= high + 0.005 for low, high in found) >= 10


def test_higher_may_be_better() -> None:
    points = [(1, x, 0.4 - (x - 0.3) ** 2 + 0.002 * (-1) ** i) for i, x in enumerate(SHARES)]
    found = fit_shares(points, higher_is_better=True)
    assert found.optimum == pytest.approx(0.3, abs=0.05)
    assert max(found.fitted) == pytest.approx(0.4, abs=0.01)
    assert all(low <= middle <= high for low, middle, high in zip(found.low, found.fitted, found.high, strict=True))


def test_an_optimum_at_the_edge_is_called_so() -> None:
    rising = drawn(lambda share: 0.5 * share, seed=1)
    assert (rising.verdict, rising.optimum) == ("edge", 0.0)
    assert "at the edge of what was tried" in rising.sentence()
    assert drawn(lambda share: -0.5 * share, seed=1).optimum == 1.0


def test_noise_is_no_curve() -> None:
    flat = [drawn(lambda share: 0.0, seed, noise=0.05) for seed in range(8)]
    assert sum(curve.verdict == "flat" for curve in flat) >= 7
    assert "no dependence" in flat[0].sentence()
    weak = [drawn(lambda share: 0.12 * (share - 0.5) ** 2, seed, seeds=1).interval for seed in range(6)]
    assert sum(high - low for low, high in weak) / 6 > 0.5


def test_the_seeds_level_does_not_move_the_optimum() -> None:
    points = [(1, x, (x - 0.6) ** 2) for x in SHARES] + [(2, x, 3 + (x - 0.6) ** 2) for x in SHARES[:6]]
    assert fit_shares(points).optimum == pytest.approx(0.6, abs=0.02)


def test_equal_scores_and_too_few() -> None:
    equal = fit_shares([(1, share, 2.0) for share in SHARES])
    assert (equal.verdict, equal.sentence()) == ("flat", "2 at every share")
    with pytest.raises(XmodelError, match="at least 4 different shares"):
        fit_shares([(seed, share, 1.0) for seed in (1, 2, 3) for share in (0.0, 0.5, 1.0)])
    with pytest.raises(XmodelError, match="each seed has one share"):
        fit_shares([(seed, seed / 4, 1.0) for seed in range(5)])
