"""What points of several sizes and lengths say: constants with intervals, held-out errors, laws of one variable, optimum."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from xmodel2.errors import XmodelError
from xmodel2.search.law_fit import LEVEL, Fit, Law, Point, Variable, fit_law, fit_with_intervals
from xmodel2.search.law_points import Counting, Row, countings, points_of

DRAWS_ALONE = 100
"""Of the bootstrap of each law of one variable."""


@dataclass(frozen=True)
class Counted:
    """All fits under one way of counting parameters."""

    points: list[Point]
    fit: Fit
    """Chinchilla form, Huber loss."""
    squares: Law
    """The same form by MiniCPM's least squares."""
    left_out: dict[str, list[dict[str, float]]]
    """What was left out ("largest size", "longest runs"), predicted by the law of the rest, where that is enough."""


@dataclass(frozen=True)
class LawReport:
    """All fits of a set of rows."""

    rows: list[Row]
    counted: dict[Counting, Counted]
    by_tokens: dict[int, Fit]
    """Parameters to the law by tokens of that size alone."""
    by_parameters: dict[int, Fit]
    """Tokens to the law by parameters of that length alone."""
    budgets: tuple[float, ...]
    """Compute budgets, FLOPs as 6 N D."""

    @property
    def main(self) -> Counted:
        """Of parameters without embeddings, as the report counts."""
        return self.counted["without embeddings"]

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        left_out = [row.ended for row in self.rows if row.ended]
        return {
            "points": len(self.main.points),
            "diverged": len(left_out),
            "interval": LEVEL,
            "drawn": self.main.fit.unit,
            "laws": {counting: _counted_dict(counted, self.budgets) for counting, counted in self.counted.items()},
            "by_tokens": {f"{size:,} parameters": constants(fit) for size, fit in self.by_tokens.items()},
            "by_parameters": {f"{length:,} tokens": constants(fit) for length, fit in self.by_parameters.items()},
            "cost": cost(self.rows),
        }


def report_on(rows: Sequence[Row], budgets: Sequence[float] = (), draws: int = 400, seed: int = 0) -> LawReport:
    """Fit everything that the rows determine. Raises `XmodelError` if they do not determine the law by both."""
    counted = {counting: _counted(points_of(rows, counting), draws, seed) for counting in countings(rows)}
    points = points_of(rows)
    return LawReport(
        list(rows),
        counted,
        _alone(points, "parameters", "tokens", seed),
        _alone(points, "tokens", "parameters", seed),
        tuple(budgets) or _budgets(points),
    )


def constants(fit: Fit) -> dict[str, Any]:
    """Return each constant with the ends of its interval, and how far the points are off."""
    named: dict[str, Any] = {}
    for name, value in fit.law.to_dict().items():
        low, high = fit.interval(lambda law, name=name: law.to_dict()[name])  # type: ignore[misc]
        named[name] = {"value": value, "low": float(low), "high": float(high)}
    return {**named, "undetermined": list(fit.undetermined)}


def optimum(fit: Fit, flops: float, points: Sequence[Point]) -> dict[str, Any]:
    """Return the best N and D of a budget with intervals, and whether they lie within what was trained."""
    n, d = fit.law.optimum(flops)
    (n_low, d_low), (n_high, d_high) = fit.interval(lambda law: law.optimum(flops))
    ratio_low, ratio_high = fit.interval(lambda law: law.optimum(flops)[1] / law.optimum(flops)[0])
    sizes, lengths = [p.parameters for p in points], [p.tokens for p in points]
    return {
        "flops": flops,
        "parameters": {"value": n, "low": float(n_low), "high": float(n_high)},
        "tokens": {"value": d, "low": float(d_low), "high": float(d_high)},
        "tokens_per_parameter": {"value": d / n, "low": float(ratio_low), "high": float(ratio_high)},
        "loss": fit.law.loss(parameters=n, tokens=d),
        "within_points": min(sizes) <= n <= max(sizes) and min(lengths) <= d <= max(lengths),
    }


