"""Tensors into safetensors files, one tensor in memory at a time, under Hugging Face's names.

    model.safetensors                                       all of it, if it is small enough
    model-00001-of-00003.safetensors ... + .index.json      otherwise

Shapes are known before the first tensor is, so every header is written first and each tensor then at its place.
"""

import json
import math
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import torch

from xmodel2.errors import XmodelError
from xmodel2.files import write_json_atomic

Shapes = Mapping[str, tuple[int, ...]]
NamedTensors = Iterable[tuple[str, torch.Tensor]]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
"""Types of numbers that weights are written in, by the names that config.json has for them."""
INDEX_FILE = "model.safetensors.index.json"
_CODES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}
_BLOCK = 1 << 20
"""Numbers that are converted and written at once."""


def write_shards(folder: Path, shapes: Shapes, tensors: NamedTensors, dtype: torch.dtype, limit: int) -> int:
    """Write ``tensors``, which must be those of ``shapes``, in files of at most ``limit`` bytes; return the bytes of all.

    A tensor above the limit has a file of its own. Raises `XmodelError` if the disk is too full, or for a value that is not
    finite or that ``dtype`` can't hold.
    """
    files = plan_shards(shapes, dtype.itemsize, limit)
    total = dtype.itemsize * sum(map(math.prod, shapes.values()))
    free = shutil.disk_usage(folder).free
    if total > free:
        raise XmodelError(
            f"{folder.parent}: the export needs {total / 1e9:.2f} GB, and {free / 1e9:.2f} GB are free there"
        )
    with ExitStack() as stack:
        places: dict[str, tuple[IO[bytes], int]] = {}
        handles: list[IO[bytes]] = [stack.enter_context(open(folder / name, "wb")) for name in files]
        for handle, names in zip(handles, files.values(), strict=True):
            begin, header = _header({name: shapes[name] for name in names}, dtype)
            handle.write(header)
            places |= {name: (handle, len(header) + begin[name]) for name in names}
        for name, tensor in tensors:
            handle, offset = places.pop(name)
            handle.seek(offset)
            for block in _blocks(name, tensor, dtype):
                handle.write(block)
        if places:
            raise XmodelError(
                f"{folder}: tensor {next(iter(places))} did not come; the source changed while it was read"
            )
        for handle in handles:
            handle.flush()
            os.fsync(handle.fileno())
    if len(files) > 1:
        weight_map = {name: file for file, names in files.items() for name in names}
        write_json_atomic(folder / INDEX_FILE, {"metadata": {"total_size": total}, "weight_map": weight_map})
    return total


def plan_shards(shapes: Shapes, itemsize: int, limit: int) -> dict[str, list[str]]:
    """Return the names of each file's tensors, filled in order.

    >>> plan_shards({"a": (2,), "b": (3,), "c": (1,)}, 4, 16)
    {'model-00001-of-00002.safetensors': ['a'], 'model-00002-of-00002.safetensors': ['b', 'c']}
    """
    parts: list[list[str]] = []
    room = 0
    for name, shape in shapes.items():
        size = itemsize * math.prod(shape)
        if not parts or size > room:
            parts.append([])
            room = limit
        parts[-1].append(name)
        room -= size
    if len(parts) == 1:
        return {"model.safetensors": parts[0]}
    return {f"model-{number:05d}-of-{len(parts):05d}.safetensors": names for number, names in enumerate(parts, 1)}


def _header(shapes: Shapes, dtype: torch.dtype) -> tuple[dict[str, int], bytes]:
    """Return where each tensor begins after the header, and the header."""
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    begins: dict[str, int] = {}
    end = 0
    for name, shape in shapes.items():
        begins[name], end = end, end + dtype.itemsize * math.prod(shape)
        entries[name] = {"dtype": _CODES[dtype], "shape": list(shape), "data_offsets": [begins[name], end]}
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return begins, len(text).to_bytes(8, "little") + text


def _blocks(name: str, tensor: torch.Tensor, dtype: torch.dtype) -> Iterator[memoryview]:
    for block in tensor.reshape(-1).split(_BLOCK):
        converted = block.to(dtype)
        if not converted.sum(dtype=torch.float32).isfinite() and not converted.isfinite().all():  # the sum is quick
            value = float(block[~converted.isfinite()][0])
            how = (
                f"which {str(dtype).removeprefix('torch.')} can't hold"
                if math.isfinite(value)
                else "not a finite number"
            )
            raise XmodelError(f"tensor {name}: holds {value}, {how}; nothing was published")
        yield converted.contiguous().view(torch.uint8).numpy().data
