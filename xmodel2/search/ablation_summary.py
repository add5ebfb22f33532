"""What the runs of an ablation say: of each arm its best rate, and its loss less the recipe's, seed by seed, with an interval.

    rows of results.jsonl  ->  rates that all arms of a comparison tried  ->  best rate of each  ->  paired differences

Only rates that every arm of a comparison tried with the first seed count, so that later calls give no arm more tries than another.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from xmodel2.recipe import Recipe
from xmodel2.search.ablation import COMPARISONS, OWN
from xmodel2.search.over_seeds import mean_and_error, t_interval
from xmodel2.search.rates import is_edge

UNITS = {"loss": "nats a token", "bits_per_byte": "bits a byte"}
"""Of the measures that arms are compared by."""

Row = dict[str, Any]
_PROMISING = 2
"""Rates of each arm that are trained with all seeds: one seed alone takes the best for its neighbour too easily."""


def summarise(recipe: Recipe, rows: Sequence[Row]) -> dict[str, Any]:
    """Return all comparisons whose arms have rows at a common rate, as ablation.json has them."""
    found = {}
    for comparison in COMPARISONS:
        names = dict.fromkeys(row["arm"] for row in rows if row["comparison"] == comparison)
        rates = common_rates(rows, [OWN, *names], recipe.seed)
        if names and rates:
            found[comparison] = _comparison(rates, comparison, rows, [OWN, *names])
    return {
        "recipe": recipe.name,
        "seeds": sorted({row["seed"] for row in rows}),
        "rates": sorted({row["rate"] for row in rows}),
        "tokens": recipe.total_steps * recipe.train.batch_tokens,
        "comparisons": found,
        "diverged": {row["name"]: row["ended"] for row in rows if row["ended"]},
    }


def common_rates(rows: Iterable[Row], names: Iterable[str], seed: int) -> list[float]:
    """Return the rates that every arm tried with a seed, lowest first."""
    tried = [{row["rate"] for row in rows if row["arm"] == name and row["seed"] == seed} for name in names]
    return sorted(set.intersection(*tried)) if tried else []


def promising_rates(rows: Iterable[Row], name: str, rates: Sequence[float], seed: int) -> list[float]:
    """Return an arm's two rates of the lowest losses with a seed, among ``rates``, that of the lowest first."""
    losses = {
        row["rate"]: row["loss"]
        for row in rows
        if (row["arm"], row["seed"]) == (name, seed) and row["rate"] in rates and not row["ended"]
    }
    return sorted(losses, key=lambda rate: losses[rate])[:_PROMISING]


def best_rate(rows: Iterable[Row], name: str, rates: Sequence[float]) -> float | None:
    """Return an arm's rate of the lowest mean loss, among those of ``rates`` that it has most seeds of; None if all diverged."""
    losses: dict[float, list[float]] = {}
    for row in rows:
        if row["arm"] == name and row["rate"] in rates and not row["ended"]:
            losses.setdefault(row["rate"], []).append(row["loss"])
    most = max(map(len, losses.values()), default=0)
    means = {rate: sum(found) / most for rate, found in losses.items() if len(found) == most}
    return min(means, key=lambda rate: means[rate]) if means else None


def _comparison(rates: Sequence[float], comparison: str, rows: Sequence[Row], names: Sequence[str]) -> dict[str, Any]:
    measure = "bits_per_byte" if comparison == "tokenizer" else "loss"
    best = {name: best_rate(rows, name, rates) for name in names}
    made = {
        name: {
            row["seed"]: row for row in rows if row["arm"] == name and row["rate"] == best[name] and not row["ended"]
        }
        for name in names
    }
    own = {seed: row[measure] for seed, row in made[OWN].items()}
    arms = []
    for name in names:
        first = next(row for row in rows if row["arm"] == name)
        losses = {seed: made[name][seed][measure] for seed in sorted(made[name])}
        arms.append(
            {
                "name": name,
                "own": name == OWN,
                **{key: first[key] for key in ("changes", "layers", "parameters", "parameters_total", "tokens")},
                "tokenizer": first.get("tokenizer"),
                "rate": best[name],
                "at_edge": _at_edge(rows, name, best[name], rates),
                "diverged": [
                    row["seed"] for row in rows if row["ended"] and (row["arm"], row["rate"]) == (name, best[name])
                ],
                "losses": {str(seed): loss for seed, loss in losses.items()},
                "mean": mean_and_error(list(losses.values()))[0],
                **_apart(losses, {} if name == OWN else own),
                **{
                    f"mean_{key}": mean_and_error([row[key] for row in made[name].values() if row[key] is not None])[0]
                    for key in ("loss", "bits_per_byte")
                },
            }
        )
    return {"measure": measure, "rates": rates, "arms": arms}


def _at_edge(rows: Sequence[Row], name: str, best: float | None, rates: Sequence[float]) -> bool:
    """Tell whether an arm's best rate is at the edge of ``rates``, or beside one at which a seed diverged."""
    diverged = {row["rate"] for row in rows if row["arm"] == name and row["ended"]}
    return best is not None and is_edge(best, rates, diverged)


def _apart(losses: dict[int, float], own: dict[int, float]) -> dict[str, Any]:
    """Return the mean difference of the seeds that both have, its standard error and 95% interval (Student's t), and percent.

    >>> found = _apart({1: 2.02, 2: 2.04}, {1: 2.0, 2: 2.0})
    >>> round(found["difference"], 3), round(found["error"], 3), [round(end, 3) for end in found["interval"]]
    (0.03, 0.01, [-0.097, 0.157])
    """
    both = [seed for seed in losses if seed in own]
    difference, error = mean_and_error([losses[seed] - own[seed] for seed in both])
    interval, percent = t_interval(difference, error, len(both)), None
    if difference is not None:
        percent = 100 * difference * len(both) / math.fsum(own[seed] for seed in both)
    return {"difference": difference, "error": error, "interval": interval and list(interval), "percent": percent}
