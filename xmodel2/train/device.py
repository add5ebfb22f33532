"""What the hardware gives: the device, and its matrix-multiply rate, measured, to choose a precision and to state MFU against."""

import functools
import os
import resource
import shutil
import sys
import time
from pathlib import Path

import torch

from xmodel2.errors import XmodelError
from xmodel2.model.gpu_kernels import can_build
from xmodel2.recipe import ModelSettings
from xmodel2.train.devices import nominal_flops_of

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def pick_device(name: str) -> torch.device:
    """Resolve ``auto``; raises `XmodelError` if cuda is asked for and absent."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise XmodelError("train.device = 'cuda': PyTorch sees no CUDA GPU here; use 'auto' or 'cpu'")
    return torch.device(name)


def set_determinism(on: bool, device: torch.device) -> None:
    """Allow only algorithms that give the same bits each time, or any. To be called before the device's first product."""
    if device.type == "cuda":  # in any case: a later run of this process may want it, and cuBLAS looks once
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(on)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def memory_in_use(device: torch.device) -> int:
    """Return the most bytes that were ever in use: of the GPU's memory by tensors, or of the process's on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def nominal_flops(device: torch.device, precision: str) -> float | None:
    """Return the data sheet's FLOP/s in a precision, which others state MFU against; None if we know none."""
    if device.type != "cuda":
        return None
    return nominal_flops_of(torch.cuda.get_device_name(device), precision)


def can_compile(device: torch.device) -> bool:
    """Tell whether torch.compile can work: it needs a compiler, which a bare machine may lack, of C++ on a CPU, of C on a GPU."""
    if device.type == "cuda":
        return can_build(device)
    names = (os.environ.get("CXX", ""), "g++", "clang++", "c++")
    return any(name and shutil.which(name) for name in names)


def keep_compiled_code_apart(device: torch.device) -> None:
    """On a CPU, give the compiler a cache folder for code of this processor's instructions and this number of threads alone.

    PyTorch keeps such code by what it computes. Taken up where vectors are wider it writes beyond its tensors, as when a folder
    is shared by machines of different kinds, and where there are more threads it leaves them idle (pytorch/pytorch#167463).
    """
    if device.type != "cpu":
        return
    from torch._inductor.runtime.cache_dir_utils import cache_dir  # with most of the compiler, which is needed now

    folder = Path(cache_dir())
    folder = folder.parent if folder.name.startswith("cpu-") else folder
    name = f"cpu-{torch.backends.cpu.get_cpu_capability()}-{torch.get_num_threads()}"
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder / name)


def matmul_rate(device: torch.device, precision: str, rows: int, model: ModelSettings, seconds: float = 0.3) -> float:
    """Measure FLOP/s of the model's widest product, [rows, hidden] x [hidden, 2 * intermediate]: best of several runs."""
    return _measured(device, precision, rows, model.hidden_size, model.intermediate_size, seconds)


def _measured(device: torch.device, precision: str, rows: int, hidden: int, intermediate: int, seconds: float) -> float:
    size = {"dtype": DTYPES[precision], "device": device}
    x = torch.randn(rows, hidden, **size)  # type: ignore[call-overload]
    w = torch.randn(hidden, 2 * intermediate, **size)  # type: ignore[call-overload]
    flops = 2 * rows * hidden * 2 * intermediate
    best, deadline = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < deadline:
        started = time.perf_counter()
        for _ in range(4):
            x @ w
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, (time.perf_counter() - started) / 4)
    return flops / best


@functools.cache
def _rate(device: torch.device, precision: str, rows: int, hidden: int, intermediate: int) -> float:
    return _measured(device, precision, rows, hidden, intermediate, seconds=0.3)


def pick_precision(name: str, device: torch.device, rows: int, model: ModelSettings) -> tuple[str, float]:
    """Return the precision (``auto`` resolved to the faster) and its FLOP/s, measured once a process for each product."""
    candidates = list(DTYPES) if name == "auto" else [name]
    sizes = (model.hidden_size, model.intermediate_size)
    rates = {precision: _rate(device, precision, rows, *sizes) for precision in candidates}
    best = max(rates, key=lambda precision: rates[precision])
    return best, rates[best]
