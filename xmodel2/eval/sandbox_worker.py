"""The program that runs solutions one after the other, each in processes of its own that are gone before the next.

    jobs on descriptor 0 -> [tests' process] <-> [solution's process] -> verdicts on descriptor 1

    launcher (writes the identity maps) - namespaces - nursery (never sees a job) - fork -> tests      reads the job
                                                                                  - fork -> solution   gets its text from there

It is started without the site's packages and with an empty environment, so there is nothing of the user's in its memory, and
imports nothing of the project but its sandbox. The solution's process is forked before the job arrives: it can't know the tests.
"""

import ctypes
import fcntl
import gc
import importlib
import json
import os
import random
import select
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from time import monotonic, sleep
from typing import Any, NoReturn

from xmodel2.eval import sandbox_linux as linux
from xmodel2.eval import sandbox_seccomp as seccomp
from xmodel2.eval import sandbox_solution
from xmodel2.eval.sandbox_tests import run_tests
from xmodel2.eval.sandbox_values import read_frame, write_frame

_PRELOADED = (
    "array bisect bz2 calendar cmath collections copy csv ctypes dataclasses datetime decimal enum fractions functools hashlib "
    "heapq itertools lzma math numbers operator queue re statistics string struct textwrap threading time typing zlib"
)
"""Imported once: solutions start sooner, and system libraries that these need are loaded before the root is left."""
_PRELOADED_LIBRARIES = ("libpthread.so.0", "libz.so.1", "libgcc_s.so.1", "libstdc++.so.6")  # what NumPy needs
_PACKAGES = "/packages"  # where NumPy is inside
_GRACE = 2.0  # seconds that the tests' process has beyond the limit to say so itself
_LAST_STEPS = 0.1  # seconds from closed pipes to an end
_RESERVED_PROCESSES = 8  # of the limit's: our own
_COPIES = 32  # descriptors from here on are a child's copies


def main() -> None:
    """Run jobs with the settings in the first argument (JSON, see `sandbox`) until descriptor 0 closes.

    The first frame on descriptor 1 is ``["ready"]`` or ``["refused", reason]``.
    """
    settings = json.loads(sys.argv[1])
    sys.argv[:] = sys.orig_argv[:] = [""]
    linux.offer_to_end_first()
    sys.path.remove(settings["root"])
    home = None
    try:
        if settings["isolate"]:
            home = _enter_namespaces(settings["packages"])
            linux.become_unreadable()
        else:
            linux.become_unreadable()
            _preload()
            linux.own_folder_outside(settings["scratch"])
            os.chdir(settings["scratch"])
        linux.limit_resources(settings["memory"], settings["scratch_bytes"])
        folders = {os.path.dirname(package) for package in settings["packages"]}
        sys.path += [_PACKAGES] if settings["isolate"] else sorted(folders)
    except Exception as error:
        _refuse(error)
    write_frame(1, ["ready"])
    gc.collect()
    gc.freeze()
    while _run_one(settings, home):
        pass


def _refuse(error: Exception) -> NoReturn:
    write_frame(1, ["refused", (isinstance(error, OSError) and error.strerror) or str(error)])
    os._exit(1)


def _preload() -> None:
    for name in _PRELOADED.split():
        with suppress(ImportError):
            importlib.import_module(name)
    for library in _PRELOADED_LIBRARIES:
        with suppress(OSError):
            ctypes.CDLL(library)


def _enter_namespaces(packages: list[str]) -> int:
    """Go on as the first process of the sandbox, in a root of its own; return a descriptor of its process namespace."""
    if not seccomp.supported():
        raise OSError("its system calls are not known to the sandbox: " + " ".join(os.uname()))
    unshared_reader, unshared_writer = os.pipe()
    mapped_reader, mapped_writer = os.pipe()
    if child := os.fork():
        os.close(unshared_writer)
        if os.read(unshared_reader, 1):
            try:
                linux.map_identity(child)
            except OSError as error:
                os.kill(child, signal.SIGKILL)
                _refuse(error)
            os.write(mapped_writer, b"m")
        os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) & 1)
    linux.leave_all_namespaces()
    os.write(unshared_writer, b"u")
    os.read(mapped_reader, 1)
    if child := os.fork():
        os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) & 1)
    for descriptor in (unshared_reader, unshared_writer, mapped_reader, mapped_writer):
        os.close(descriptor)
    _preload()
    home = os.open("/proc/self/ns/pid", os.O_RDONLY)
    folders = [path for path in sys.path if os.path.isdir(path)]
    inner = [path for path in folders if any(path.startswith(other + "/") for other in folders)]
    library = [path for path in folders if path not in inner]
    hidden = [f"{path}/{name}" for path in library for name in ("site-packages", "dist-packages")]
    kept = {path: path for path in (*library, "/dev/null", "/dev/urandom")}
    # Not at their own paths: those may be below /tmp, which is a program's scratch directory.
    kept |= {f"{_PACKAGES}/{os.path.basename(package)}": package for package in packages}
    linux.enter_root(kept, hidden)
    return home


