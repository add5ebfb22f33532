"""Scaling laws: a robust fit of loss by parameters and tokens, with bootstrap intervals; pure functions of the points.

    L(N, D) = E + A N^-alpha + B D^-beta          or one of the two terms: loss by tokens alone, by parameters alone

`huber` is the fit of Hoffmann et al. 2022 (arXiv 2203.15556, appendix D.3): Huber loss of log L, the terms added up by logsumexp,
L-BFGS from a grid of starts. Besiroglu et al. 2024 (arXiv 2404.10102) found that their optimizer stopped early, since the loss
was averaged and so small that it met the tolerance. Here it is summed, residuals are in units of delta, variables are centred,
and constants keep all their digits. `squares` is the fit of MiniCPM (arXiv 2404.06395, section 4.5): least squares of L itself.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares, minimize, nnls

from xmodel2.errors import XmodelError

Array = NDArray[np.float64]
Variable = Literal["parameters", "tokens"]
Estimator = Literal["huber", "squares"]

NAMES: dict[Variable, tuple[str, str]] = {"parameters": ("A", "alpha"), "tokens": ("B", "beta")}
"""Of a variable's term: its coefficient and its exponent."""
BOTH: tuple[Variable, ...] = ("parameters", "tokens")
DELTA = 1e-3
"""Residual of log L (so 0.1%) from which on the Huber loss grows linearly (Hoffmann et al.)."""
FEWEST = 3
"""Different values that each variable must have: two can't tell apart E, a coefficient and an exponent."""
LEVEL = 0.95
"""Share of the draws within an interval."""
_EXPONENTS = (0.02, 3.0)
_START_EXPONENTS = (0.05, 0.1, 0.2, 0.3, 0.45, 0.7, 1.0, 1.5)
_STARTS = 4


@dataclass(frozen=True)
class Point:
    """A training run that was decayed to its end."""

    parameters: int
    tokens: int
    """All that it was trained on, decay included."""
    loss: float
    """Held-out, nats a token."""
    seed: int = 1


@dataclass(frozen=True)
class Law:
    """E + sum of coefficient * variable ** -exponent."""

    variables: tuple[Variable, ...]
    floor: float
    """E, nats a token: what endless parameters and tokens would leave."""
    coefficients: tuple[float, ...]
    exponents: tuple[float, ...]

    def loss(self, **values: Any) -> Any:
        """Return the loss at ``parameters`` and/or ``tokens``, numbers or arrays.

        >>> Law(("parameters", "tokens"), 1.5, (400.0, 500.0), (0.5, 0.5)).loss(parameters=1e4, tokens=1e6)
        6.0
        """
        terms = zip(self.variables, self.coefficients, self.exponents, strict=True)
        return self.floor + sum(factor * values[variable] ** -exponent for variable, factor, exponent in terms)

    def optimum(self, flops: float) -> tuple[float, float]:
        """Return the parameters N and tokens D of least loss at 6 N D = ``flops`` (Hoffmann et al., equation 4).

        Their N / D is MiniCPM's K^2 (C/6)^eta: K = (alpha A / (beta B))^(1/(alpha+beta)), eta = (beta-alpha) / (alpha+beta).
        """
        (a, b), (alpha, beta) = self.coefficients, self.exponents
        k = (alpha * a / (beta * b)) ** (1 / (alpha + beta))
        return k * (flops / 6) ** (beta / (alpha + beta)), (flops / 6) ** (alpha / (alpha + beta)) / k

    def to_dict(self) -> dict[str, float]:
        """Return the constants by the names that the papers give them."""
        named = {"E": self.floor}
        for variable, factor, exponent in zip(self.variables, self.coefficients, self.exponents, strict=True):
            named |= dict(zip(NAMES[variable], (factor, exponent), strict=True))
        return named


