"""On a CPU: tensors lie in huge pages, and memory that they gave back stays with the process, since the next step wants it again.

As started, glibc hands large blocks back to the system at once, and each step takes a page fault for every 4 KiB of its
activations; in a virtual machine a fault, and a miss of the table of pages, cost most. docs/log.md has what it is worth.
"""

import ctypes
import mmap
import os
from pathlib import Path

import torch

_HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_HUGE = 2 << 20
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of malloc.h
_OWN = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_TOP_PAD_")


def keep_freed_memory(device: torch.device) -> bool:
    """On a CPU, have glibc keep what is freed, for tensors in huge pages; returns whether it does.

    It is not where Linux or PyTorch gives no huge pages (small ones, kept, lie scattered: slower than fresh ones), where another C
    library is used, or where the environment has settings of its own.
    """
    if device.type != "cpu":
        return False
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # PyTorch looks once, at its first tensor; the CLI sets it, too
    if any(name in os.environ for name in _OWN) or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return False
    if not _HUGE_PAGES.exists() or "[never]" in _HUGE_PAGES.read_text():
        return False
    probes = [torch.empty(_HUGE + 192 * number, dtype=torch.uint8) for number in range(4)]
    if any(probe.data_ptr() % mmap.PAGESIZE for probe in probes):  # asking for huge pages, PyTorch aligns all so
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # macOS and Windows have none
        return False
    return bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, -1))
