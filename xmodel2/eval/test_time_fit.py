"""The law loss(t) = a + b t^-c of a curve by token index: robust fit, bootstrap intervals, rivals, and whether it is determined.

For a given c the law is linear, so a and b are solved exactly on a grid of c, all draws of the bootstrap at once, and c is
the grid's best, refined: no start to choose, and no local minimum to end in. a >= 0, since a loss is, and
b >= 0; c within `EXPONENTS`. Bins weigh by their noise apart from what moves all of them alike (a draw of harder documents),
which a takes up, and by what the law itself is off by, where that is more; bins that are far off weigh less (Huber).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from xmodel2.eval.test_time_curve import Array, Sums
from xmodel2.search.law_fit import LEVEL

EXPONENTS = (1e-3, 4.0)
"""Of c; the least is a logarithm for all that a context can tell."""
SHORTEST = 16
"""Least context: below, the bins are too few to tell three constants from noise."""
_GRID = np.geomspace(*EXPONENTS, 120)
_ROUNDS = 3  # of refinement, each four times finer than the last
_HUBER = 1.345  # residuals, in standard deviations, from which on a bin weighs less: 95% efficient under normal noise
_FOLDS = 5
_MISFIT = 5.0  # chi squared by freedom from which on it is said
_LEAST_R2 = 0.5
_CLEAR = 4.0  # standard errors between the least of many bins and the last
_WIDEST = 5.0  # ratio of the ends of c's interval, beyond which c is not determined


def power_law(constants: Array, t: Any) -> Array:
    """Return a + b t^-c for rows of (a, b, c) [..., 3] at ``t`` [B].

    >>> power_law(np.array([2.0, 3.0, 0.5]), np.array([1.0, 9.0])).tolist()
    [5.0, 3.0]
    """
    a, b, c = (np.asarray(part)[..., None] for part in np.moveaxis(constants, -1, 0))
    return np.asarray(a + b * np.asarray(t) ** -c)


def logarithm(constants: Array, t: Any) -> Array:
    """Return a - b log t for rows of (a, b) [..., 2]."""
    a, b = (np.asarray(part)[..., None] for part in np.moveaxis(constants, -1, 0))
    return np.asarray(a - b * np.log(t))


def fit_power_law(t: Array, y_RB: Array, noise_B: Array, floor: bool = True) -> Array:
    """Return (a, b, c) of each curve [R, 3]; without ``floor``, a = 0."""
    return _robust(lambda w_RB: _best_exponent(t, y_RB, w_RB, floor), power_law, t, y_RB, noise_B)


def fit_logarithm(t: Array, y_RB: Array, noise_B: Array) -> Array:
    """Return (a, b) of each curve [R, 2]."""
    x_B = -np.log(t)

    def solve(w_RB: Array) -> Array:
        total = w_RB.sum(1)
        x, y = (w_RB @ x_B) / total, (w_RB * y_RB).sum(1) / total
        slope = ((w_RB * (y_RB - y[:, None])) @ x_B) / (w_RB @ x_B**2 - total * x**2)
        return np.stack([y - slope * x, slope], axis=1)

    return _robust(solve, logarithm, t, y_RB, noise_B)


def _robust(
    solve: Callable[[Array], Array], law: Callable[[Array, Any], Array], t: Array, y: Array, noise: Array
) -> Array:
    """Return least squares, its weights then lowered three times where a residual is far beyond the noise and the others."""
    weights = np.broadcast_to(1 / noise**2, y.shape)
    found = solve(weights)
    for _ in range(3):
        z = np.abs(y - law(found, t)) / noise
        scale = np.maximum(1.0, 1.4826 * np.median(z, axis=1, keepdims=True))
        found = solve(weights * np.minimum(1.0, _HUBER * scale / np.maximum(z, 1e-12)))
    return found


def _best_exponent(t: Array, y: Array, w: Array, floor: bool) -> Array:
    log_t, best = np.log(t), _linear(t[None] ** -_GRID[:, None], y, w, floor)[2].argmin(1)
    log_c, step = np.log(_GRID)[best], float(np.log(_GRID[1] / _GRID[0]))
    lowest, highest = np.log(EXPONENTS)
    for _ in range(_ROUNDS):  # between the neighbours of the best so far; no derivative, since a = 0 makes a kink
        tried = np.clip(log_c + step * np.linspace(-1, 1, 9)[:, None], lowest, highest)
        found = [_linear(np.exp(-np.exp(row)[:, None] * log_t), y, w, floor, each=True) for row in tried]
        errors = np.concatenate([error for _, _, error in found], axis=1)
        log_c, step = np.take_along_axis(tried, errors.argmin(1)[None], axis=0)[0], step / 4
    a, b, _ = _linear(np.exp(-np.exp(log_c)[:, None] * log_t), y, w, floor, each=True)
    return np.stack([a[:, 0], b[:, 0], np.exp(log_c)], axis=1)


def _linear(x: Array, y: Array, w: Array, floor: bool, each: bool = False) -> tuple[Array, Array, Array]:
    """Return a, b >= 0 and the weighted squared error of y [R, B] on x [C, B], each [R, C]; ``each``: row r on x[r], [R, 1]."""

    def dot(left: Array, right: Array) -> Array:
        return (left * right).sum(1, keepdims=True) if each else left @ right.T

    total, sy, syy = w.sum(1, keepdims=True), (w * y).sum(1, keepdims=True), (w * y * y).sum(1, keepdims=True)
    sx, sxx, sxy = dot(w, x), dot(w, x * x), dot(w * y, x)
    b = sxy / sxx
    a = np.zeros_like(b)
    if floor:
        spread = np.maximum(total * sxx - sx**2, 1e-12 * total * sxx)
        free_b = (total * sxy - sx * sy) / spread
        free_a = (sy - free_b * sx) / total
        a, b = np.where(free_a >= 0, free_a, a), np.where(free_a >= 0, free_b, b)
    a, b = np.where(b >= 0, a, sy / total), np.maximum(b, 0.0)
    return a, b, syy - 2 * a * sy - 2 * b * sxy + a * a * total + 2 * a * b * sx + b * b * sxx


@dataclass(frozen=True)
class CurveFit:
    """A curve, its law, and those of the bootstrap's draws."""

    t: Array
    loss: Array
    error: Array
    """Standard error of each bin's loss, documents drawn anew."""
    noise: Array
    """The same, apart from what moves all bins alike."""
    spread: Array
    """What bins weigh by: noise, and what the law is off by."""
    constants: Array
    """(a, b, c)"""
    drawn: Array
    """(a, b, c) of each draw [R, 3]."""
    falls: tuple[float, float]
    """Interval of the nats that the loss falls by for each e-fold of t."""

    def band(self, t: Any) -> tuple[Array, Array, Array]:
        """Return the law at ``t`` and the ends of its interval."""
        low, high = interval(power_law(self.drawn, t))
        return power_law(self.constants, t), low, high

    @property
    def complaint(self) -> str:
        """Why the constants are not determined; empty if they are."""
        low, high = self.falls
        if high < 0:
            return f"the loss rises with the token index, by {-high:.3g} to {-low:.3g} nats each time it grows e-fold"
        if low <= 0:
            return f"the loss is flat: it falls by {low:.3g} to {high:.3g} nats each time the token index grows e-fold"
        c_low, c_high = interval(self.drawn[:, 2])
        if c_low <= EXPONENTS[0] * 1.05 or c_high >= EXPONENTS[1] * 0.95 or c_high / c_low > _WIDEST:
            return f"the exponent is not determined: anything from {c_low:.2g} to {c_high:.2g} fits"
        if (r2 := goodness(self)["r2"]) < _LEAST_R2:
            rise = f"; {self.rise}" if self.rise else ""
            return f"the curve does not follow the law: its weighted R² is {r2:.2f}{rise}"
        return ""

    @property
    def rise(self) -> str:
        """Where the loss is least, if it is clearly higher at the end, as beyond the context that was trained on; else empty."""
        least = int(self.loss.argmin())
        higher = float(self.loss[-1] - self.loss[least])
        if higher <= _CLEAR * float(np.hypot(self.noise[-1], self.noise[least])):
            return ""
        return f"the loss is least at t = {self.t[least]:.0f}, and higher by {higher:.2g} nats at the end"

    @property
    def remarks(self) -> list[str]:
        """What limits the constants that are determined."""
        found = [self.rise] if self.rise else []
        if interval(self.drawn[:, 0])[0] <= 0:
            found.append("a is not told from 0: a pure power law is within the intervals")
        if self.constants[2] > 1:
            over = 10 ** (1 / self.constants[2])
            found.append(f"nine tenths of the fall are over by t = {over:.1f}: the law is one of the first tokens")
        if (fitness := goodness(self))["chi2_by_freedom"] > _MISFIT:
            found.append(
                f"the law misses by up to {fitness['largest_residual']:.2g} nats, more than noise does (chi squared by freedom"
                f" {fitness['chi2_by_freedom']:.0f}); intervals are of a law that holds"
            )
        return found


