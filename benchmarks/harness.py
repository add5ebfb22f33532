"""The fixed form of every benchmark: interleaved runs, medians, one JSON object last."""

import argparse
import json
import os
import platform
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch


@dataclass(frozen=True)
class Result:
    """What `--json` prints last."""

    name: str
    machine: str
    ours: float
    peers: dict[str, float]
    unit: str
    ratio_to_best_peer: float | None
    share_of_limit: float | None
    limit: float | None
    notes: str

    def show(self, as_json: bool) -> None:
        """Print as JSON or as lines."""
        if as_json:
            print(json.dumps(asdict(self)))
            return
        for key, value in asdict(self).items():
            print(f"{key:>20}: {value}")


def argument_parser(description: str | None, quick: str) -> argparse.ArgumentParser:
    """Return a parser with what every benchmark takes; ``quick`` says what is left out to end within 50 s."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"{quick}: under 50 s on 2 cores")
    parser.add_argument("--json", action="store_true")
    return parser


def machine() -> str:
    """Describe the hardware in a few words."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    return f"{model}, {os.cpu_count()} cores, torch {torch.__version__}"


def drawn_documents(rows: int, length: int, longest: int) -> torch.Tensor:
    """Return ids [rows, length] of documents of 40 to ``longest`` positions, the same each time."""
    lengths = torch.randint(40, longest + 1, (rows, length), generator=torch.Generator().manual_seed(0))
    return torch.stack([torch.repeat_interleave(torch.arange(length), row)[:length] for row in lengths]).int()


def interleaved(runs: dict[str, Callable[[], float]], repeats: int) -> dict[str, float]:
    """Call each run ``repeats`` times in turn and return the median of what each returns."""
    values: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            values[name].append(run())
    return {name: statistics.median(found) for name, found in values.items()}


def gpu_seconds(run: Callable[[], object]) -> float:
    """Return the seconds that a GPU takes, by events on the device: the median of 10 after 3."""
    for _ in range(3):
        run()
    times = []
    for _ in range(10):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        run()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end) / 1e3)
    return statistics.median(times)
