"""Where a study is kept: a journal file, or any database that Optuna knows; and its sampler and pruner."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from xmodel2.errors import XmodelError
from xmodel2.recipe import Recipe
from xmodel2.search.claims import was_drawn

JOURNAL = "journal.log"
"""The study in its directory, unless --storage says otherwise."""


def open_storage(storage: str | None, out: Path) -> BaseStorage:
    """Open a database by its URL, a journal by its path, or the journal in ``out``. Raises `XmodelError` if it can't be."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if storage is None or "://" not in storage:
        return _journal(Path(storage) if storage else out / JOURNAL)
    # A SQLite file has one writer at a time: let the others wait for it.
    options: dict[str, Any] = {"connect_args": {"timeout": 60}} if storage.startswith("sqlite") else {}
    try:
        return RDBStorage(storage, engine_kwargs=options)
    except Exception as error:  # of the driver, of SQLAlchemy, or of Optuna: each has its own
        raise XmodelError(
            f"--storage: cannot be opened ({str(error).splitlines()[0]}); give a URL such as sqlite:///study.db or"
            " postgresql://user@host/database, and install that database's driver"
        ) from None


def _journal(path: Path) -> JournalStorage:
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = JournalFileSymlinkLock(str(path))
    backend = JournalFileBackend(str(path), lock)
    lock.acquire()
    try:
        _drop_half_line(path)
    finally:
        lock.release()
    try:
        return JournalStorage(backend)
    except (ValueError, KeyError) as error:
        raise XmodelError(f"{path}: damaged, or not a study's journal ({error}); choose another --out") from None


def _drop_half_line(path: Path) -> None:
    """Cut off what a machine that lost power left half written: what comes after it could not be read."""
    with open(path, "r+b") as handle:
        content = handle.read()
        handle.truncate(content.rfind(b"\n") + 1)


def open_study(storage: BaseStorage, name: str, recipe: Recipe) -> tuple[Study, bool]:
    """Return the study of that name, and whether this call made it."""
    options: dict[str, Any] = {
        "storage": storage,
        "sampler": TrialSeededTPE(recipe.seed, recipe.search.startup_trials),
        "pruner": _pruner(recipe),
    }
    try:
        return optuna.create_study(study_name=name, direction="minimize", **options), True
    except optuna.exceptions.DuplicatedStudyError:
        return optuna.load_study(study_name=name, **options), False


def _pruner(recipe: Recipe) -> optuna.pruners.BasePruner:
    """Return the pruner; its steps are tokens, so that trials of other batch sizes compare."""
    tokens = recipe.train.batch_tokens
    if recipe.search.pruner == "median":
        return optuna.pruners.MedianPruner(recipe.search.startup_trials, recipe.train.warmup_steps * tokens)
    if recipe.search.pruner == "hyperband":
        first = min(max(1, recipe.train.heldout_every), recipe.total_steps) * tokens
        return optuna.pruners.HyperbandPruner(first, recipe.total_steps * tokens)
    return optuna.pruners.NopPruner()


class TrialSeededTPE(optuna.samplers.BaseSampler):
    """TPE (Bergstra et al. 2011) whose draw depends on the seed, the trial's place and the trials before, on nothing else.

    So a search that was killed and gone on draws what the uninterrupted one would have drawn, and workers that begin at the
    same moment draw different points. Running trials count as bad ones (constant liar), which keeps workers apart.
    """

    def __init__(self, seed: int, startup_trials: int) -> None:
        self._seed, self._startup_trials = seed, startup_trials
        self._tpe = self._seeded(0)

    def _seeded(self, place: int) -> optuna.samplers.TPESampler:
        seed = (self._seed * 1_000_003 + place) % 2**32
        return optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=self._startup_trials, multivariate=True, constant_liar=True
        )

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Begin the trial's own stream of random numbers."""
        earlier = study.get_trials(deepcopy=False)[: trial.number]
        self._tpe = self._seeded(sum(was_drawn(other) for other in earlier))
        self._tpe.before_trial(study, trial)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """As `TPESampler`."""
        return self._tpe.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """As `TPESampler`."""
        return self._tpe.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """As `TPESampler`."""
        return self._tpe.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """As `TPESampler`."""
        self._tpe.after_trial(study, trial, state, values)
