"""Running programs that a model wrote, as what they are: hostile.

    Program(solution, tests) -> a worker a core -> [tests' process] <-> [solution's process] -> (index, Verdict)

A solution sees no network, no file but the standard library's (and NumPy's), an empty environment, no other process, and writes
nowhere but in a scratch directory in memory that ends with it. Its time, memory, threads, file sizes and answers are limited; it
can't start processes or programs. By Linux's namespaces, a seccomp filter and resource limits, as root or as an ordinary user.
Where the kernel refuses that, nothing runs, unless the caller insists.

The verdict is reached in another process than the solution's, see `sandbox_tests`. What is not defended against: a hole in the
kernel itself, what can be learned from timing on a shared machine, and a solution that knows the expected answers by heart.
"""

import importlib.util
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic

from xmodel2.cores import usable_cores
from xmodel2.errors import XmodelError
from xmodel2.eval.sandbox_linux import unreadable
from xmodel2.eval.sandbox_values import read_frame, write_frame

_ROOT = str(Path(__file__).parents[2])
_START = f"import sys; sys.path.append({_ROOT!r}); from xmodel2.eval.sandbox_worker import main; main()"
_FLAGS = ("-S", "-s", "-P", "-B")  # no site's packages, no user's packages, no path of the caller's, no files written
_GRACE = 10.0  # seconds beyond the limit after which a worker itself is taken for hung


@dataclass(frozen=True)
class Program:
    """A solution and what must hold of it. ``text`` is the same as one program, as the reference scorer runs it."""

    solution: str
    tests: str
    names: tuple[str, ...]
    """Names in the tests that mean the solution's functions, classes and values."""
    prelude: str = ""
    """Trusted text that the solution starts with: imports and helpers for the tests."""
    modules: tuple[str, ...] = ()
    """Names in the tests that mean modules of the standard library, which a solution may import for them but not replace."""

    @property
    def text(self) -> str:
        return f"{self.solution}\n{self.tests}"


@dataclass(frozen=True)
class Limits:
    """What a program may use."""

    seconds: float = 3.0
    """Wall time of solution and tests together."""
    memory: int = 1 << 30
    """Bytes of address space."""
    threads: int = 16
    scratch_bytes: int = 16 << 20
    """Bytes of the scratch directory, and of a file in it."""
    answer_bytes: int = 16 << 20
    """Bytes of one answer to the tests; what a program prints is thrown away."""


@dataclass(frozen=True)
class Verdict:
    """``reason`` is "passed", "assertion", "timeout", "memory", "exited early", "killed ..." or "exception NAME: message"."""

    passed: bool
    reason: str
    seconds: float


def run_programs(
    programs: Sequence[Program], limits: Limits | None = None, workers: int | None = None, insist: bool = False
) -> Iterator[tuple[int, Verdict]]:
    """Yield the verdict of each program with its index, in the order they end; ``workers`` is the number of cores by default.

    Raises `XmodelError`, at the first step, where the machine can't isolate programs. With ``insist`` they then run all the same,
    as far apart from the user as is possible: with an empty environment, limits and a temporary directory, and on Linux without
    sockets and processes, with this process and the sandbox's own closed to them, and as nobody where root runs them. What
    they can still do: read and write what the user may (for root: what nobody may write, and read all where the interpreter is
    in a folder of root's); see, through /proc, environment and memory of the user's other processes, such as the shell; and
    elsewhere than on Linux, use the network and look into this process as well.
    """
    limits = limits or Limits()
    waiting = list(enumerate(programs))[::-1]
    running: dict[_Worker, tuple[int, float]] = {}
    with ExitStack() as stack, selectors.DefaultSelector() as selector:
        for worker in _ready_workers(max(1, min(workers or usable_cores(), len(programs))), limits, insist, stack):
            running[worker] = -1, 0.0
        while running:
            for worker, (index, _) in list(running.items()):
                if index >= 0:
                    continue
                if not waiting:
                    del running[worker]
                    continue
                running[worker] = waiting[-1][0], monotonic() + limits.seconds + _GRACE
                worker.send(waiting.pop()[1])
                selector.register(worker.output, selectors.EVENT_READ)
            soonest = min((deadline for _, deadline in running.values()), default=monotonic())
            ready = {key.fileobj for key, _ in selector.select(max(0.0, soonest - monotonic()))}
            for worker, (index, deadline) in list(running.items()):
                if worker.output not in ready and monotonic() < deadline:
                    continue
                selector.unregister(worker.output)
                verdict = worker.verdict() if worker.output in ready else None
                if verdict is None:
                    worker.restart()
                    verdict = Verdict(False, "killed", limits.seconds)
                running[worker] = -1, 0.0
                yield index, verdict


