"""Hyperparameter search (Table 5) with Optuna: a study that resumes, that many workers may join, and its answer.

recipe + search.space -> study: trials by TPE -> the best again with other seeds -> best.toml, study.json, figures/
"""

from pathlib import Path
from typing import Any

from optuna.exceptions import StorageInternalError

from xmodel2.errors import XmodelError
from xmodel2.files import write_text_atomic
from xmodel2.recipe import Recipe, load_recipe, recipe_to_toml
from xmodel2.search.claims import Worker
from xmodel2.search.identity import refuse_changes
from xmodel2.search.setting import check_trainable
from xmodel2.search.space import check_space, flat
from xmodel2.search.study_figures import write_figures
from xmodel2.search.study_report import write_report
from xmodel2.search.study_table import StudyTable
from xmodel2.search.study_trials import Trainer
from xmodel2.search.trials import train_trials
from xmodel2.search.workers import FOLDER, Job, join_study, run_workers

RECIPE_FILE = "recipe.toml"
"""The recipe that the study began with."""


def run_search(
    recipe: Recipe,
    trials: int,
    out: Path,
    storage: str | None = None,
    workers: int = 1,
    at_once: int = 1,
    accept_code: bool = False,
    train: Trainer = train_trials,
) -> dict[str, Any]:
    """Bring the study to ``trials`` trials in all, and return its answer; writes best.toml, study.json and figures.

    So the same call goes on where a search was killed, on this machine or another, and a larger number adds to it. Trials
    that were cut short are made first, with the same values. A diverged trial counts as a trial.
    Raises `XmodelError` before the first trial for a space or recipe that can't be searched or is not the study's, and at the
    end if no trial has a finite loss.
    """
    for option, count in (("trials", trials), ("workers", workers), ("trials-at-once", at_once)):
        if count < 1:
            raise XmodelError(f"--{option} {count}: must be at least 1")
    out = Path(out)
    check_space(recipe)
    check_trainable(recipe)
    _same_recipe(recipe, out / RECIPE_FILE)
    job = Job(recipe, out, trials, storage, at_once)
    lost: list[str] = []
    with Worker(out / FOLDER) as worker:
        try:
            search = join_study(job, worker, train, accept_code)
            with StudyTable(search.study, search.repeats, trials):
                if workers > 1:
                    lost = run_workers(job, workers)
                else:
                    search.make_trials(trials)
            answer = write_report(recipe, search.study, search.repeats, out)
            write_figures(search.study, out / "figures")
        except StorageInternalError as error:
            raise XmodelError(f"--storage: the database does not answer: {error}; give the command again") from None
    return answer | ({"lost_workers": lost} if lost else {})


def _same_recipe(recipe: Recipe, path: Path) -> None:
    if path.exists():
        refuse_changes(str(path.parent), flat(load_recipe(path)), flat(recipe))
    else:
        write_text_atomic(path, recipe_to_toml(recipe))
