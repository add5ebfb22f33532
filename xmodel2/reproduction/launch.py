"""A command of a stage as a process: its words in a log that only one process at a time has, its share of the machine."""

import fcntl
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO

from xmodel2.cores import usable_cores
from xmodel2.errors import XmodelError
from xmodel2.reproduction.stage import Command

Launch = Callable[[Command, IO[bytes], dict[str, str]], "subprocess.Popen[bytes]"]
PATIENCE_SECONDS = 5.0
"""For what a killed process left behind to notice that it is alone."""
_PROCESS = re.compile(rb"^# process (\d+)$", re.MULTILINE)


def launch(command: Command, log: IO[bytes], environment: dict[str, str]) -> "subprocess.Popen[bytes]":
    """Start a command; what it prints goes to the log, or to the file that it is for."""
    line = [sys.executable, "-m", "xmodel2.cli", *command.arguments]
    # A session of its own: Ctrl-C reaches it once, from here, when what it has is to be saved.
    options = {"stderr": log, "stdin": subprocess.DEVNULL, "env": environment, "start_new_session": True}
    if command.stdout is None:
        return subprocess.Popen(line, stdout=log, **options)  # type: ignore[call-overload, no-any-return]
    command.stdout.parent.mkdir(parents=True, exist_ok=True)
    with open(command.stdout, "wb") as file:
        return subprocess.Popen(line, stdout=file, **options)  # type: ignore[call-overload, no-any-return]


def open_log(path: Path) -> IO[bytes]:
    """Open a stage's log to add to, locked by this process and by all that inherit it.

    Raises `XmodelError` if a process that an earlier call left behind has it still: it works in the stage's folder.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    log = open(path, "ab")
    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() < until:
                time.sleep(0.05)
                continue
            log.close()
            found = _PROCESS.findall(path.read_bytes())
            which = f"process {found[-1].decode()}" if found else "a process"
            raise XmodelError(
                f"stage {path.stem}: {which}, which an earlier call began, still works on it; wait until it has ended (its"
                f" words go to {path}), or end it{f': kill {found[-1].decode()}' if found else ''}; then give the same"
                " command again"
            ) from None
        except OSError:  # a file system without locks; the commands' own keep them apart
            pass
        return log


def last_line(path: Path) -> str:
    """Return the last line of a log."""
    with open(path, "rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 2000))
        text = file.read().decode("utf-8", "replace").strip()
    return text.splitlines()[-1] if text else "..."


def environment_of(slot: int, workers: int, devices: list[str]) -> Mapping[str, str]:
    """Return what one of ``workers`` processes that run at once has of the machine: threads, and a GPU if there are several."""
    threads = max(1, usable_cores() // workers)
    given = {"OMP_NUM_THREADS": str(threads)} if "OMP_NUM_THREADS" not in os.environ else {}
    return given | ({"CUDA_VISIBLE_DEVICES": devices[slot % len(devices)]} if len(devices) > 1 else {})


def visible_devices() -> list[str]:
    """Return the GPUs that this process may use, by the names that CUDA_VISIBLE_DEVICES takes."""
    import torch

    count = torch.cuda.device_count()
    named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return named[:count] if named else [str(number) for number in range(count)]


def end(process: "subprocess.Popen[bytes]") -> None:
    """Kill a process, if it has not ended, and what it left behind."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    if process.poll() is None:
        process.kill()
    process.wait()