class _Worker:
    """One process of `sandbox_worker`, and all that it started."""

    def __init__(self, limits: Limits, scratch: str | None) -> None:
        numpy = importlib.util.find_spec("numpy")
        folder = Path(numpy.origin).parent if numpy and numpy.origin else None
        found = [str(path) for path in (folder, folder.with_name("numpy.libs")) if path.is_dir()] if folder else []
        own = {"root": _ROOT, "isolate": scratch is None, "scratch": scratch, "packages": found}
        self._settings = json.dumps({**asdict(limits), **own})
        self._open()

    def _open(self) -> None:
        # The hash seed is fixed, so that a program's verdict is the same every time.
        kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
        self._process = subprocess.Popen(
            [sys.executable, *_FLAGS, "-c", _START, self._settings],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={"PYTHONHASHSEED": "0", "LANG": "C.UTF-8", "OPENBLAS_NUM_THREADS": "1", **kept},
            start_new_session=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._input = self._process.stdin.fileno()
        self.output = self._process.stdout.fileno()

    def refusal(self) -> str:
        """Wait until the worker is ready; return why it is not, or an empty string."""
        try:
            return " ".join(read_frame(self.output)[1:])
        except EOFError:
            return f"{sys.executable} did not start"

    def send(self, program: Program) -> None:
        with suppress(BrokenPipeError):  # its output ends too, which is where that is seen
            write_frame(self._input, asdict(program))

    def verdict(self) -> Verdict | None:
        """Return the verdict that has arrived, or None where the worker is gone."""
        try:
            reason, seconds = read_frame(self.output)
        except EOFError:
            return None
        return Verdict(reason == "passed", reason, seconds)

    def restart(self) -> None:
        """Replace a worker that is gone or hung."""
        self.close()
        self._open()
        if reason := self.refusal():
            raise XmodelError(f"The sandbox can't be started again: {reason}")

    def close(self) -> None:
        """End the worker and, with the first process of its namespace, everything in it."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()


def _ready_workers(count: int, limits: Limits, insist: bool, stack: ExitStack) -> list[_Worker]:
    workers = [_Worker(limits, None) for _ in range(count)]
    for worker in workers:
        stack.callback(worker.close)
    reason = next(filter(None, [worker.refusal() for worker in workers]), "")
    if reason and not insist:
        raise XmodelError(
            f"Programs can't be isolated here: {reason}. They are hostile, so none was run. Allow user namespaces (sysctl "
            "user.max_user_namespaces above 0, kernel.apparmor_restrict_unprivileged_userns=0 on Ubuntu; in a container, a "
            "seccomp profile that permits unshare and mount), use another machine, or run them unconfined (--unsafe-code)."
        )
    if reason:
        stack.enter_context(unreadable())  # an environment may hold keys, and programs see /proc
        scratches = [stack.enter_context(tempfile.TemporaryDirectory(prefix="xmodel2-")) for _ in range(count)]
        workers = [_Worker(limits, scratch) for scratch in scratches]
        for worker in workers:
            stack.callback(worker.close)
            if reason := worker.refusal():
                raise XmodelError(f"The sandbox can't be started: {reason}")
    return workers
