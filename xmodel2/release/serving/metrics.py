"""Counts and times of the gateway, written in Prometheus' text format.

The format: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

import os
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

_FIRST_TOKEN = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_BETWEEN = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
_WHOLE = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Histogram:
    """Counts of values (seconds) at or below each bound."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds, self._counts, self._sum = bounds, [0] * (len(bounds) + 1), 0.0

    def add(self, value: float, times: int = 1) -> None:
        """Count a value."""
        self._counts[bisect_left(self._bounds, value)] += times
        self._sum += value * times

    def lines(self, name: str) -> Iterable[str]:
        """Yield the samples."""
        total = 0
        for bound, count in zip((*map(str, self._bounds), "+Inf"), self._counts, strict=True):
            total += count
            yield f'{name}_bucket{{le="{bound}"}} {total}'
        yield f"{name}_sum {self._sum:.6f}"
        yield f"{name}_count {total}"


class Metrics:
    """What the gateway counts."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()
        """By route and status; 499 is a client that went away."""
        self.in_flight = 0
        self.prompt_tokens = 0
        self.generated_tokens = 0
        self.first_token = Histogram(_FIRST_TOKEN)
        self.between_tokens = Histogram(_BETWEEN)
        self.whole = Histogram(_WHOLE)

    def text(self, queued: int, engine_up: bool, restarts: int, memory: dict[str, int]) -> str:
        """Return all samples; ``memory`` is in bytes by process, 0 where it is not known."""
        routes = [
            f'xmodel2_requests_total{{route="{route}",status="{status}"}} {count}'
            for (route, status), count in sorted(self.requests.items())
        ]
        used = [f'xmodel2_memory_bytes{{process="{name}"}} {size}' for name, size in memory.items() if size]
        parts = [
            ("requests_total", "counter", "Requests answered, by route and status.", routes),
            ("in_flight", "gauge", "Requests being answered or waiting.", self.in_flight),
            ("queued", "gauge", "Requests waiting for a place in the engine.", queued),
            ("prompt_tokens_total", "counter", "Tokens of prompts.", self.prompt_tokens),
            ("generated_tokens_total", "counter", "Tokens generated.", self.generated_tokens),
            ("time_to_first_token_seconds", "histogram", "From a request to its first token.", self.first_token),
            ("inter_token_seconds", "histogram", "From a token to the next.", self.between_tokens),
            ("request_seconds", "histogram", "From a request to the end of its answer.", self.whole),
            ("engine_up", "gauge", "1 if the engine takes requests.", int(engine_up)),
            ("engine_restarts_total", "counter", "Times the engine died and was started again.", restarts),
            ("memory_bytes", "gauge", "Resident memory.", used),
        ]
        lines = []
        for short, kind, words, value in parts:
            name = f"xmodel2_{short}"
            lines += [f"# HELP {name} {words}", f"# TYPE {name} {kind}"]
            if isinstance(value, Histogram):
                lines += value.lines(name)
            else:
                lines += value if isinstance(value, list) else [f"{name} {value}"]
        return "\n".join(lines) + "\n"


def resident_bytes(pid: int) -> int:
    """Return a process's resident memory; 0 where there is no /proc, or no such process."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:")), 0)


def group_bytes(leader: int) -> int:
    """Return the resident memory of all processes of a group: an engine may be several. 0 where there is none."""
    total = 0
    for process in Path("/proc").glob("[0-9]*") if leader else ():
        with suppress(OSError):  # it has ended meanwhile
            if os.getpgid(int(process.name)) == leader:
                total += resident_bytes(int(process.name))
    return total
