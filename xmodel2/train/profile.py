"""`--profile`: a trace of a few steps in RUN/profile for https://ui.perfetto.dev, and the costliest operations as a table.

5 steps pass (compilation, memory) | 2 steps with the profiler on, thrown away | 3 steps are recorded | written, then off
"""

from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from torch.autograd.profiler_util import EventList
from torch.profiler import ProfilerActivity, profile, schedule

from xmodel2.files import write_json_atomic

WAIT, WARMUP, ACTIVE = 5, 2, 3
"""Steps that pass, that warm the profiler up, and that are recorded."""
OPERATIONS = 10
"""Rows of the table."""
OPERATIONS_FILE = "operations.json"


class StepProfiler:
    """Records some of the first steps of a run; not ``enabled``, it does nothing. One rank is enough."""

    def __init__(self, run_dir: Path, start_step: int, enabled: bool) -> None:
        self._folder, self._first = run_dir / "profile", start_step + WAIT + WARMUP + 1
        self._console, self._written = Console(stderr=True), False
        self._profile: profile | None = None
        if enabled:
            cuda = [ProfilerActivity.CUDA] if torch.cuda.is_available() else []
            self._profile = profile(
                activities=[ProfilerActivity.CPU, *cuda],
                schedule=schedule(wait=WAIT, warmup=WARMUP, active=ACTIVE, repeat=1),
                on_trace_ready=self._write,
            )

    def __enter__(self) -> "StepProfiler":
        if self._profile is not None:
            self._profile.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._profile is not None:
            self._profile.stop()
            if not self._written:
                self._say(f"--profile: nothing was recorded, since the run ended before step {self._first}")

    def step(self) -> None:
        """Say that a step has ended; after the last one recorded, write the files and print the table."""
        if self._profile is None:
            return
        self._profile.step()
        if self._written:
            self._profile.stop()
            self._profile = None

    def _write(self, made: profile) -> None:
        """Write trace and table; a disk that is full stops the profile, not the run."""
        self._written = True
        last = self._first + ACTIVE - 1
        trace = self._folder / f"steps-{self._first}-{last}.trace.json.gz"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            made.export_chrome_trace(str(trace))
            rows = costliest(made.key_averages())
            write_json_atomic(self._folder / OPERATIONS_FILE, {"steps": [self._first, last], "operations": rows})
        except (OSError, RuntimeError) as error:
            self._say(f"--profile: {trace} could not be written ({error}); the run goes on")
            return
        self._console.print(_table(rows, f"Costliest operations, steps {self._first} to {last}"))
        self._console.print(
            f"{trace}: open it at https://ui.perfetto.dev", highlight=False, soft_wrap=True, markup=False
        )

    def _say(self, text: str) -> None:
        self._console.print(text, highlight=False, soft_wrap=True, markup=False)


def costliest(events: EventList) -> list[dict[str, Any]]:
    """Return operations by their own time, most first: on the GPU if there is one, else on the CPU; milliseconds a step."""
    rows = [
        {
            "operation": _readable(event.key),
            "self_cpu_ms": event.self_cpu_time_total / 1e3 / ACTIVE,
            "self_cuda_ms": event.self_device_time_total / 1e3 / ACTIVE,
            "calls": event.count / ACTIVE,
        }
        for event in events
        if event.device_type == torch.autograd.DeviceType.CPU  # kernels count under the operation that launched them
    ]
    by = "self_cuda_ms" if any(row["self_cuda_ms"] for row in rows) else "self_cpu_ms"
    total = sum(row[by] for row in rows) or 1.0
    rows.sort(key=lambda row: -row[by])
    return [{**row, "share": row[by] / total} for row in rows[:OPERATIONS]]


def _readable(key: str) -> str:
    """Return a name for people: of a step itself is left what lies between its operations, Python and waiting.

    >>> _readable("## Call CompiledFxGraph fyoetqndqkh4ak2jnwq ##")
    'compiled graph fyoetqnd, fused kernels'
    """
    if key.startswith("ProfilerStep"):
        return "(between operations)"
    if key.startswith("## Call CompiledFxGraph "):
        return f"compiled graph {key.split()[3][:8]}, fused kernels"
    return key


def _table(rows: list[dict[str, Any]], title: str) -> Table:
    keys = {"self_cpu_ms": "CPU, ms a step"}
    if any(row["self_cuda_ms"] for row in rows):
        keys["self_cuda_ms"] = "CUDA, ms a step"
    table = Table("operation", *keys.values(), "share", "calls a step", title=title)
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        times = (f"{row[key]:,.2f}" for key in keys)
        table.add_row(escape(row["operation"]), *times, f"{row['share']:.1%}", f"{row['calls']:,.0f}")
    return table