def interval(drawn: Array) -> tuple[Any, Any]:
    """Return the ends of the central `LEVEL` share of draws, along the first axis."""
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return low, high


def fit_curve(sums: Sums, draws: int = 400, seed: int = 0) -> CurveFit:
    """Fit the law to a curve and to ``draws`` curves of documents drawn with replacement."""
    t, loss, drawn = sums.t, sums.curve(), sums.draws(draws, seed)
    noise = (drawn - np.median(drawn, axis=1, keepdims=True)).std(axis=0)
    noise = np.maximum(noise, max(1e-9, 0.1 * float(np.median(noise))))  # bins of equal draws would rule all others out
    off = loss - power_law(fit_power_law(t, loss[None], noise)[0], t)
    weights = 1 / noise**2  # the variance that the residuals have beyond the noise's, mean over bins by weight
    misfit = max(0.0, float((weights @ (off**2 - noise**2)) / weights.sum()))
    spread = np.sqrt(noise**2 + misfit)
    constants = fit_power_law(t, loss[None], spread)[0]
    slopes = fit_logarithm(t, drawn, spread)[:, 1]
    low, high = map(float, interval(slopes))
    drawn_constants = fit_power_law(t, drawn, spread)
    return CurveFit(t, loss, drawn.std(axis=0), noise, spread, constants, drawn_constants, (low, high))


