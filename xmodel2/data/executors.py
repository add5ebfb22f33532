"""Tasks done on this machine, on a Ray cluster or by Slurm, through datatrove's executors: what is finished is not redone.

A step is a callable (data, rank, world_size) that writes its files atomically; a task is marked as finished in
WORK/logs/STEP/completions after that. All machines see the same WORK folder.
"""

import contextlib
import io
import logging
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from datatrove.executor.base import DistributedEnvVars, PipelineExecutor
from loguru import logger

from xmodel2.errors import XmodelError

_PARTS = 16  # of a step, for each worker
_SLURM_SECONDS = 5  # between looks at the queue
Step = Callable[[Any, int, int], None]
Progress = Callable[[str, int, int], None]
"""Called with a step's name, how many of its tasks are finished, and how many there are."""


@dataclass(frozen=True)
class Cluster:
    """Where tasks are done, and how many at once."""

    kind: str = "local"
    """local, ray or slurm."""
    workers: int = 1
    """Tasks at once."""
    options: dict[str, str] = field(default_factory=dict)
    """Of Slurm: time, partition and other arguments of datatrove's SlurmPipelineExecutor."""


class _Quiet:
    """Keeps datatrove's log off the terminal; it is in the task's own log file."""

    def _run_for_rank(self, *arguments: Any, **keywords: Any) -> Any:
        with contextlib.redirect_stderr(io.StringIO()):
            return super()._run_for_rank(*arguments, **keywords)  # type: ignore[misc]


class LocalExecutor(_Quiet, PipelineExecutor):
    """Processes of this machine. Unlike datatrove's own, it notices a worker that was killed instead of waiting for ever."""

    def __init__(
        self, step: Step, tasks: int, pool: Callable[[], ProcessPoolExecutor] | None, logging_dir: str
    ) -> None:
        super().__init__([step], logging_dir)
        self._tasks, self._pool = tasks, pool

    @property
    def world_size(self) -> int:
        """Number of tasks."""
        return self._tasks

    def get_distributed_env(self, node_rank: int = -1) -> DistributedEnvVars:
        """Return what datatrove tells each task of its surroundings."""
        return {
            "datatrove_node_ips": "",
            "datatrove_cpus_per_task": "1",
            "datatrove_mem_per_cpu": "",
            "datatrove_gpus_on_node": "0",
            "datatrove_executor": "LOCAL",
        }

    def run(self) -> None:
        """Do all unfinished tasks. Raises what the first failing one raised, or `XmodelError` if a worker was killed."""
        ranks = self.get_incomplete_ranks()
        if self._pool is None or len(ranks) <= 1:
            for rank in ranks:
                PipelineExecutor._run_for_rank(self, rank)
            return
        pool, self._pool = self._pool(), None  # a pool cannot be sent to its own workers
        # A few ranks at a time: each time, the whole plan is sent to a worker.
        parts = min(len(ranks), _PARTS * pool._max_workers)  # type: ignore[attr-defined]
        try:
            for done in as_completed([pool.submit(self._run_ranks, ranks[part::parts]) for part in range(parts)]):
                done.result()
        except BrokenProcessPool:
            raise XmodelError(
                "a worker process was killed, perhaps for want of memory; run the same command again to go on, with fewer"
                " --workers if it happens again"
            ) from None

    def _run_ranks(self, ranks: list[int]) -> None:
        for rank in ranks:
            self._run_for_rank(rank)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process ends the workers
    threading.Thread(target=_die_with_parent, daemon=True).start()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


def _die_with_parent() -> None:
    """End a worker whose main process was killed, so that it does not write into what comes after."""
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