def optimum_of(law: Law, flops: float) -> dict[str, float]:
    """Return the best N and D of a budget by a law without intervals."""
    n, d = law.optimum(flops)
    return {"flops": flops, "parameters": n, "tokens": d, "tokens_per_parameter": d / n}


def error_of(predicted: float, measured: float) -> dict[str, float]:
    """Return a prediction's error, positive if it was too high.

    >>> error_of(4.4, 4.0)["percent"]
    10.0
    """
    off = predicted - measured
    return {"measured": measured, "loss": predicted, "nats": off, "percent": round(100 * off / measured, 12)}


def cost(rows: Sequence[Row]) -> dict[str, int] | None:
    """Return tokens trained on by branching decays, and what runs from the beginning would have taken; None if unknown."""
    if not all(row.decay_tokens for row in rows):
        return None
    stable: dict[tuple[int, int], int] = {}
    for row in rows:
        run = row.parameters, row.seed
        stable[run] = max(stable.get(run, 0), row.tokens - row.decay_tokens)
    branched = sum(stable.values()) + sum(row.decay_tokens for row in rows)
    return {"tokens_trained": branched, "tokens_from_the_beginning": sum(row.tokens for row in rows)}


def _counted(points: list[Point], draws: int, seed: int) -> Counted:
    fit = fit_with_intervals(points, draws=draws, seed=seed)
    largest, longest = max(p.parameters for p in points), max(p.tokens for p in points)
    held = {
        "largest size": [p for p in points if p.parameters == largest],
        "longest runs": [p for p in points if p.tokens == longest],
    }
    return Counted(
        points, fit, fit_law(points, estimator="squares"), {k: _predicted(points, v) for k, v in held.items()}
    )


def _predicted(points: list[Point], held: list[Point]) -> list[dict[str, float]]:
    try:
        law = fit_law([point for point in points if point not in held])
    except XmodelError:  # too few remain
        return []
    return [
        {"parameters": p.parameters, "tokens": p.tokens}
        | error_of(law.loss(parameters=p.parameters, tokens=p.tokens), p.loss)
        for p in held
    ]


def _counted_dict(counted: Counted, budgets: Sequence[float]) -> dict[str, Any]:
    fit, points = counted.fit, counted.points
    errors = {
        what: {
            "mean_nats": float(np.mean([abs(row["nats"]) for row in rows])),
            "largest_percent": float(max(abs(row["percent"]) for row in rows)),
            "points": rows,
        }
        if rows
        else None
        for what, rows in counted.left_out.items()
    }
    relative = [p.loss / fit.law.loss(parameters=p.parameters, tokens=p.tokens) - 1 for p in points]
    return {
        "huber": constants(fit),
        "squares": counted.squares.to_dict(),
        "fitted_rms_percent": 100 * float(np.sqrt(np.mean(np.square(relative)))),
        "left_out": errors,
        "optimum": [optimum(fit, flops, points) for flops in budgets],
        "optimum_by_squares": [optimum_of(counted.squares, flops) for flops in budgets],
    }


def _alone(points: list[Point], fixed: Variable, free: Variable, seed: int) -> dict[int, Fit]:
    """Return the law by one variable at each value of the other that has enough points."""
    found = {}
    for value in sorted({getattr(point, fixed) for point in points}):
        try:
            found[value] = fit_with_intervals(
                [p for p in points if getattr(p, fixed) == value], (free,), draws=DRAWS_ALONE, seed=seed
            )
        except XmodelError:
            continue
    return found


def _budgets(points: Sequence[Point]) -> tuple[float, ...]:
    """Return the middle (geometric) and the largest 6 N D of the points, and ten times the largest, to two digits."""
    spent = [6.0 * point.parameters * point.tokens for point in points]
    return tuple(float(f"{flops:.1e}") for flops in (np.exp(np.mean(np.log(spent))), max(spent), 10 * max(spent)))
