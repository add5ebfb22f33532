"""Safetensors files, written one tensor at a time."""

import json
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from xmodel2.errors import XmodelError
from xmodel2.release.exporting.shards import INDEX_FILE, plan_shards, write_shards

TENSORS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4), "c": torch.rand(3, 2) - 0.5}
SHAPES = {name: tuple(tensor.shape) for name, tensor in TENSORS.items()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_tensors_come_back_whatever_their_order(tmp_path: Path, dtype: torch.dtype) -> None:
    written = write_shards(tmp_path, SHAPES, reversed(TENSORS.items()), dtype, 1 << 20)
    back = load_file(tmp_path / "model.safetensors")
    assert {name: tensor.dtype for name, tensor in back.items()} == dict.fromkeys(TENSORS, dtype)
    assert all(torch.equal(back[name], tensor.to(dtype)) for name, tensor in TENSORS.items())
    assert written == sum(tensor.nbytes for tensor in back.values())
    assert not (tmp_path / INDEX_FILE).exists()


def test_several_files_have_an_index(tmp_path: Path) -> None:
    total = write_shards(tmp_path, SHAPES, TENSORS.items(), torch.float32, 30)
    index = json.loads((tmp_path / INDEX_FILE).read_text())
    assert index["metadata"] == {"total_size": total}
    assert list(index["weight_map"].values()) == [f"model-0000{number}-of-00003.safetensors" for number in (1, 2, 3)]
    for name, file in index["weight_map"].items():
        assert torch.equal(load_file(tmp_path / file)[name], TENSORS[name])


def test_a_tensor_above_the_limit_has_its_own_file() -> None:
    assert list(plan_shards({"a": (1,), "b": (100,), "c": (1,)}, 4, 8).values()) == [["a"], ["b"], ["c"]]


def test_a_tensor_that_does_not_come(tmp_path: Path) -> None:
    with pytest.raises(XmodelError, match="tensor c did not come"):
        write_shards(tmp_path, SHAPES, list(TENSORS.items())[:2], torch.float32, 1 << 20)


def test_no_room_is_said_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(100, 90, 10))
    with pytest.raises(XmodelError, match=r"needs 0\.00 GB, and 0\.00 GB are free"):
        write_shards(tmp_path, SHAPES, TENSORS.items(), torch.float32, 1 << 20)
    assert list(tmp_path.iterdir()) == []
