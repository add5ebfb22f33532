"""What a step gave back is there for the next one, without a page fault for every 4 KiB of it."""

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from xmodel2.train.allocator import keep_freed_memory

CODE = """
import resource, sys
import torch
from xmodel2.train.allocator import keep_freed_memory
print(keep_freed_memory(torch.device("cpu")) if "keep" in sys.argv else None)
def steps(count):
    for _ in range(count):
        parts = [torch.ones(10_000_000) for _ in range(3)]  # 40 MB each
        del parts
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
first = steps(2)
print(steps(3) - first)
"""
HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
pytestmark = [
    pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="not glibc"),
    pytest.mark.skipif(not HUGE_PAGES.exists() or "[never]" in HUGE_PAGES.read_text(), reason="no huge pages"),
]


def faults(*arguments: str, **environment: str) -> tuple[str, int]:
    """Return what was said, and page faults of three steps that follow others."""
    done = subprocess.run(
        [sys.executable, "-c", CODE, *arguments],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": ":".join(sys.path), "OMP_NUM_THREADS": "1", **environment},
    )
    said, count = done.stdout.split()
    return said, int(count)


def test_freed_memory_is_taken_again_without_faults() -> None:
    usual, kept = faults(), faults("keep")
    assert kept[0] == "True"
    assert kept[1] < 100 < 1000 < usual[1]


@pytest.mark.parametrize("variable", [("MALLOC_MMAP_THRESHOLD_", "65536"), ("THP_MEM_ALLOC_ENABLE", "0")])
def test_settings_of_the_environment_are_left_alone(variable: tuple[str, str]) -> None:
    said, count = faults("keep", **dict([variable]))
    assert said == "False"
    assert count > 100


def test_small_pages_are_not_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("xmodel2.train.allocator._HUGE_PAGES", tmp_path / "enabled")
    for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_TOP_PAD_"):
        monkeypatch.delenv(name, raising=False)
    assert not keep_freed_memory(torch.device("cpu"))
    (tmp_path / "enabled").write_text("always madvise [never]\n")
    assert not keep_freed_memory(torch.device("cpu"))