@dataclass(frozen=True)
class Fit:
    """A law, and those of the bootstrap's draws, from which its intervals come."""

    law: Law
    draws: tuple[Law, ...]
    unit: str
    """What was drawn: `points`, or `runs` (a size and a seed), whose points share a stable stage."""
    noise: Array
    """Residuals of log L, widened for the constants that were fitted: what a new run may be off by."""
    undetermined: tuple[str, ...]
    """Constants that ended at the edge of what is allowed."""

    def interval(self, value: Callable[[Law], Any]) -> tuple[Any, Any]:
        """Return the ends of the interval of what ``value`` reads off a law."""
        return _interval(np.array([value(law) for law in self.draws]))

    def predict(self, **values: Any) -> tuple[float, float, float]:
        """Return the loss of one new run and the ends of its interval, from the law's uncertainty and a run's noise."""
        loss = float(self.law.loss(**values))
        drawn = np.array([law.loss(**values) for law in self.draws])
        low, high = _interval(drawn * np.exp(np.random.default_rng(0).choice(self.noise, len(drawn))))
        return loss, min(loss, float(low)), max(loss, float(high))


def fit_law(points: Sequence[Point], variables: tuple[Variable, ...] = BOTH, estimator: Estimator = "huber") -> Law:
    """Fit a law to points. Raises `XmodelError` if they are too few or too alike, saying what is missing."""
    check_enough(points, variables)
    problem = _Problem.of(points, variables)
    return problem.law(problem.solve(estimator))


def fit_with_intervals(
    points: Sequence[Point],
    variables: tuple[Variable, ...] = BOTH,
    estimator: Estimator = "huber",
    draws: int = 400,
    seed: int = 0,
) -> Fit:
    """Fit a law, and again ``draws`` times to as many points drawn with replacement; raises as `fit_law`.

    Where a size has several seeds, whole runs are drawn, since points of one run are not independent.
    """
    check_enough(points, variables)
    problem = _Problem.of(points, variables)
    theta = problem.solve(estimator)
    unit, groups = _groups(points)
    random = np.random.default_rng(seed)
    laws: list[Law] = []
    while len(laws) < draws:
        drawn = problem.take(np.concatenate([groups[n] for n in random.integers(len(groups), size=len(groups))]))
        if drawn.enough:
            laws.append(problem.law(drawn.solve(estimator, theta)))
    freedom = max(1, len(points) - len(theta))
    noise = problem.residuals(theta) * np.sqrt(len(points) / freedom)
    return Fit(problem.law(theta), tuple(laws), unit, noise, problem.undetermined(theta))


def check_enough(points: Sequence[Point], variables: tuple[Variable, ...] = BOTH) -> None:
    """Raise `XmodelError` if no law can be fitted, saying what is missing."""
    form = " + ".join(["E", *(f"{NAMES[v][0]} {v}^-{NAMES[v][1]}" for v in variables)])
    for variable in variables:
        there = sorted({getattr(point, variable) for point in points})
        if len(there) < FEWEST:
            listed = ", ".join(f"{value:,}" for value in there) or "none"
            raise XmodelError(
                f"scaling law: {form} needs points of at least {FEWEST} different {variable}, and there"
                f" {'is' if len(there) == 1 else 'are'} {listed}; add {FEWEST - len(there)}"
                f" {'sizes (--widths)' if variable == 'parameters' else 'lengths (--tokens)'}"
            )
    constants = 1 + 2 * len(variables)
    if len(points) <= constants:
        raise XmodelError(
            f"scaling law: {form} has {constants} constants and there are {len(points)} points; at least {constants + 1}"
            " are needed to see an error; add sizes, lengths or seeds"
        )


def _groups(points: Sequence[Point]) -> tuple[str, list[NDArray[np.intp]]]:
    """Return what the bootstrap draws, and the indices of each unit's points."""
    runs: dict[tuple[int, int], list[int]] = {}
    for number, point in enumerate(points):
        runs.setdefault((point.parameters, point.seed), []).append(number)
    if len(runs) > len({point.parameters for point in points}):
        return "runs", [np.array(numbers) for numbers in runs.values()]
    return "points", [np.array([number]) for number in range(len(points))]


def _interval(drawn: Array) -> tuple[Any, Any]:
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return low, high


