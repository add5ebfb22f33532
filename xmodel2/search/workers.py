"""Several workers on one machine: processes that join one study, its threads or GPUs divided between them."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from xmodel2.errors import XmodelError
from xmodel2.recipe import Recipe, replace
from xmodel2.search.claims import Worker
from xmodel2.search.identity import identity, settle
from xmodel2.search.setting import picked_precision
from xmodel2.search.storage import open_storage, open_study
from xmodel2.search.study_trials import Search, Trainer
from xmodel2.search.trials import train_trials

FOLDER = "workers"
"""In the study's directory: a lock file for each worker that lives, and what spawned ones say."""

PRECISION = "precision"
"""User attribute of the study: what all its trials are trained in, whatever devices join."""


@dataclass(frozen=True)
class Job:
    """What every worker of one command is told."""

    recipe: Recipe
    out: Path
    goal: int
    """Trials that the study is to have."""
    storage: str | None
    """URL of a database, path of a journal, or None for the journal in ``out``."""
    at_once: int
    """Trials trained together."""


def join_study(job: Job, worker: Worker, train: Trainer = train_trials, accept_code: bool = False) -> Search:
    """Open the study, made if it is not there. Raises `XmodelError` if it has another recipe, code or data."""
    mine = identity(job.recipe)
    storage = open_storage(job.storage, job.out)
    study, made = open_study(storage, job.recipe.name, job.recipe)
    settle(study, mine, made, accept_code)
    repeats, _ = open_study(storage, f"{job.recipe.name}, other seeds", job.recipe)
    if PRECISION not in study.user_attrs:
        study.set_user_attr(PRECISION, picked_precision(job.recipe))
    # The command has read all shards for their checksums: once, and not for each trial.
    own = {"train.precision": study.user_attrs[PRECISION], "data.verify_checksums": False}
    recipe = replace(job.recipe, own)
    return Search(recipe, study, repeats, mine, job.out, worker, train, job.at_once)


def run_workers(job: Job, count: int) -> list[str]:
    """Make the job's trials with ``count`` processes; return what became of those that did not come to the end.

    The trial of one that is killed is made again by the others. Raises `XmodelError` if none of them came to the end.
    """
    return share_work(_join, (job,), count, job.out)


def share_work(
    work: Callable[..., None], given: tuple[Any, ...], count: int, out: Path, look: Callable[[], None] = lambda: None
) -> list[str]:
    """Run ``work(*given)`` in ``count`` processes, which share out among themselves what is to be done, threads and GPUs.

    ``out``: has a log of each in workers/; ``look``: called every second. Returns what became of those that did not come to the
    end; raises `XmodelError` if none did.
    """
    context = multiprocessing.get_context("spawn")  # a fork would inherit torch's threads half-way
    devices = _devices()
    processes = [
        context.Process(target=_begin, args=(work, given, out, number, count, devices[number % len(devices)]))
        for number in range(count)
    ]
    started: list[BaseProcess] = []
    try:
        for process in processes:
            process.start()
            started.append(process)
        for process in processes:
            while process.is_alive():
                process.join(1)
                look()
    finally:
        for begun in started:  # all are told before any is waited for: each may have a checkpoint to save
            begun.terminate()
        for begun in started:
            begun.join()
    lost = [_last_words(out, number, process) for number, process in enumerate(processes) if process.exitcode]
    if len(lost) == count:
        raise XmodelError("\n".join(lost))
    return lost


def _devices() -> list[str]:
    """Return the GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them; one empty name if there are none."""
    everyone = ",".join(map(str, range(torch.cuda.device_count())))
    return os.environ.get("CUDA_VISIBLE_DEVICES", everyone).split(",")


def _last_words(out: Path, number: int, process: BaseProcess) -> str:
    path = _log(out, number)
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    if process.exitcode and process.exitcode < 0:
        return f"worker {number} was killed (signal {-process.exitcode}); the same command goes on where it was"
    return f"worker {number}: {lines[-1] if lines else 'failed'} ({path})"


def _log(out: Path, number: int) -> Path:
    return out / FOLDER / f"worker-{number}.log"


def _begin(work: Callable[..., None], given: tuple[Any, ...], out: Path, number: int, count: int, device: str) -> None:
    """Be one of the workers: in a process of its own, which ends when its parent does."""
    if device:
        os.environ["CUDA_VISIBLE_DEVICES"] = device
    torch.set_num_threads(max(1, torch.get_num_threads() // count))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _log(out, number).parent.mkdir(parents=True, exist_ok=True)
    sys.stdout = sys.stderr = open(_log(out, number), "w", encoding="utf-8", buffering=1)
    try:
        work(*given)
    except XmodelError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("stopped")


def _join(job: Job) -> None:
    with Worker(job.out / FOLDER) as worker:
        join_study(job, worker).make_trials(job.goal)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