def _run_one(settings: dict[str, Any], home: int | None) -> bool:
    """Run the next job, with fresh processes; return False where there is none."""
    requests, answers, verdicts = os.pipe(), os.pipe(), os.pipe()

    def solution(reader: int, writer: int) -> None:
        if home is not None:
            linux.mount_scratch(settings["scratch_bytes"])
        _confine(settings)
        sandbox_solution.serve(reader, writer)

    def tests(jobs: int, reader: int, writer: int, verdict: int) -> None:
        _confine(settings)
        with suppress(EOFError):
            job = read_frame(jobs)
            write_frame(verdict, ["started"])
            write_frame(verdict, run_tests(job, reader, writer, settings["seconds"], settings["answer_bytes"]))

    go_home = linux.own_processes(home) if home is not None else None
    processes = [_fork(solution, requests[0], answers[1])]
    if go_home:
        go_home()
    processes.append(_fork(tests, 0, answers[0], requests[1], verdicts[1]))
    for descriptor in (*requests, *answers, verdicts[1]):
        os.close(descriptor)
    started = _next_frame(verdicts[0], None) is not None
    verdict = _next_frame(verdicts[0], settings["seconds"] + _GRACE) if started else None
    os.close(verdicts[0])
    gone = verdict is None or verdict[0] == "gone"
    ends = [_end(process, _LAST_STEPS if gone else 0.0) for process in processes]
    if started:
        silent = "timeout" if ends[1] is None else "killed"
        write_frame(1, _explained(verdict or [silent, settings["seconds"]], ends[0]))
    return started


def _end(process: int, patience: float) -> int | None:
    """Return how a child ended by itself, within ``patience`` seconds; kill it and return None where it did not."""
    last = monotonic() + patience
    while True:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if monotonic() >= last:
            break
        sleep(0.001)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return None


def _explained(verdict: list[Any], end: int | None) -> list[Any]:
    """Return the verdict, with the signal that ended the solution where one did."""
    reason, seconds = verdict
    if reason == "gone":
        names = {one.value: one.name for one in signal.Signals}
        reason = f"killed by {names.get(-end, f'signal {-end}')}" if end and end < 0 else "exited early"
    return [reason, seconds]


def _fork(run: Callable[..., None], *descriptors: int) -> int:
    """Start ``run`` in a child that has nothing open but copies of ``descriptors``, which it is given."""
    if child := os.fork():
        return child
    try:
        copies = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, _COPIES) for descriptor in descriptors]
        os.closerange(0, _COPIES)
        for _ in range(3):
            os.open(os.devnull, os.O_RDWR)
        run(*copies)
    finally:
        os._exit(0)


def _confine(settings: dict[str, Any]) -> None:
    random.seed(0)
    linux.limit("RLIMIT_CPU", int(settings["seconds"]) + 2)
    if settings["isolate"]:
        linux.limit("RLIMIT_NPROC", settings["threads"] + _RESERVED_PROCESSES)
        linux.drop_privileges()
        seccomp.restrict_calls()
        return
    linux.drop_privileges_outside([path for path in sys.path if os.path.isdir(path)])
    restricted = False
    if seccomp.supported():
        with suppress(OSError):
            seccomp.restrict_calls()
            restricted = True
    if not restricted:  # nothing else keeps it from starting processes; outside, all of the user's count
        linux.limit("RLIMIT_NPROC", settings["threads"] + _RESERVED_PROCESSES)


def _next_frame(descriptor: int, seconds: float | None) -> Any:
    """Return the next frame, or None at the end and after ``seconds``."""
    if not select.select([descriptor], [], [], seconds)[0]:
        return None
    try:
        return read_frame(descriptor)
    except EOFError:
        return None
