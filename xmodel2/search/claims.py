"""Which worker makes which trial, and what happens to the trials of one that is no more.

A worker holds a lock file while it lives and lets its trials' heart beat. A RUNNING trial's worker counts as dead
    at once, if it ran on this machine and its lock is free: the kernel frees it, however the process ended;
    after GRACE_SECONDS in which we saw no new beat, if it ran elsewhere (no clock is compared with another's).
Its trial becomes FAIL and is queued again with the same values, so it is made next, in the same run directory.
"""

import os
import socket
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

from filelock import FileLock, Timeout
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

BEAT_SECONDS, GRACE_SECONDS = 10.0, 60.0
MOST_TIMES = 3
"""Times that a trial is begun whose worker dies or fails each time: it may be what kills them."""
STOPPED, SURPLUS = "stopped", "not needed"
"""``ended`` of FAIL trials that will be made again whenever the study goes on, and of those that never will."""


class Worker:
    """This process among those that make a study's trials."""

    def __init__(self, folder: Path) -> None:
        """``folder``: of the lock files, shared by the workers of one machine."""
        self.name = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._folder, self._beats = folder, 0
        self._seen: dict[str, tuple[int, float]] = {}
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(self._lock_of(self.name))

    def __enter__(self) -> "Worker":
        self._lock.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()
        self._lock_of(self.name).unlink(missing_ok=True)

    def _lock_of(self, worker: str) -> Path:
        return self._folder / f"{worker}.lock"

    @contextmanager
    def beating(self, trials: Sequence[Trial]) -> Iterator[None]:
        """Show that this worker lives, on the first of its trials, while the block runs."""
        stop = threading.Event()

        def beat() -> None:
            while True:
                self._beats += 1
                # Told by others, who took us for dead; or a database that is away: the next report will say so.
                with suppress(UpdateFinishedTrialError, StorageInternalError):
                    trials[0].set_user_attr("beat", self._beats)
                if stop.wait(BEAT_SECONDS):
                    return

        heart = threading.Thread(target=beat, daemon=True)
        heart.start()
        try:
            yield
        finally:
            stop.set()
            heart.join()

    def dead_trials(self, study: Study) -> list[FrozenTrial]:
        """Return the RUNNING trials whose workers are no more."""
        running: dict[str, list[FrozenTrial]] = defaultdict(list)
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            running[trial.user_attrs.get("worker", f"of trial {trial.number}")].append(trial)
        return [trial for worker, trials in running.items() if self._is_dead(worker, trials) for trial in trials]

    def _is_dead(self, worker: str, trials: Sequence[FrozenTrial]) -> bool:
        if worker == self.name:
            return False
        beat, now = max(trial.user_attrs.get("beat", 0) for trial in trials), time.monotonic()
        if worker not in self._seen or self._seen[worker][0] != beat:
            self._seen[worker] = beat, now
        return self._lock_is_free(worker) or now - self._seen[worker][1] > GRACE_SECONDS

    def _lock_is_free(self, worker: str) -> bool:
        """Tell whether a worker of this machine has ended; False if it is another's, or its lock lies elsewhere."""
        path = self._lock_of(worker)
        if worker.rsplit("-", 2)[0] != socket.gethostname() or not path.exists():
            return False
        try:
            with FileLock(path, timeout=0):
                return True
        except Timeout:
            return False


def make_again(study: Study, worker: Worker, keys: set[str]) -> None:
    """Queue the trials that were cut short, with the same values; ``keys``: the values that a whole trial has."""
    for trial in worker.dead_trials(study):
        with suppress(UpdateFinishedTrialError, ValueError):  # another worker was quicker
            study.tell(trial.number, state=TrialState.FAIL)
    attempts: dict[int, list[FrozenTrial]] = defaultdict(list)
    for trial in study.get_trials(deepcopy=False):
        if trial.user_attrs.get("ended") != SURPLUS:
            attempts[first_attempt(trial)].append(trial)
    for number, trials in attempts.items():
        whole = [values for trial in trials if (values := queued_values(trial) or trial.params).keys() == keys]
        if not whole or any(trial.state != TrialState.FAIL for trial in trials):
            continue
        if sum(trial.user_attrs.get("ended") != STOPPED for trial in trials) < MOST_TIMES:
            study.enqueue_trial(whole[0], user_attrs={"again_of": number})


def first_attempt(trial: FrozenTrial | Trial) -> int:
    """Return the number of the trial that this one makes again, or its own."""
    return int(trial.user_attrs.get("again_of", trial.number))


def was_drawn(trial: FrozenTrial) -> bool:
    """Tell whether a trial has values of its own: it makes no other again, and was not one too many."""
    return "again_of" not in trial.user_attrs and trial.user_attrs.get("ended") != SURPLUS


def is_needed(trial: Trial, goal: int) -> bool:
    """Tell whether a trial that was just asked for is one of the ``goal``, and none that another worker makes.

    Two workers may ask, or queue the same values, at the same moment; the storage numbers trials, and the lower one counts.
    """
    trials = trial.study.get_trials(deepcopy=False)
    values = queued_values(trials[trial.number])
    earlier = [t for t in trials[: trial.number] if t.state != TrialState.FAIL]
    if values:
        return all(queued_values(t) != values for t in earlier)
    return len(earlier) < goal


def queued_values(trial: FrozenTrial) -> dict[str, float]:
    """Return the values that a trial was queued with; empty if it was drawn."""
    values: dict[str, float] = trial.system_attrs.get("fixed_params", {})
    return values


def end(trial: Trial, state: TrialState, value: float | None = None, **attributes: object) -> None:
    """Tell how a trial ended; nothing happens if others took its worker for dead."""
    with suppress(UpdateFinishedTrialError):
        for key, attribute in attributes.items():
            trial.set_user_attr(key, attribute)
        trial.study.tell(trial, value, state, skip_if_finished=True)
