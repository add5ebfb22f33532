"""What the rows of a comparison say: curves over the share, and tables of means and paired differences.

A row belongs to a comparison by what it differs in from the recipe's own decay of its seed, so rows of earlier calls count too.
Differences are taken within a seed, where the stable stage is the same, and then averaged; one seed has no error to state.
A decay that diverged has no scores; the seeds of such are listed with what it is part of, since survivors alone are a choice.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
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
        finished = _finished(rows)
        if not finished:
            raise XmodelError("every decay diverged; lower train.learning_rate, and choose another --out")
        last = "answers" if all(row.get("answers") is not None for row in finished) else "sft"
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
            "seeds": sorted({row["seed"] for row in _finished(self.rows)}),
            "weights": self.weights,
            "shares": _curves(within({"share"})),
            "by_source": _by_source(_finished(within({"share"}))),
            "mixtures": table(mixtures, lambda row: row["mixture"], base.mixture),
            "format": format_table(within({"mixture"})),
            "shape": table(within({"shape"}), lambda row: row["shape"], base.shape),
            "length": table(within({"steps"}), self._decay_tokens, base.steps * self.recipe.train.batch_tokens),
            "equal_tokens": table(whole, self._decay_tokens, base.steps * self.recipe.train.batch_tokens),
            "schedules": _schedules(schedules),
            "schedules_at_best": _at_best_rates(schedules),
            "law": [self._point(row) for row in _finished(schedules) if row["schedule"] == "wsd" and row["rate"] == 1],
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
    """Return for each value of ``key``: a run, the count of seeds, those that diverged, and of each objective the figures.

    They are the mean and the difference to ``base`` in the same seed, its standard error over the seeds that have both (None
    for one), and how many these are. The value ``base`` comes first, numbers in their order.
    """
    groups: dict[Any, dict[int, Row]] = {}
    for row in _finished(rows):
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
            "diverged": _diverged(row for row in rows if key(row) == value),
            **{name: _cell(group, own, name) for name in OBJECTIVES if _have(group.values(), name)},
        }
        for value, group in ((value, groups[value]) for value in values)
    ]


def _cell(group: Mapping[int, Row], own: Mapping[int, Row], name: str) -> dict[str, float | int | None]:
    values = [row[name] for row in group.values()]
    apart = [row[name] - own[seed][name] for seed, row in group.items() if own.get(seed, {}).get(name) is not None]
    difference, error = mean_and_error(apart)
    return {"mean": sum(values) / len(values), "difference": difference, "error": error, "seeds": len(apart)}


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
        "diverged": _diverged(row for row in rows if row["mixture"] in ARMS.values()),
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
            known = {"points": points, "diverged": _diverged(rows)}
            found[name] = {"optimum_is": curve.sentence(), **asdict(curve), **known}
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
    places = sorted({(row["tokens"], row["rate"]) for row in _finished(rows)})
    return [{"tokens": tokens, "rate": rate, **_both(rows, tokens, rate, rate)} for tokens, rate in places]


def _at_best_rates(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return as `_schedules`, for each number of tokens that both have, the two at the rate that is the best of each."""
    found = []
    for tokens in sorted({row["tokens"] for row in rows}):
        wsd, cosine = (_best_rate(rows, tokens, schedule) for schedule in ("wsd", "cosine"))
        if wsd is not None and cosine is not None:
            rates = {"wsd_rate": wsd, "cosine_rate": cosine}
            found.append({"tokens": tokens, **rates, **_both(rows, tokens, wsd, cosine)})
    return found


def _best_rate(rows: Sequence[Row], tokens: int, schedule: str) -> float | None:
    """Return the rate of the lowest mean loss, among those of the most seeds that have one; None without any."""
    losses: dict[float, list[float]] = {}
    for row in _finished(rows):
        if (row["tokens"], row["schedule"]) == (tokens, schedule):
            losses.setdefault(row["rate"], []).append(row["text"])
    return min(losses, key=lambda rate: (-len(losses[rate]), sum(losses[rate])), default=None)


def _both(rows: Sequence[Row], tokens: int, wsd: float, cosine: float) -> dict[str, Any]:
    """Return the mean text loss of both schedules, each at its rate, WSD's less cosine's by seed, and seeds that diverged."""
    rates = {"wsd": wsd, "cosine": cosine}
    here = [row for row in rows if row["tokens"] == tokens and row["rate"] == rates[row["schedule"]]]
    losses = {
        schedule: {row["seed"]: row["text"] for row in _finished(here) if row["schedule"] == schedule}
        for schedule in rates
    }
    apart = [loss - losses["cosine"][seed] for seed, loss in losses["wsd"].items() if seed in losses["cosine"]]
    difference, error = mean_and_error(apart)
    return {
        **{schedule: mean_and_error(list(found.values()))[0] for schedule, found in losses.items()},
        "difference": difference,
        "error": error,
        "seeds": len(apart),
        "diverged": _diverged(here),
    }


def _finished(rows: Iterable[Row]) -> list[Row]:
    return [row for row in rows if not row.get("ended")]


def _diverged(rows: Iterable[Row]) -> list[int]:
    """Return the seeds of those that have no scores."""
    return sorted({row["seed"] for row in rows if row.get("ended")})


def _have(rows: Any, name: str) -> bool:
    return all(row.get(name) is not None for row in rows)
