"""What a search found: study.json with every trial, and best.toml, a recipe that `train` takes."""

import statistics
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from xmodel2.errors import XmodelError
from xmodel2.files import write_json_atomic, write_text_atomic
from xmodel2.recipe import Recipe, recipe_to_toml
from xmodel2.search.identity import ATTRIBUTE
from xmodel2.search.space import drawn, flat, rounded
from xmodel2.search.study_trials import best_trials

ENDED = (TrialState.COMPLETE, TrialState.PRUNED)
STUDY_FILE, BEST_FILE = "study.json", "best.toml"


def write_report(recipe: Recipe, study: Study, repeats: Study, out: Path) -> dict[str, Any]:
    """Write study.json and best.toml, and return the answer. Raises `XmodelError` if no trial has a finite loss."""
    finalists = _finalists(recipe, study, repeats)
    trials = study.get_trials(deepcopy=False)
    made = [*trials, *repeats.get_trials(deepcopy=False)]
    totals = _totals(trials, made)
    record = {
        "name": study.study_name,
        **{key: study.user_attrs[ATTRIBUTE][key] for key in ("code", "data")},
        "space": {key: value for key, value in flat(recipe).items() if key.startswith("search.space.")},
        "totals": totals,
        "finalists": finalists,
        "trials": [_row(trial) for trial in trials],
    }
    if not finalists:
        write_json_atomic(out / STUDY_FILE, record)
        raise XmodelError(f"{out}: no trial ended with a finite loss; lower the learning rates or look at the data")
    best = finalists[0]
    write_text_atomic(out / BEST_FILE, recipe_to_toml(drawn(recipe, best["values"])))
    write_json_atomic(out / STUDY_FILE, record)
    return {**best, **totals, "recipe": str(out / BEST_FILE)}


def _finalists(recipe: Recipe, study: Study, repeats: Study) -> list[dict[str, Any]]:
    """Return the best trials with the losses of all their seeds, the lowest mean first; those that diverged once, last."""
    again = sorted(repeats.get_trials(deepcopy=False, states=ENDED), key=lambda t: int(t.params["seed"]))
    rows = []
    for trial in best_trials(study, max(1, recipe.search.top_trials)):
        assert trial.value is not None
        losses: dict[str, float | None] = {str(recipe.seed): trial.value}
        losses |= {str(t.params["seed"]): loss_of(t) for t in again if t.params["trial"] == trial.number}
        finite = [loss for loss in losses.values() if loss is not None]
        rows.append(
            {
                "trial": trial.number,
                "values": rounded(trial.params),
                "loss": statistics.fmean(finite),
                "spread": statistics.stdev(finite) if len(finite) > 1 else None,
                "losses": losses,
                "diverged_seeds": len(losses) - len(finite),
            }
        )
    return sorted(rows, key=lambda row: (row["diverged_seeds"], row["loss"]))


def loss_of(trial: FrozenTrial) -> float | None:
    """Return the loss at a trial's end; None if it was not trained to its end."""
    return trial.value if trial.state == TrialState.COMPLETE else None


def outcome(trial: FrozenTrial) -> str:
    """Return "complete", "pruned", "diverged", "refused", "running", "waiting" or "cut short"."""
    if trial.state == TrialState.FAIL:
        return "cut short"
    if trial.state == TrialState.PRUNED:
        return str(trial.user_attrs.get("ended", "pruned")).partition(":")[0]
    return trial.state.name.lower()


def _row(trial: FrozenTrial) -> dict[str, Any]:
    kept = ("seed", "step", "seconds", "heldout", "ended", "again_of")
    return {
        "number": trial.number,
        "state": outcome(trial),
        "values": rounded(trial.params),
        "loss": loss_of(trial),
        "curve": {str(tokens): loss for tokens, loss in sorted(trial.intermediate_values.items())},
        **{key: trial.user_attrs[key] for key in kept if key in trial.user_attrs},
    }


def _totals(trials: Sequence[FrozenTrial], made: Sequence[FrozenTrial]) -> dict[str, Any]:
    ended = [trial for trial in made if trial.state in ENDED]
    spans = ((t.datetime_start, t.datetime_complete) for t in ended)
    hours = _busy_seconds((a, b) for a, b in spans if a and b) / 3600
    names = [outcome(trial) for trial in trials]
    return {
        **{name: names.count(name) for name in ("complete", "pruned", "diverged", "refused")},
        "repeats": len(ended) - sum(trial.state in ENDED for trial in trials),
        "hours": hours,
        "trials_per_hour": len(ended) / hours if hours else None,
    }


def _busy_seconds(spans: Iterable[tuple[datetime, datetime]]) -> float:
    """Return in how much time at least one trial ran: pauses between commands don't count."""
    total, until = 0.0, datetime.min
    for start, end in sorted(spans):
        total += max(0.0, (end - max(start, until)).total_seconds())
        until = max(until, end)
    return total