FORMS: dict[str, tuple[Callable[[Array, Array, Array], Array], Callable[[Array, Any], Array]]] = {
    "a + b t^-c": (fit_power_law, power_law),
    "b t^-c": (lambda t, y, noise: fit_power_law(t, y, noise, floor=False), power_law),
    "a - b log t": (fit_logarithm, logarithm),
}
"""The law and its rivals: how each is fitted, and its value."""


def compare_forms(sums: Sums, fit: CurveFit, seed: int = 0) -> dict[str, dict[str, float]]:
    """Return how far each form is off, root mean square nats: on its bins, on documents left out, on the later half of indices.

    Documents left out in turn, a fifth each; their own level (how hard they are as a whole) is not an error of the form, and a
    bin that they have no token in is that of all documents. The later half (t > T / 2) is predicted from the earlier, as a
    doubled context is from all.
    """
    units = len(sums.tokens_U)
    fold = np.random.default_rng(seed).permutation(np.arange(units) % _FOLDS)
    left_out = np.stack([fold == number for number in range(_FOLDS)])
    kept, held = sums.curve(~left_out), sums.curve(left_out)
    weights = 1 / fit.spread**2
    late = sums.edges[:-1] > sums.edges[-1] // 2
    early = sums.edges[1:] - 1 <= sums.edges[-1] // 2
    found = {}
    for name, (solve, law) in FORMS.items():
        here = law(solve(fit.t, fit.loss[None], fit.spread), fit.t)[0] - fit.loss
        off = law(solve(fit.t, kept, fit.spread), fit.t) - held
        off = off - (off @ weights)[:, None] / weights.sum()
        ahead = law(solve(fit.t[early], fit.loss[None, early], fit.spread[early]), fit.t[late])[0] - fit.loss[late]
        found[name] = {
            "on its bins": _rms(here, weights),
            "on documents left out": _rms(off, weights),
            "on later indices": _rms(ahead, weights[late]),
        }
    return found


def goodness(fit: CurveFit) -> dict[str, float]:
    """Return weighted R^2, the largest residual (nats), and chi squared by degree of freedom: near 1 if the rest is noise."""
    weights, residual = 1 / fit.noise**2, fit.loss - power_law(fit.constants, fit.t)
    mean = (weights @ fit.loss) / weights.sum()
    chi = float(weights @ residual**2)
    return {
        "r2": 1 - chi / max(float(weights @ (fit.loss - mean) ** 2), 1e-300),
        "largest_residual": float(np.abs(residual).max()),
        "chi2_by_freedom": chi / max(1, len(fit.t) - 3),
    }


def _rms(residual: Array, weights: Array) -> float:
    return float(np.sqrt((residual**2 @ weights).sum() / (weights.sum() * (residual.size // len(weights)))))
