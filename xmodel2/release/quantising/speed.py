"""Tokens a second and memory of several files of one model, each in a process of its own, measured in turns.

    files -> a process each -> every one reads the same prompt and makes as many tokens, round after round -> medians

Turns make what else the machine does fall on all alike. Processes wait while others run; together they hold all files, so if
those would not fit, each is measured by itself.
"""

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from xmodel2.errors import XmodelError

ROUNDS = 5
CHILD = ("-m", "xmodel2.release.quantising.timed_model")
_LOG_CHARACTERS = 2000


@dataclass(frozen=True)
class Work:
    """What every file is measured at."""

    prompt: list[int]
    new: int
    """Tokens to generate."""
    threads: int


class _Timed(Protocol):
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    @property
    def pid(self) -> int: ...
    def measure(self, work: Work) -> tuple[float, float]:
        """Return tokens a second of the prompt, and of generation."""


class _InTransformers:
    """A directory, run by `transformers`."""

    def __init__(self, folder: Path, threads: int) -> None:
        self._folder, self._log = folder, tempfile.TemporaryFile()
        self._child = subprocess.Popen(
            [sys.executable, *CHILD, str(folder), str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        self.pid = self._child.pid
        try:
            self.weights_bytes: int = self._answer()["weights_bytes"]
        except BaseException:
            self.__exit__(None, None, None)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._child.kill()
        self._child.communicate()
        self._log.close()

    def measure(self, work: Work) -> tuple[float, float]:
        assert self._child.stdin
        with contextlib.suppress(BrokenPipeError):  # it has ended, which there is no answer says
            self._child.stdin.write(json.dumps({"prompt": work.prompt, "new": work.new}) + "\n")
            self._child.stdin.flush()
        found = self._answer()
        return len(work.prompt) / found["prompt_s"], (work.new - 1) / found["generate_s"]

    def _answer(self) -> dict[str, Any]:
        assert self._child.stdout
        line = self._child.stdout.readline()
        if not line:
            self._child.wait()
            self._log.seek(0)
            said = self._log.read().decode(errors="replace")[-_LOG_CHARACTERS:].strip()
            raise XmodelError(f"{self._folder}: transformers ended while it was timed:\n{said}")
        answer: dict[str, Any] = json.loads(line)
        return answer


class _InLlama:
    """A GGUF file, run by llama.cpp's server."""

    def __init__(self, file: Path, work: Work) -> None:
        from xmodel2.release.llama_server import LlamaServer

        self._server = LlamaServer(file, context=len(work.prompt) + work.new + 1, threads=work.threads)
        self.pid = self._server.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()

    def measure(self, work: Work) -> tuple[float, float]:
        asked = {"prompt": work.prompt, "n_predict": work.new, "ignore_eos": True, "temperature": 0}
        timings = self._server.post("/completion", asked | {"cache_prompt": False})["timings"]
        return timings["prompt_per_second"], timings["predicted_per_second"]


def measure(
    places: dict[str, Path], work: Work, rounds: int = ROUNDS, show: Callable[[int, int], None] = lambda done, of: None
) -> dict[str, dict[str, Any]]:
    """Return {name: prompt_tokens_s, generate_tokens_s, peak_bytes, weights_bytes} of directories and GGUF files.

    Speeds are medians with the lowest and the highest of ``rounds``, after one that does not count. ``peak_bytes`` is of
    the process, with interpreter and libraries, and None where the system does not tell; ``weights_bytes`` is left out
    of GGUF files.
    """
    held = sum(_bytes(place) for place in places.values())
    groups: list[Sequence[str]] = [list(places)] if held < _free_memory() / 2 else [[name] for name in places]
    found: dict[str, dict[str, Any]] = {}
    done, of = 0, len(places) * (rounds + 1)
    for group in groups:
        with ExitStack() as stack:
            timed = {name: stack.enter_context(_start(places[name], work)) for name in group}
            taken: dict[str, list[tuple[float, float]]] = {name: [] for name in group}
            for _ in range(rounds + 1):
                for name, one in timed.items():
                    taken[name].append(one.measure(work))
                    done += 1
                    show(done, of)
            for name, one in timed.items():
                prompt, generate = zip(*taken[name][1:], strict=True)
                found[name] = {
                    "prompt_tokens_s": _spread(prompt),
                    "generate_tokens_s": _spread(generate),
                    "peak_bytes": _peak(one.pid),
                    "in_turns": len(group) > 1,
                }
                if isinstance(one, _InTransformers):
                    found[name]["weights_bytes"] = one.weights_bytes
    return found


def _start(place: Path, work: Work) -> _Timed:
    return _InLlama(place, work) if place.suffix == ".gguf" else _InTransformers(place, work.threads)


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def _bytes(place: Path) -> int:
    return sum(file.stat().st_size for file in (place.iterdir() if place.is_dir() else [place]))


def _free_memory() -> float:
    try:
        return float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (ValueError, OSError):  # a system that does not tell
        return float("inf")


def _peak(pid: int) -> int | None:
    """Return the most bytes that a process had in memory."""
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        return None
    [line] = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024