class TaskRunner:
    """Runs the steps of one preparation; a context, whose end ends the workers."""

    def __init__(self, work: Path, cluster: Cluster, progress: Progress | None = None) -> None:
        self._work, self._cluster, self._progress = Path(work), cluster, progress
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> "TaskRunner":
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            for process in list((self._pool._processes or {}).values()):
                process.terminate()
            self._pool.shutdown(cancel_futures=True)

    def run(self, name: str, step: Step, tasks: int) -> None:
        """Do the tasks 0..tasks of a step that are not finished yet, and return when all are.

        Raises `XmodelError`, or OSError of a full disk, as soon as one fails.
        """
        logs = self._work / "logs" / name
        executor = self._executor(name, step, tasks, logs)
        ended = threading.Event()
        watcher = threading.Thread(target=_watch, args=(name, logs, tasks, self._progress, ended), daemon=True)
        watcher.start()
        try:
            logger.disable("datatrove")
            executor.run()
            if self._cluster.kind == "slurm":
                _wait_for_slurm(executor)
        finally:
            logger.enable("datatrove")
            ended.set()
            watcher.join()
        if missing := executor.get_incomplete_ranks(skip_completed=True):
            raise XmodelError(
                _last_error(logs, missing[0]) or f"{logs}: tasks {missing} ended without a word in their logs"
            )

    def _executor(self, name: str, step: Step, tasks: int, logs: Path) -> Any:
        workers = self._cluster.workers
        if self._cluster.kind == "local":
            return LocalExecutor(step, tasks, self._workers if workers > 1 else None, str(logs))
        if self._cluster.kind == "ray":
            return _ray_executor(step, tasks, workers, str(logs))
        from datatrove.executor import SlurmPipelineExecutor

        options = {"time": "24:00:00", "partition": "", **self._cluster.options}
        if not options["partition"]:
            raise XmodelError("data prepare: Slurm needs a partition: --slurm partition=NAME time=24:00:00")
        if shutil.which("sbatch") is None:
            raise XmodelError(
                "data prepare: --executor slurm needs the command sbatch; give it on a machine of the cluster"
            )
        numbers: dict[str, Any] = {key: int(text) if text.isdigit() else text for key, text in options.items()}
        settings = {**numbers, "workers": workers, "job_name": f"xmodel2-{name}", "logging_dir": str(logs)}
        try:
            return SlurmPipelineExecutor([step], tasks, **settings)
        except TypeError as error:
            raise XmodelError(
                f"--slurm: {error}; allowed are the arguments of datatrove's SlurmPipelineExecutor"
            ) from None

    def _workers(self) -> ProcessPoolExecutor:
        """Return the pool, which is kept from step to step: to start a worker takes seconds."""
        if self._pool is None:
            context = get_context("spawn")
            self._pool = ProcessPoolExecutor(self._cluster.workers, mp_context=context, initializer=_start_worker)
        return self._pool


def _last_error(logs: Path, rank: int) -> str:
    """Return what a task on another machine said last, from its log: Ray and Slurm do not hand it on."""
    try:
        lines = (logs / "logs" / f"task_{rank:05d}.log").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    errors = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b", line)]
    return errors[-1].removeprefix(f"{XmodelError.__module__}.XmodelError: ") if errors else ""


def _ray_executor(step: Step, tasks: int, workers: int, logs: str) -> Any:
    try:
        import ray
        from datatrove.executor.ray import RayPipelineExecutor
    except ImportError:
        raise XmodelError("data prepare: --executor ray needs Ray: pip install 'xmodel2[ray]'") from None
    if not ray.is_initialized():
        ray.init(logging_level=logging.ERROR, log_to_driver=False)

    class RayExecutor(_Quiet, RayPipelineExecutor):  # type: ignore[misc]
        pass

    return RayExecutor([step], tasks, workers=workers, logging_dir=logs, mem_per_cpu_gb=1)


def _wait_for_slurm(executor: Any) -> None:
    """Return when all tasks are finished, or the job is not in the queue any more."""
    while executor.get_incomplete_ranks(skip_completed=True):
        queue = subprocess.run(["squeue", "-h", "-j", str(executor.job_id)], capture_output=True, text=True)
        if queue.returncode == 0 and not queue.stdout.strip():
            return
        time.sleep(_SLURM_SECONDS)


def _watch(name: str, logs: Path, tasks: int, progress: Progress | None, ended: threading.Event) -> None:
    if progress is None:
        return
    while True:
        over = ended.wait(0.5)
        progress(name, len(list((logs / "completions").glob("*"))), tasks)
        if over:
            return