@dataclass(frozen=True)
class _Problem:
    """Points in centred logarithms. theta = (log E, log of each term at the centre, each exponent)."""

    variables: tuple[Variable, ...]
    log_x: Array
    """(points, variables), minus the centre."""
    log_loss: Array
    center: Array

    @classmethod
    def of(cls, points: Sequence[Point], variables: tuple[Variable, ...]) -> "_Problem":
        log_x = np.log([[float(getattr(point, variable)) for variable in variables] for point in points])
        center = log_x.mean(axis=0)
        return cls(variables, log_x - center, np.log([point.loss for point in points]), center)

    def take(self, rows: NDArray[np.intp]) -> "_Problem":
        """Return the problem of these points, with the same centre."""
        return _Problem(self.variables, self.log_x[rows], self.log_loss[rows], self.center)

    @property
    def enough(self) -> bool:
        """Whether each variable takes enough different values."""
        return all(len(np.unique(column)) >= FEWEST for column in self.log_x.T)

    @property
    def bounds(self) -> list[tuple[float, float]]:
        """Edges of theta: E from 1/400 of the least loss up to it; a term from e^-12 of it up to e of the largest."""
        least, most = self.log_loss.min(), self.log_loss.max()
        k = len(self.variables)
        return [(least - 6, least), *[(least - 12, most + 1)] * k, *[_EXPONENTS] * k]

    def law(self, theta: Array) -> Law:
        """Return theta as constants of the variables themselves."""
        k = len(self.variables)
        factors = np.exp(theta[1 : k + 1] + theta[k + 1 :] * self.center)
        return Law(self.variables, float(np.exp(theta[0])), tuple(factors.tolist()), tuple(theta[k + 1 :].tolist()))

    def undetermined(self, theta: Array) -> tuple[str, ...]:
        names = ["E", *(NAMES[v][0] for v in self.variables), *(NAMES[v][1] for v in self.variables)]
        return tuple(n for n, t, edges in zip(names, theta, self.bounds, strict=True) if np.isclose(t, edges).any())

    def fitted(self, theta: Array) -> tuple[Array, Array]:
        """Return log of the fitted losses (by logsumexp), and each term's share of them, (points, 1 + variables)."""
        k = len(self.variables)
        terms = np.empty((len(self.log_x), 1 + k))
        terms[:, 0] = theta[0]
        terms[:, 1:] = theta[1 : k + 1] - theta[k + 1 :] * self.log_x
        largest = terms.max(axis=1, keepdims=True)
        shares = np.exp(terms - largest)
        total = shares.sum(axis=1, keepdims=True)
        return (largest + np.log(total))[:, 0], shares / total

    def residuals(self, theta: Array) -> Array:
        """Return log of measured minus log of fitted loss."""
        return self.log_loss - self.fitted(theta)[0]

    def huber(self, theta: Array) -> tuple[float, Array]:
        """Return the sum of Huber losses in units of delta squared, and its gradient by theta."""
        fitted, shares = self.fitted(theta)
        r = (fitted - self.log_loss) / DELTA
        inner = np.clip(r, -1, 1)
        slopes = shares * (inner / DELTA)[:, None]
        gradient = np.concatenate([slopes.sum(axis=0), -(slopes[:, 1:] * self.log_x).sum(axis=0)])
        return float((inner * (r - inner / 2)).sum()), gradient

    def solve(self, estimator: Estimator, start: Array | None = None) -> Array:
        """Return the best theta from ``start``, or from the best of a grid of starts."""
        starts = self._grid()[:_STARTS] if start is None else [start]
        low, high = np.array(self.bounds).T
        found = []
        for theta in starts:
            theta = np.clip(theta, low, high)
            if estimator == "squares":
                loss = np.exp(self.log_loss)
                result = least_squares(lambda t, loss=loss: np.exp(self.fitted(t)[0]) - loss, theta, bounds=(low, high))
                found.append((float(result.cost), result.x))
            else:
                options = {"maxiter": 2000, "maxfun": 4000, "ftol": 1e-12, "gtol": 1e-8}
                result = minimize(self.huber, theta, jac=True, method="L-BFGS-B", bounds=self.bounds, options=options)
                found.append((float(result.fun), result.x))
        return min(found, key=lambda pair: pair[0])[1]  # type: ignore[no-any-return]

    def _grid(self) -> list[Array]:
        """Return starts, best first: exponents on a grid, the rest by non-negative least squares of relative errors."""
        k, loss = len(self.variables), np.exp(self.log_loss)
        found = []
        for exponents in product(_START_EXPONENTS, repeat=k):
            columns = np.hstack([np.ones((len(loss), 1)), np.exp(-np.array(exponents) * self.log_x)])
            shares, error = nnls(columns / loss[:, None], np.ones(len(loss)))
            theta = np.concatenate([np.log(np.maximum(shares, 1e-3 * loss.min())), exponents])
            found.append((error, theta))
        return [theta for _, theta in sorted(found, key=lambda pair: pair[0])]
