"""Compiled code of a CPU is kept apart by what it was made for; PyTorch's own key leaves that out."""

import os
from pathlib import Path

import pytest
import torch

from xmodel2.train.device import keep_compiled_code_apart

CPU = torch.device("cpu")
VARIABLE = "TORCHINDUCTOR_CACHE_DIR"


def folder(monkeypatch: pytest.MonkeyPatch, capability: str = "AVX2", threads: int = 2) -> str:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    keep_compiled_code_apart(CPU)
    return os.environ[VARIABLE]


def test_each_kind_of_processor_and_number_of_threads_has_a_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    found = [folder(monkeypatch, *kind) for kind in (("AVX2", 2), ("AVX512", 2), ("AVX512", 1))]
    assert len(set(found)) == 3
    assert {Path(path).parent for path in found} == {tmp_path}  # none lies in another's
    assert folder(monkeypatch, "AVX2", 2) == found[0]


def test_without_a_folder_of_the_users_each_user_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "set, so that it is put back")
    monkeypatch.delenv(VARIABLE)
    assert Path(folder(monkeypatch)).is_absolute()


def test_a_gpus_code_stays_where_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    keep_compiled_code_apart(torch.device("cuda"))
    assert os.environ[VARIABLE] == str(tmp_path)
