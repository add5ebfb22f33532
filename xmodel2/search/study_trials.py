"""A worker's part of a study: it asks for trials, trains them, tells what came out, until the study has enough.

    ask a batch -> recipes -> train_trials -> tell        and at the end: the best trials again, with other seeds

A diverged trial is told as PRUNED: TPE counts it among the bad ones, after every trial that has a loss, and so keeps away from
where it was. FAIL, which TPE passes over, is left for trials that were cut short and will be made again. (Table 5 with every rate
above 0.05 diverging and 0.04 the best, 20 seeds, 60 trials: 24% of TPE's draws diverge told as PRUNED, 77% told as FAIL.)
"""

import contextlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from optuna.distributions import BaseDistribution, IntDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from xmodel2.errors import BusyError, XmodelError
from xmodel2.recipe import Recipe, replace
from xmodel2.search.claims import STOPPED, SURPLUS, Worker, end, first_attempt, is_needed, make_again, queued_values
from xmodel2.search.identity import Identity, compare
from xmodel2.search.space import comparable_tokens, distributions, drawn
from xmodel2.search.trials import TrialResult, Watch

POLL_SECONDS = 1.0
"""Between looks at what the other workers do, once there is nothing left to begin."""
BUSY_SECONDS = 30.0
"""Until a trial is tried again whose run directory another process holds."""
LOG = "training.log"
"""In the study's directory: what training says of its progress, which would run through the table of trials."""
REPEAT: dict[str, BaseDistribution] = {"trial": IntDistribution(0, 10**9), "seed": IntDistribution(0, 10**18)}
"""What a trial of the second study is: a trial of the first, with another seed."""

Trainer = Callable[[Sequence[Recipe], Path, Watch | None], list[TrialResult]]


@dataclass(frozen=True)
class Search:
    """A search as one worker sees it."""

    recipe: Recipe
    study: Study
    repeats: Study
    identity: Identity
    out: Path
    worker: Worker
    train: Trainer
    at_once: int
    """Trials handed to ``train`` together."""

    def make_trials(self, goal: int) -> None:
        """Make trials until the study has ``goal`` of them and no worker is at one; then the best with other seeds."""
        self._make(self.study, distributions(self.recipe), self._candidate, goal)
        self._queue_repeats()
        self._make(self.repeats, REPEAT, self._repeat, 0)

    def _make(
        self, study: Study, space: dict[str, BaseDistribution], recipe_of: Callable[[Trial], Recipe], goal: int
    ) -> None:
        while True:
            compare(self.study, self.identity)
            make_again(study, self.worker, set(space))
            batch = self._ask(study, space, goal)
            if batch:
                self._train(batch, recipe_of, prune=study is self.study)
            elif study.get_trials(deepcopy=False, states=(TrialState.RUNNING, TrialState.WAITING)):
                time.sleep(POLL_SECONDS)
            else:
                return

    def _ask(self, study: Study, space: dict[str, BaseDistribution], goal: int) -> list[Trial]:
        """Return the next trials, those first that were cut short; fewer than ``at_once`` near the goal."""
        batch: list[Trial] = []
        while len(batch) < self.at_once:
            states = [trial.state for trial in study.get_trials(deepcopy=False)]
            if TrialState.WAITING not in states and sum(state != TrialState.FAIL for state in states) >= goal:
                break
            trial = study.ask(space)
            trial.set_user_attr("worker", self.worker.name)
            if is_needed(trial, goal):
                batch.append(trial)
            else:
                end(trial, TrialState.FAIL, ended=SURPLUS)
        return batch

    def _train(self, batch: Sequence[Trial], recipe_of: Callable[[Trial], Recipe], prune: bool) -> None:
        trials, recipes = [], []
        for trial in batch:
            try:
                recipes.append(recipe_of(trial))
                trials.append(trial)
            except XmodelError as error:  # a combination that the recipe refuses, of values that it may have
                end(trial, TrialState.PRUNED, ended=f"refused: {error}")
        if not trials:
            return
        watch = self._watch(trials, recipes, prune)
        try:
            with open(self.out / LOG, "a") as log, contextlib.redirect_stderr(log), self.worker.beating(trials):
                results = self.train(recipes, self.out / "trials", watch)
        except BusyError:  # a worker that was taken for dead is alive; it ends the trial at its next report
            for trial in trials:
                end(trial, TrialState.FAIL, ended=STOPPED)
            time.sleep(BUSY_SECONDS)
            return
        except BaseException as error:
            stopped = isinstance(error, KeyboardInterrupt | SystemExit)
            for trial in trials:
                end(trial, TrialState.FAIL, ended=STOPPED if stopped else f"error: {error}")
            raise
        for trial, recipe, result in zip(trials, recipes, results, strict=True):
            _tell(trial, recipe, result)

    def _watch(self, trials: Sequence[Trial], recipes: Sequence[Recipe], prune: bool) -> Watch:
        """Return what looks at trials on the way. A repeat is never pruned: it would be for its seed, and not for its values."""
        comparable = comparable_tokens(self.recipe)

        def watch(index: int, step: int, loss: float) -> bool:
            trial, recipe = trials[index], recipes[index]
            if not math.isfinite(loss):
                return True
            tokens = step * recipe.train.batch_tokens
            try:
                trial.report(loss, tokens)
            except UpdateFinishedTrialError:  # others took this worker for dead, and make the trial again
                return True
            return prune and step < recipe.total_steps and tokens <= comparable and trial.should_prune()

        return watch

    def _candidate(self, trial: Trial) -> Recipe:
        recipe = drawn(self.recipe, trial.params)
        return replace(recipe, {"name": f"{self.recipe.name}-{first_attempt(trial):04d}"})

    def _repeat(self, trial: Trial) -> Recipe:
        number, seed = trial.params["trial"], trial.params["seed"]
        first = self.study.get_trials(deepcopy=False)[number]
        recipe = drawn(self.recipe, first.params)
        return replace(recipe, {"name": f"{self.recipe.name}-{first_attempt(first):04d}-seed-{seed}", "seed": seed})

    def _queue_repeats(self) -> None:
        """Queue the best trials with other seeds. Another worker may do the same: `is_needed` sorts that out."""
        known = [queued_values(trial) for trial in self.repeats.get_trials(deepcopy=False)]
        first = self.recipe.seed
        for trial in best_trials(self.study, self.recipe.search.top_trials):
            for seed in range(first + 1, first + self.recipe.search.top_seeds):
                values = {"trial": trial.number, "seed": seed}
                if values not in known:
                    self.repeats.enqueue_trial(values)


def best_trials(study: Study, count: int) -> list[FrozenTrial]:
    """Return the trials of lowest loss, best first."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return sorted(complete, key=lambda trial: (trial.value, trial.number))[:count]


def _tell(trial: Trial, recipe: Recipe, result: TrialResult) -> None:
    facts = {"seed": recipe.seed, "step": result.step, "seconds": round(result.seconds, 3)}
    if not math.isfinite(result.loss):
        # Training that was ended on the way for a loss that is not finite calls it "pruned".
        diverged = result.ended if result.ended.startswith("diverged") else "diverged: the loss is not finite"
        end(trial, TrialState.PRUNED, ended=diverged, **facts)
    elif result.ended:
        end(trial, TrialState.PRUNED, ended=result.ended, heldout=result.heldout, **facts)
    else:
        end(trial, TrialState.COMPLETE, result.loss, heldout=result.heldout, **facts)
