"""What the rows of a comparison say: curves over the share, and tables of means and paired differences.

A row belongs to a comparison by what it differs in from the recipe's own decay of its seed, so rows of earlier calls count too.
Differences are taken within a seed, where the stable stage is the same, and then averaged; one seed has no error to state.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from xmodel2.errors import XmodelError
from xmodel2.model.count import block_parameter_count, parameter_count
from xmodel2.recipe import Recipe
from xmodel2.search.decay import AS_TEXT, base_decay, proportional
from xmodel2.search.decay_runs import Row
from xmodel2.search.over_seeds import mean_and_error, t_interval
from xmodel2.search.ratio_fit import fit_shares, why_no_curve
from xmodel2.search.ratio_formats import ARMS, MEASURES

OBJECTIVES = {
    "text": "held-out text",
    "sft": "held-out instructions",
    "answers": "answers to questions",
    "accuracy": "questions answered exactly",
    "combined": "combined loss",
}
"""Scores that are compared; all are nats a token and better if lower, but for the accuracy."""
HIGHER_IS_BETTER = ("accuracy",)


class Summary:
    """Rows of one directory, sorted into comparisons."""

    def __init__(self, recipe: Recipe, weights: Mapping[str, float], rows: Sequence[Row]) -> None:
        """``weights``: of losses in the combined score. Raises `XmodelError` if every decay diverged."""
        self.recipe = recipe
        self.diverged = {row["name"]: row["ended"] for row in rows if row["ended"]}
        rows = [row for row in rows if not row["ended"]]
        if not rows:
            raise XmodelError("every decay diverged; lower train.learning_rate, and choose another --out")
        last = "answers" if all(row.get("answers") is not None for row in rows) else "sft"
        weights = weights or {"text": 1.0, last: 1.0}
        self.weights = {name: weight / sum(weights.values()) for name, weight in weights.items()}
        self.rows = [{**row, "combined": self._combined(row)} for row in rows]

    def to_dict(self) -> dict[str, Any]:
        """Return all comparisons, as ratio.json has them."""
        within = self._within
        whole = [row for row in within({"step", "steps"}) if row["step"] + row["steps"] == self.recipe.total_steps]
        schedules = within({"share", "step", "steps", "rate", "schedule"})
        schedules = [
            row for row in schedules if not row["share"] and row["steps"] == proportional(self.recipe, row["step"])
        ]
        base = base_decay(self.recipe, self.recipe.seed)
        mixtures = [row for row in within({"mixture"}) if row["mixture"] != AS_TEXT]
        return {
            "recipe": self.recipe.name,
            "seeds": sorted({row["seed"] for row in self.rows}),
            "weights": self.weights,
            "shares": _curves(within({"share"})),
            "by_source": _by_source(within({"share"})),
            "mixtures": table(mixtures, lambda row: row["mixture"], base.mixture),
            "format": format_table(within({"mixture"})),
            "shape": table(within({"shape"}), lambda row: row["shape"], base.shape),
            "length": table(within({"steps"}), self._decay_tokens, base.steps * self.recipe.train.batch_tokens),
            "equal_tokens": table(whole, self._decay_tokens, base.steps * self.recipe.train.batch_tokens),
            "schedules": _schedules(schedules),
            "law": [self._point(row) for row in schedules if row["schedule"] == "wsd" and row["rate"] == 1],
            "diverged": self.diverged,
        }

    def _within(self, free: set[str]) -> list[Row]:
        """Return the rows that differ from their seed's own decay in nothing but ``free``."""
        found = []
        for row in self.rows:
            base = asdict(base_decay(self.recipe, row["seed"]))
            if all(key in free or row[key] == value for key, value in base.items()):
                found.append(row)
        return found

    def _combined(self, row: Row) -> float | None:
        parts = [row.get(name) for name in self.weights]
        if any(part is None for part in parts):
            return None
        return sum(weight * row[name] for name, weight in self.weights.items())

    def _decay_tokens(self, row: Row) -> int:
        tokens: int = row["steps"] * self.recipe.train.batch_tokens
        return tokens

    def _point(self, row: Row) -> dict[str, Any]:
        """Return a row as `xmodel2 law` takes it."""
        model = self.recipe.model
        return {
            "parameters": block_parameter_count(model),
            "parameters_total": parameter_count(model),
            "tokens": row["tokens"],
            "loss": row["text"],
            "seed": row["seed"],
        }


