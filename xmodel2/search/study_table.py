"""What a person sees of a search: a live table on a terminal, a line a trial elsewhere, whoever makes the trials."""

import sys
import threading
import time
from contextlib import suppress
from types import TracebackType

from optuna.exceptions import StorageInternalError
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from xmodel2.search.study_report import ENDED, loss_of, outcome

LATEST = 12
"""Rows shown of the trials that ended."""
SECONDS = 1.0
"""Between looks at the study."""


class StudyTable:
    """Shows the study while a block runs."""

    def __init__(self, study: Study, repeats: Study, goal: int) -> None:
        """``goal``: trials that the study is to have."""
        self._study, self._repeats, self._goal = study, repeats, goal
        self._console = Console(file=sys.stderr)
        self._begin = time.monotonic()
        trials = self._trials()
        self._said = {(kind, trial.number) for kind, trial in trials if trial.state in ENDED}
        self._before = len(self._said)
        self._live = Live(console=self._console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "StudyTable":
        if self._console.is_terminal:
            self._live.start()
        elif there := sum(not kind for kind, _ in self._said):  # repeats with other seeds are none of those wanted
            self._console.print(f"going on: {there} trials are there, {self._goal} wanted", highlight=False)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        if kind is None:
            self._show()
        self._live.stop()
        if kind is KeyboardInterrupt:
            self._console.print("stopped; the same command goes on where it was")

    def _watch(self) -> None:
        while not self._stop.wait(SECONDS):
            with suppress(StorageInternalError):  # a database that is away: the workers will say so
                self._show()

    def _trials(self) -> list[tuple[str, FrozenTrial]]:
        return [("", trial) for trial in self._study.get_trials(deepcopy=False)] + [
            ("repeat", trial) for trial in self._repeats.get_trials(deepcopy=False)
        ]

    def _show(self) -> None:
        trials = self._trials()
        summary = self._summary(trials)
        if self._console.is_terminal:
            self._live.update(Group(self._table(trials), Text(summary)), refresh=True)
            return
        for kind, trial in trials:
            if trial.state in ENDED and (kind, trial.number) not in self._said:
                self._said.add((kind, trial.number))
                values = "" if kind else _values(trial)
                text = "  ".join(filter(None, (f"trial {_name(kind, trial)}", values, _result(trial), summary)))
                self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def _table(self, trials: list[tuple[str, FrozenTrial]]) -> Table:
        keys = list(dict.fromkeys(key for kind, trial in trials if not kind for key in trial.params))
        table = Table("trial", *(key.partition(".")[2] for key in keys), "loss", "state", box=None, pad_edge=False)
        for column in table.columns:
            column.justify = "right"
        ended = [row for row in trials if row[1].state in ENDED][-LATEST:]
        of = {trial.number: trial for kind, trial in trials if not kind}
        best = self._best(trials)
        for kind, trial in [*ended, *(row for row in trials if row[1].state == TrialState.RUNNING)]:
            values = of[trial.params["trial"]].params if kind and "trial" in trial.params else trial.params
            style = "bold green" if not kind and trial is best else "dim" if trial.state == TrialState.RUNNING else ""
            cells = (_short(values.get(key)) for key in keys)
            table.add_row(_name(kind, trial), *cells, _result(trial).partition(" ")[2], outcome(trial), style=style)
        return table

    def _best(self, trials: list[tuple[str, FrozenTrial]]) -> FrozenTrial | None:
        complete = [trial for kind, trial in trials if not kind and trial.state == TrialState.COMPLETE]
        return min(complete, key=lambda trial: (trial.value, trial.number), default=None)

    def _summary(self, trials: list[tuple[str, FrozenTrial]]) -> str:
        ended = sum(trial.state in ENDED for _, trial in trials)
        of_study = sum(trial.state in ENDED for kind, trial in trials if not kind)
        best, here = self._best(trials), ended - self._before
        text = f"{of_study}/{self._goal} trials"
        if repeats := [trial.state for kind, trial in trials if kind and trial.state != TrialState.FAIL]:
            text += f", {sum(state in ENDED for state in repeats)}/{len(repeats)} with other seeds"
        if best is not None:
            text += f", best {best.value:.4f} (trial {best.number})"
        if here and of_study < self._goal:
            text += f", {_time((time.monotonic() - self._begin) / here * (self._goal - of_study))} left"
        return text


def _name(kind: str, trial: FrozenTrial) -> str:
    if "seed" in trial.params and kind:  # of a trial that was just begun it may be missing
        return f"{trial.params['trial']}, seed {trial.params['seed']}"
    return str(trial.number)


def _values(trial: FrozenTrial) -> str:
    return " ".join(f"{key.rpartition('.')[2]}={_short(value)}" for key, value in trial.params.items())


def _result(trial: FrozenTrial) -> str:
    """Return how it ended, with the loss at the end or the last on the way."""
    loss = loss_of(trial)
    if loss is None and trial.intermediate_values:
        tokens = max(trial.intermediate_values)
        return f"{outcome(trial)} {trial.intermediate_values[tokens]:.4f} at {tokens:,}"
    return f"{outcome(trial)} {loss:.4f}" if loss is not None else outcome(trial)


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)


def _time(seconds: float) -> str:
    minutes, hours = round(seconds / 60), round(seconds / 3600, 1)
    return f"{seconds:.0f} s" if seconds < 120 else f"{minutes} min" if minutes < 120 else f"{hours} h"
