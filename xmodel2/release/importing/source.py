"""The weights of somebody else's directory: safetensors files, all names and shapes checked first, then one tensor at a time."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from xmodel2.errors import XmodelError
from xmodel2.files import read_json

INDEX_FILE = "model.safetensors.index.json"
_READABLE = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16, "F64": torch.float64}
_LISTED = 5
"""Tensors that a message names."""
_BLOCK = 1 << 22
"""Numbers of each of two tensors that are compared at once."""


class Source:
    """Tensors of a directory by name; read in fp32."""

    def __init__(self, directory: Path) -> None:
        """Raise `XmodelError` if there are no safetensors files, or one is cut short, missing, or not what it should be."""
        self.directory = directory
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._files: dict[str, Path] = {}
        self._codes: dict[str, str] = {}
        for path in _weight_files(directory):
            with _opened(path) as file:
                names: list[str] = file.keys()
                for name in names:
                    if name in self._files:
                        raise XmodelError(
                            f"{path}: tensor {name} is in {self._files[name].name} too; remove the wrong one"
                        )
                    part = file.get_slice(name)
                    self.shapes[name], self._codes[name] = tuple(part.get_shape()), part.get_dtype()
                    self._files[name] = path

    def check(self, want: Mapping[str, tuple[int, ...]], ignored: frozenset[str]) -> None:
        """Raise `XmodelError` naming tensors that are missing, unknown, of another shape, or in numbers that are no floats."""
        missing = [name for name in want if name not in self.shapes]
        unknown = [name for name in self.shapes if name not in want and name not in ignored]
        wrong = [
            f"{name} ({self._files[name].name}) is {list(self.shapes[name])}, by config.json {list(shape)}"
            for name, shape in want.items()
            if self.shapes.get(name, shape) != shape
        ]
        coded = [f"{name} ({code})" for name, code in self._codes.items() if name in want and code not in _READABLE]
        problems = [
            _several("missing", missing),
            _several("unknown here", [f"{name} ({self._files[name].name})" for name in unknown]),
            _several("of another shape", wrong),
            _several("not in floating-point numbers of 16 bits or more; import the model that is not quantised", coded),
        ]
        if found := [problem for problem in problems if problem]:
            raise XmodelError(f"{self.directory}: its weights are not those of its config.json: {'; '.join(found)}")

    def read(self, name: str) -> torch.Tensor:
        """Return one tensor."""
        with _opened(self._files[name]) as file:
            tensor: torch.Tensor = file.get_tensor(name).float()
        return tensor

    def epsilon(self, name: str) -> float:
        """Return the relative rounding of the numbers that a tensor is stored in."""
        return torch.finfo(_READABLE[self._codes[name]]).eps

    def ratio(self, a: str, b: str) -> float | None:
        """Return c where tensor ``a`` is c times tensor ``b`` to the rounding of their numbers; None if it is no multiple."""
        product = square = 0.0
        for x, y in self._pairs(a, b):
            product += float(x.double().flatten() @ y.double().flatten())
            square += float(y.double().square().sum())
        c = product / square if square else 0.0
        epsilon = max(self.epsilon(a), self.epsilon(b))
        smallest = max(torch.finfo(_READABLE[self._codes[name]]).smallest_normal for name in (a, b))
        near = 2 * epsilon * smallest * (1 + abs(c))  # a 16-bit number near zero is rounded by more than its share
        for x, y in self._pairs(a, b):
            if not torch.all((x - c * y).abs() <= 2 * epsilon * x.abs() + near):
                return None
        return c if c > 0 else None

    def _pairs(self, a: str, b: str) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        shape = self.shapes[a]
        rows = max(1, _BLOCK // math.prod(shape[1:]))
        with _opened(self._files[a]) as one, _opened(self._files[b]) as other:
            left, right = one.get_slice(a), other.get_slice(b)
            for begin in range(0, shape[0], rows):
                yield left[begin : begin + rows].float(), right[begin : begin + rows].float()


def _weight_files(directory: Path) -> list[Path]:
    """Return the files that hold the weights, those of the index if there is one."""
    index = read_json(directory / INDEX_FILE)
    if index is not None:
        try:
            names = sorted(set(index["weight_map"].values()))
        except (KeyError, AttributeError, TypeError):
            raise XmodelError(f"{directory / INDEX_FILE}: has no weight_map; copy it again") from None
        for name in names:
            if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
                raise XmodelError(
                    f"{directory / INDEX_FILE}: names the file {name!r}, which is no *.safetensors beside it"
                )
        absent = [name for name in names if not (directory / name).is_file()]
        if absent:
            raise XmodelError(
                f"{directory}: {_several('of the files in ' + INDEX_FILE + ' missing', absent)}; copy them"
            )
        return [directory / name for name in names]
    paths = sorted(directory.glob("*.safetensors"))
    if paths:
        return paths
    pickled = sorted(directory.glob("*.bin")) + sorted(directory.glob("*.pt*"))
    if pickled:
        raise XmodelError(
            f"{directory}: its weights are pickled ({pickled[0].name}), which can run code when it is read, so it is not read"
            " here. Where you trust it, make safetensors of it first: import torch, safetensors.torch as s; s.save_file({k:"
            f" v.clone().contiguous() for k, v in torch.load('{pickled[0].name}', weights_only=True).items()}},"
            " 'model.safetensors')"
        )
    raise XmodelError(f"{directory}: has no *.safetensors; copy the model's weights there")


def _opened(path: Path) -> Any:
    try:
        return safe_open(path, "pt")
    except (SafetensorError, OSError) as error:
        with open(path, "rb") as file:
            pointer = file.read(8) == b"version "
        why = "a pointer of Git LFS, not the file itself; fetch it with `git lfs pull`" if pointer else None
        raise XmodelError(f"{path}: is {why or f'not a whole safetensors file ({error}); copy it again'}") from None


def _several(what: str, names: list[str]) -> str:
    """Return a count, what it is of, and the first names; nothing of none."""
    if not names:
        return ""
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"{len(names)} {what}: {', '.join(names[:_LISTED])}{more}"
