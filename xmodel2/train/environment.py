"""On what a run was made: a line of `environment.jsonl` each time that it starts or goes on."""

import json
import os
import platform
import time
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import xmodel2
from xmodel2.files import append_json_line

ENVIRONMENT_FILE = "environment.jsonl"
_PACKAGES = ("torch", "transformers", "tokenizers", "numpy", "torchao")


def write_environment(run_dir: Path, step: int, device: torch.device, ranks: int) -> None:
    """Add what the run goes on with after ``step``."""
    append_json_line(run_dir / ENVIRONMENT_FILE, {"step": step, **environment(device), "ranks": ranks})


def first_step(run_dir: Path) -> int | None:
    """Return the step after which a run began: 0, or that of a checkpoint it was given; None if that is not written down."""
    with suppress(OSError, ValueError, KeyError, TypeError), open(run_dir / ENVIRONMENT_FILE, encoding="utf-8") as file:
        return int(json.loads(file.readline())["step"])
    return None


def environment(device: torch.device) -> dict[str, Any]:
    """Return versions and hardware, without names of people or machines."""
    on_gpu = device.type == "cuda"
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "xmodel2": xmodel2.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "packages": {name: found for name in _PACKAGES if (found := _version(name))},
        "device": torch.cuda.get_device_name(device) if on_gpu else _processor(),
        "cuda": torch.version.cuda if on_gpu else None,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "cpu"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