def table(rows: Sequence[Row], key: Callable[[Row], Any], base: Any) -> list[dict[str, Any]]:
    """Return for each value of ``key``: a run, the count of seeds, and of each objective mean, difference and error.

    The value ``base`` comes first, numbers in their order. The difference is to ``base`` in the same seed, and its standard
    error that over the seeds (None for one).
    """
    groups: dict[Any, dict[int, Row]] = {}
    for row in rows:
        groups.setdefault(key(row), {})[row["seed"]] = row
    if len(groups) < 2:
        return []
    own = groups.get(base, {})
    values = sorted(groups) if isinstance(base, int) else sorted(groups, key=lambda value: value != base)
    return [
        {
            "value": value,
            "run": next(iter(group.values()))["name"],
            "seeds": len(group),
            **{name: _cell(group, own, name) for name in OBJECTIVES if _have(group.values(), name)},
        }
        for value, group in ((value, groups[value]) for value in values)
    ]


def _cell(group: Mapping[int, Row], own: Mapping[int, Row], name: str) -> dict[str, float | None]:
    values = [row[name] for row in group.values()]
    apart = [row[name] - own[seed][name] for seed, row in group.items() if own.get(seed, {}).get(name) is not None]
    difference, error = mean_and_error(apart)
    return {"mean": sum(values) / len(values), "difference": difference, "error": error}


def format_table(rows: Sequence[Row]) -> dict[str, Any]:
    """Return the first measure's comparison, and those of all under `measures`; empty without a seed that has both decays."""
    arms = {
        arm: {row["seed"]: row["formats"] for row in rows if row["mixture"] == mixture and row.get("formats")}
        for arm, mixture in ARMS.items()
    }
    both = sorted(set.intersection(*(set(arm) for arm in arms.values())))
    measures = {name: compared(name, {arm: [arms[arm][seed] for seed in both] for arm in ARMS}) for name in MEASURES}
    measures = {name: found for name, found in measures.items() if found}
    if not measures:
        return {}
    first = next(iter(measures))
    return {
        "measure": first,
        **measures[first],
        "seeds": both,
        "counts": arms["chat"][both[0]]["chat"]["counts"],
        "measures": measures,
    }


def compared(name: str, arms: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Return for each arm its mean score in its own format and in the other, and chat less text, each in its own.

    ``arms``: the scores of each seed, in the same order. `error` is the standard error over seeds of the paired difference,
    `interval` that of Student's t (95%), None for one seed. Empty if a score is missing.
    """
    values = {(arm, form): [scores[form][name] for scores in arms[arm]] for arm in ARMS for form in ARMS}
    if any(not found or None in found for found in values.values()):
        return {}
    mean = {key: sum(found) / len(found) for key, found in values.items()}
    apart = [chat - text for chat, text in zip(values["chat", "chat"], values["text", "text"], strict=True)]
    difference, error = mean_and_error(apart)
    interval = t_interval(difference, error, len(apart))
    return {
        "chat": {"own": mean["chat", "chat"], "other": mean["chat", "text"]},
        "text": {"own": mean["text", "text"], "other": mean["text", "chat"]},
        "difference": difference,
        "error": error,
        "interval": interval and list(interval),
        "differences": apart,
    }


def _curves(rows: Sequence[Row]) -> dict[str, Any]:
    """Return the fitted curve of each objective over the share, with its points and what can be said of its optimum."""
    found = {}
    for name in OBJECTIVES:
        points = [(row["seed"], row["share"], row[name]) for row in rows if row.get(name) is not None]
        if not why_no_curve(points):
            curve = fit_shares(points, name in HIGHER_IS_BETTER)
            found[name] = {"optimum_is": curve.sentence(), **asdict(curve), "points": points}
    return found


def _by_source(rows: Sequence[Row]) -> dict[str, list[tuple[float, float]]]:
    """Return for each source the mean held-out loss of the seeds by share."""
    found: dict[str, list[tuple[float, float]]] = {}
    for share in sorted({row["share"] for row in rows}):
        here = [row["heldout"] for row in rows if row["share"] == share]
        for source in here[0]:
            found.setdefault(source, []).append((share, sum(losses[source] for losses in here) / len(here)))
    return found


def _schedules(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return for each number of tokens and rate the text loss of both schedules, and WSD's less cosine's by seed."""
    groups: dict[tuple[int, float], dict[tuple[str, int], float]] = {}
    for row in rows:
        groups.setdefault((row["tokens"], row["rate"]), {})[row["schedule"], row["seed"]] = row["text"]
    found = []
    for (tokens, rate), losses in sorted(groups.items()):
        seeds = {seed for _, seed in losses}
        both = [seed for seed in seeds if {("wsd", seed), ("cosine", seed)} <= losses.keys()]
        difference, error = mean_and_error([losses["wsd", seed] - losses["cosine", seed] for seed in both])
        means = {
            schedule: mean_and_error([loss for (name, _), loss in losses.items() if name == schedule])[0]
            for schedule in ("wsd", "cosine")
        }
        counted = {"difference": difference, "error": error, "seeds": len(both)}
        found.append({"tokens": tokens, "rate": rate, **means, **counted})
    return found


def _have(rows: Any, name: str) -> bool:
    return all(row.get(name) is not None for row in rows)
