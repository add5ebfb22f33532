"""Names, rows and types of tensors in a GGUF file, and how far each may be from ours.

llama.cpp rotates neighbouring pairs of a head's dimensions where `transformers` (and we) rotate its halves: the rows of
queries and keys are reordered.
"""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from xmodel2.errors import XmodelError
from xmodel2.recipe import ModelSettings
from xmodel2.release.exporting.gguf_read import read_tensors
from xmodel2.release.exporting.gguf_types import largest_error


def gguf_names(settings: ModelSettings) -> Callable[[str], str]:
    """Return what gives a tensor's name in a GGUF file by its native name."""
    from gguf import MODEL_ARCH, get_tensor_name_map

    names = get_tensor_name_map(MODEL_ARCH.GRANITE, settings.num_hidden_layers)
    return lambda native: names.get_name(native, try_suffixes=(".weight",)) or native


def llama_rows(native: str, tensor: torch.Tensor, settings: ModelSettings) -> torch.Tensor:
    """Return a tensor with its rows in llama.cpp's order: of queries and keys, the halves of each head interleaved."""
    return _reordered(native, tensor, settings, (2, -1))


def native_rows(native: str, tensor: torch.Tensor, settings: ModelSettings) -> torch.Tensor:
    """Return a tensor of llama.cpp's order with its rows in the native one."""
    return _reordered(native, tensor, settings, (-1, 2))


def _reordered(native: str, tensor: torch.Tensor, settings: ModelSettings, cut: tuple[int, int]) -> torch.Tensor:
    heads = {"q_proj": settings.num_attention_heads, "k_proj": settings.num_key_value_heads}
    for part, count in heads.items():
        if native.endswith(f"{part}.weight"):
            return tensor.reshape(count, *cut, tensor.shape[-1]).transpose(1, 2).reshape(tensor.shape)
    return tensor


class StoredTensors:
    """What each tensor of a native name is in a file (an `AsWritten`); its error is checked as it is asked for."""

    def __init__(self, file: Path, settings: ModelSettings) -> None:
        from gguf import GGMLQuantizationType
        from gguf.quants import quant_shape_to_byte_shape

        self._places = {
            name: (GGMLQuantizationType(tensor.type), tensor.offset, tensor.shape)
            for name, tensor in read_tensors(file).items()
        }
        self.bytes = sum(
            math.prod(quant_shape_to_byte_shape(shape, type_)) for type_, _, shape in self._places.values()
        )
        """Of all weights, without the metadata."""
        self._file = file
        self._name, self._settings = gguf_names(settings), settings
        self.worst = 0.0
        """Largest error of those asked for, as a share of the tensor's norm."""

    def __call__(self, native: str, tensor: torch.Tensor) -> torch.Tensor:
        """Return the file's tensor in fp32. Raises `XmodelError` if it is not ``tensor`` to the rounding of its type."""
        from gguf.quants import dequantize, quant_shape_to_byte_shape

        type_, offset, _ = self._places[self._name(native)]
        in_bytes = quant_shape_to_byte_shape(tuple(tensor.shape), type_)
        stored = np.fromfile(self._file, np.uint8, math.prod(in_bytes), offset=offset).reshape(in_bytes)
        values = torch.from_numpy(dequantize(stored, type_).reshape(tensor.shape))
        found = native_rows(native, values, self._settings)
        norm = float(torch.linalg.vector_norm(tensor.float()))
        error = float(torch.linalg.vector_norm(found - tensor.float())) / (norm or 1.0)
        if not error <= largest_error(type_.name):  # NaN is not
            raise XmodelError(
                f"gguf: {native} as {type_.name} differs from the model's by {error:.2%} of its norm: its"
                " weights are too large or too small for that type, or no numbers (f32 holds all that are); nothing was"
                " published"
            )
        self.worst = max(self.worst, error)
        return found
