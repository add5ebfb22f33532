"""Tensors in safetensors files, whole or cut over ranks, in the form of PyTorch's distributed checkpoints (DCP).

    model.safetensors                    one rank: every tensor whole
    model-00002-of-00004.safetensors     several: a rank's pieces; DCP_SHARDING_INFO in the header says where each begins

`torch.distributed.checkpoint.HuggingFaceStorageReader` reads both. Its writer builds a file whole in memory, and holds the
interpreter lock meanwhile, so that training stands still (benchmarks/checkpoint.py); this one goes through the tensors once, in
blocks, hashing them on the way.
"""

import hashlib
import itertools
import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch.distributed.tensor import DTensor

from xmodel2.errors import XmodelError

_SHARDING, _OFFSETS = "DCP_SHARDING_INFO", "saved_offsets"
_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_BLOCK = 4 << 20
"""Bytes that are hashed and written at once."""


@dataclass(frozen=True)
class Piece:
    """The part of a tensor that this rank holds."""

    name: str
    tensor: torch.Tensor
    offset: tuple[int, ...]
    """Where its first element stands in the whole tensor."""


def piece_of(name: str, tensor: torch.Tensor) -> Piece:
    """Return this rank's part, sharing memory: of a `DTensor` its shard, of a plain tensor all of it."""
    if isinstance(tensor, DTensor):
        (chunk,) = tensor.__create_chunk_list__()
        return Piece(name, tensor.to_local().detach(), tuple(chunk.offsets))
    return Piece(name, tensor.detach(), (0,) * tensor.dim())


def file_name(kind: str, rank: int, ranks: int) -> str:
    """Return the name of a rank's file.

    >>> file_name("model", 1, 4)
    'model-00002-of-00004.safetensors'
    """
    return f"{kind}.safetensors" if ranks == 1 else f"{kind}-{rank + 1:05d}-of-{ranks:05d}.safetensors"


def write_tensors(path: Path, pieces: Sequence[Piece]) -> dict[str, Any]:
    """Write and sync a safetensors file and return its record (bytes, sha256) for a manifest."""
    pieces = sorted(pieces, key=lambda piece: (-piece.tensor.element_size(), piece.name))  # keeps every tensor aligned
    offsets = {piece.name: {_OFFSETS: list(piece.offset)} for piece in pieces}
    header: dict[str, Any] = {
        "__metadata__": {"format": "pt", "DCP_VERSION": "1.0", _SHARDING: json.dumps(offsets)},
    }
    end = 0
    for piece in pieces:
        begin, end = end, end + piece.tensor.nbytes
        dtype, shape = _DTYPES[piece.tensor.dtype], list(piece.tensor.shape)
        header[piece.name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    digest = hashlib.sha256()
    first = len(text).to_bytes(8, "little") + text
    blocks: Iterable[bytes | memoryview] = itertools.chain([first], *map(_blocks, pieces))
    with open(path, "wb") as handle:
        for block in blocks:
            handle.write(block)
            digest.update(block)
        handle.flush()
        os.fsync(handle.fileno())
    return {"bytes": len(first) + end, "sha256": digest.hexdigest()}


def _blocks(piece: Piece) -> Iterator[memoryview]:
    content = piece.tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
    for begin in range(0, len(content), _BLOCK):
        yield content[begin : begin + _BLOCK]


class TensorFiles:
    """The tensors of one kind ("model", "optimizer") in a checkpoint folder, read by slices, however many ranks wrote them."""

    def __init__(self, folder: Path, kind: str, required: bool = True) -> None:
        """Raise `XmodelError` if there are no files of that kind and they are ``required``, or one of them is damaged or lacks."""
        self.folder, self.kind = folder, kind
        self._pieces: dict[str, list[tuple[Any, tuple[int, ...], tuple[int, ...]]]] = {}
        paths = [*folder.glob(f"{kind}.safetensors"), *sorted(folder.glob(f"{kind}-*-of-*.safetensors"))]
        if required and not paths:
            raise XmodelError(f"{folder}: no {kind}.safetensors, nor {kind}-*-of-*.safetensors")
        for path in paths:
            try:
                file = safe_open(path, "pt")
            except (SafetensorError, OSError) as error:
                raise XmodelError(f"{path}: cannot be read ({error}); the checkpoint is damaged") from None
            offsets = json.loads((file.metadata() or {}).get(_SHARDING, "{}"))
            names: list[str] = file.keys()
            for name in names:
                shape = tuple(file.get_slice(name).get_shape())
                offset = tuple(offsets[name][_OFFSETS]) if name in offsets else (0,) * len(shape)
                self._pieces.setdefault(name, []).append((file, offset, shape))
        self.shapes = {name: self._shape(name) for name in self._pieces}
        """Shape of every tensor, whole."""

    def _shape(self, name: str) -> tuple[int, ...]:
        pieces = self._pieces[name]
        ends = ([begin + size for begin, size in zip(offset, shape, strict=True)] for _, offset, shape in pieces)
        whole = tuple(map(max, *ends)) if len(pieces) > 1 else tuple(next(ends))
        if sum(math.prod(shape) for _, _, shape in pieces) != math.prod(whole):
            raise XmodelError(f"{self.folder}: pieces of {name} are missing; the checkpoint is damaged")
        return whole

    def dtype(self, name: str) -> torch.dtype:
        """Return the type that a tensor was saved in."""
        code = self._pieces[name][0][0].get_slice(name).get_dtype()
        return next(dtype for dtype, known in _DTYPES.items() if known == code)

    @torch.no_grad()
    def read_into(self, name: str, target: torch.Tensor) -> None:
        """Fill this rank's part of ``target``, a plain tensor or a `DTensor` of any layout and the same whole shape."""
        want = piece_of(name, target)
        for file, offset, shape in self._pieces[name]:
            both = [
                (max(a, b), min(a + n, b + m))
                for a, n, b, m in zip(want.offset, want.tensor.shape, offset, shape, strict=True)
            ]
            if all(low < high for low, high in both):
                here = tuple(slice(low - a, high - a) for (low, high), a in zip(both, want.offset, strict=True))
                there = tuple(slice(low - b, high - b) for (low, high), b in zip(both, offset, strict=True))
                want.tensor[here].copy_(file.get_slice(name)[there])
