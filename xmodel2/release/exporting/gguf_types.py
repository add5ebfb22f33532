"""The kinds of GGUF file that are written, and the type of each tensor in them.

Norms stay f32 in all. A matrix whose rows are no multiple of a type's block stays f16, and the tied embedding, which is the
head too, is never below q8_0.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from xmodel2.errors import XmodelError, nearest

if TYPE_CHECKING:
    from gguf import GGMLQuantizationType

PLAIN = ("f32", "f16", "bf16")
BLOCKS = ("q8_0", "q5_1", "q5_0", "q4_1", "q4_0")
"""Blocks of 32 weights with one scale (``_0``) or a scale and an offset (``_1``)."""
KINDS = (*PLAIN, *BLOCKS)

EMBEDDING = "token_embd.weight"


def check_kind(kind: str) -> None:
    """Raise `XmodelError` for a kind that is not known."""
    if kind not in KINDS:
        raise XmodelError(f"gguf: {kind!r} is not one of {', '.join(KINDS)}.{nearest(kind, KINDS)}")


def tensor_type(kind: str, name: str, shape: Sequence[int]) -> "GGMLQuantizationType":
    """Return the type that a file of a kind holds a tensor in."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    if len(shape) == 1:
        return GGMLQuantizationType.F32
    if kind in BLOCKS and name == EMBEDDING:
        kind = "q8_0"
    found = GGMLQuantizationType[kind.upper()]
    return found if shape[-1] % GGML_QUANT_SIZES[found][0] == 0 else GGMLQuantizationType.F16
