"""Hyperparameter search over Table 5 with Optuna's TPE sampler; the study is a journal file, so it resumes.

recipe -> trial: Table 5's four values -> train -> final held-out loss -> ... -> best.toml
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from xmodel2.errors import XmodelError
from xmodel2.files import write_json_atomic, write_text_atomic
from xmodel2.recipe import Recipe, load_recipe, recipe_to_toml, replace
from xmodel2.train import read_metrics, train
from xmodel2.train.guard import DivergedError

Objective = Callable[[Recipe], float]


def suggest(trial: optuna.trial.BaseTrial) -> dict[str, Any]:
    """Draw a point of Table 5's space."""
    return {
        "model.scale_emb": float(trial.suggest_int("scale_emb", 2, 20)),
        "model.dim_model_base": trial.suggest_categorical("dim_model_base", [32, 64, 128, 256, 512, 1024]),
        "model.scale_depth": trial.suggest_float("scale_depth", 1.0, 5.0, step=0.1),
        "train.learning_rate": trial.suggest_float("learning_rate", 0.001, 0.1, step=0.001),
    }


def run_search(recipe: Recipe, trials: int, out: Path, objective: Objective) -> dict[str, Any]:
    """Add ``trials`` to the study in ``out`` and return best_value and best_params; writes best.toml and study.json.

    A trial that was interrupted is made first, with the same values and so in the same run directory. A diverged trial
    counts as pruned. Raises `XmodelError` if no trial of the study succeeded.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    _same_recipe(recipe, out / "recipe.toml")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(
        study_name=recipe.name,
        storage=JournalStorage(JournalFileBackend(str(out / "journal.log"))),
        direction="minimize",
        load_if_exists=True,
    )
    # Another seed for each call: the same one would draw the same points again.
    study.sampler = optuna.samplers.TPESampler(seed=recipe.seed + len(study.trials))
    _enqueue_interrupted(study)

    def trial_value(trial: optuna.Trial) -> float:
        values = suggest(trial)
        name = "-".join([recipe.name, *(f"{value:g}" for value in values.values())])
        candidate = replace(recipe, {"name": name, **values})
        try:
            value = objective(candidate)
        except DivergedError as error:
            raise optuna.TrialPruned(str(error)) from None
        if not math.isfinite(value):
            raise optuna.TrialPruned("the loss is not finite")
        return value

    study.optimize(trial_value, n_trials=trials)
    done = [trial for trial in study.trials if trial.value is not None]
    if not done:
        raise XmodelError(f"{out}: no trial ended with a finite loss; lower the learning rates or look at the data")
    best = study.best_trial
    values = suggest(optuna.trial.FixedTrial(best.params))
    write_text_atomic(out / "best.toml", recipe_to_toml(replace(recipe, values)))
    rows = [{"number": t.number, "value": t.value, "params": t.params, "state": t.state.name} for t in study.trials]
    write_json_atomic(out / "study.json", {"best": best.number, "trials": rows})
    return {"best_value": best.value, "best_params": best.params}


def _same_recipe(recipe: Recipe, path: Path) -> None:
    """Write the study's recipe, or raise `XmodelError` if it began with another: their losses would not compare."""
    if not path.exists():
        write_text_atomic(path, recipe_to_toml(recipe))
    elif load_recipe(path) != recipe:
        raise XmodelError(f"{path}: this study began with another recipe; use that one, or choose another --out")


def _enqueue_interrupted(study: optuna.Study) -> None:
    """Queue the trials that a kill or an error cut short, but for those that were made again since."""
    states = optuna.trial.TrialState
    made = [trial.params for trial in study.trials if trial.state in (states.COMPLETE, states.PRUNED)]
    made += [trial.system_attrs.get("fixed_params", {}) for trial in study.get_trials(states=(states.WAITING,))]
    for trial in study.get_trials(states=(states.RUNNING, states.FAIL)):
        if trial.state == states.RUNNING:
            study.tell(trial.number, state=states.FAIL)
        if trial.params and not any(trial.params.items() <= params.items() for params in made):
            study.enqueue_trial(trial.params)
            made.append(trial.params)


def trial_loss(recipe: Recipe, runs: Path) -> float:
    """Train a recipe and return its last held-out loss, the mean over text sources; going on where it was interrupted."""
    run_dir = Path(runs) / recipe.name
    torch._dynamo.reset()  # each trial has its own constants; their compiled code must not add up
    if not train(recipe, run_dir, resume=True).finished:
        raise KeyboardInterrupt
    heldout = [line["heldout"] for line in read_metrics(run_dir) if line.get("kind") == "heldout"]
    if not heldout or not heldout[-1]:
        raise XmodelError(
            f"{recipe.data.dir}: no source has held-out text, which trials are judged by; prepare it with some"
        )
    last = heldout[-1]
    losses = [row["loss"] for row in last.values() if "bits_per_byte" in row] or [row["loss"] for row in last.values()]
    return sum(losses) / len(losses)
