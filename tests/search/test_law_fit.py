"""The fit finds the constants that made the points, says how sure it is, and is not moved by a few bad ones."""

import numpy as np
import pytest

from xmodel2.errors import XmodelError
from xmodel2.search.law_fit import BOTH, Law, Point, fit_law, fit_with_intervals

TRUE = Law(BOTH, 1.69, (406.4, 410.7), (0.34, 0.28))  # Hoffmann et al. 2022, appendix D.3
SIZES, LENGTHS = (1e6, 4e6, 1.6e7, 6.4e7), (2e7, 1e8, 5e8, 2.5e9, 1e10)


def points(noise: float, seeds: int = 1, law: Law = TRUE, seed: int = 0) -> list[Point]:
    random = np.random.default_rng(seed)
    return [
        Point(int(n), int(d), law.loss(parameters=n, tokens=d) * float(np.exp(noise * random.standard_normal())), run)
        for n in SIZES
        for d in LENGTHS
        for run in range(seeds)
    ]


@pytest.mark.parametrize("estimator", ["huber", "squares"])
def test_without_noise_the_constants_come_back(estimator: str) -> None:
    found = fit_law(points(0.0), estimator=estimator).to_dict()  # type: ignore[arg-type]
    for name, value in TRUE.to_dict().items():
        assert found[name] == pytest.approx(value, rel=1e-5)


def test_with_noise_the_intervals_cover_them_as_often_as_they_say() -> None:
    covered, tries, ahead = 0, 6, {"parameters": 2.56e8, "tokens": 1e10}
    for number in range(tries):
        fit = fit_with_intervals(points(0.003, seeds=3, seed=number), draws=60)
        assert fit.unit == "runs"
        assert not fit.undetermined
        for name, value in TRUE.to_dict().items():
            low, high = fit.interval(lambda law, name=name: law.to_dict()[name])  # type: ignore[misc]
            covered += low <= value <= high
        _, low, high = fit.predict(**ahead)
        assert low < TRUE.loss(**ahead) < high
        assert high - low < 0.1
    assert covered >= 0.8 * 5 * tries


def test_one_seed_draws_points() -> None:
    fit = fit_with_intervals(points(0.003), draws=20)
    assert fit.unit == "points"
    loss, low, high = fit.predict(parameters=2.56e8, tokens=1e10)
    assert low <= loss <= high


def test_the_same_points_give_the_same_intervals() -> None:
    a, b = (fit_with_intervals(points(0.003), draws=20) for _ in range(2))
    assert (a.law, a.draws) == (b.law, b.draws)


def test_outliers_move_the_robust_fit_much_less() -> None:
    spoiled = points(0.001)
    for number in (3, 11):
        bad = spoiled[number]
        spoiled[number] = Point(bad.parameters, bad.tokens, bad.loss * 1.1)
    ahead = {"parameters": 2.56e8, "tokens": 1e10}
    truth = TRUE.loss(**ahead)
    robust, squares = (abs(fit_law(spoiled, estimator=e).loss(**ahead) - truth) for e in ("huber", "squares"))  # type: ignore[arg-type]
    assert robust < 0.02
    assert squares > 5 * robust


@pytest.mark.parametrize(("variable", "name"), [("tokens", "beta"), ("parameters", "alpha")])
def test_a_law_of_one_variable(variable: str, name: str) -> None:
    fixed = "parameters" if variable == "tokens" else "tokens"
    line = [point for point in points(0.0) if getattr(point, fixed) == getattr(points(0.0)[0], fixed)]
    found = fit_law(line, (variable,)).to_dict()  # type: ignore[arg-type]
    assert found[name] == pytest.approx(TRUE.to_dict()[name], rel=1e-4)
    other = TRUE.to_dict()["A" if fixed == "parameters" else "B"] * getattr(line[0], fixed) ** -(
        0.34 if fixed == "parameters" else 0.28
    )
    assert found["E"] == pytest.approx(1.69 + other, rel=1e-4)


def test_the_optimum_is_the_least_loss_of_a_budget_and_minicpms_ratio() -> None:
    flops = 1e19
    n, d = TRUE.optimum(flops)
    assert 6 * n * d == pytest.approx(flops)
    around = [TRUE.loss(parameters=n * f, tokens=d / f) for f in (0.9, 1.0, 1.1)]
    assert around[1] == min(around)
    (a, b), (alpha, beta) = TRUE.coefficients, TRUE.exponents
    k = (alpha * a / (beta * b)) ** (1 / (alpha + beta))
    assert n / d == pytest.approx(k**2 * (flops / 6) ** ((beta - alpha) / (alpha + beta)))


def test_a_floor_that_the_points_do_not_reach_is_called_undetermined() -> None:
    fit = fit_with_intervals(points(0.0, law=Law(BOTH, 1e-6, (406.4, 410.7), (0.34, 0.28))), draws=20)
    assert "E" in fit.undetermined


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        (
            lambda p: p.parameters == 10**6,
            r"at least 3 different parameters, and there is 1,000,000; add 2 sizes \(--widths\)",
        ),
        (lambda p: p.parameters < 10**7, r"parameters, and there are 1,000,000, 4,000,000; add 1 sizes"),
        (lambda p: p.tokens < 2e8, r"at least 3 different tokens, .* add 1 lengths \(--tokens\)"),
        (lambda p: False, r"there are none; add 3"),
        (
            lambda p: (p.parameters, p.tokens) in [(10**6, 2 * 10**7), (4 * 10**6, 10**8), (16 * 10**6, 5 * 10**8)],
            r"has 5 constants and there are 3 points; at least 6",
        ),
    ],
)
def test_too_few_points(kept: object, message: str) -> None:
    with pytest.raises(XmodelError, match=message):
        fit_law([point for point in points(0.0) if kept(point)])  # type: ignore[operator]
