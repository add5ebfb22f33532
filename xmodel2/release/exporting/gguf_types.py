"""The kinds of GGUF file that are written, and the type of each tensor in them.

Norms stay f32 in all. A matrix whose rows are no multiple of a type's block stays f16. Embedding and head, one tensor or two,
are never below q8_0: in a trained, tied model of 2.8M, q8_0 there costs nothing (f16 +0.0106 nats a token over fp32 with the
rest in q4_0, q8_0 +0.0105), q5_1 0.002 more and q4_0 0.017. What K-quants hold is llama.cpp's own choice.
"""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from xmodel2.errors import XmodelError, nearest

if TYPE_CHECKING:
    from gguf import GGMLQuantizationType

PLAIN = ("f32", "f16", "bf16")
BLOCKS = ("q8_0", "q5_1", "q5_0", "q4_1", "q4_0")
"""Blocks of 32 weights with one scale (``_0``) or a scale and an offset (``_1``)."""
K_QUANTS = ("q6_k", "q5_k_m", "q4_k_m", "q3_k_m", "q2_k")
"""Blocks of 256 whose scales are quantised too; made by llama.cpp's own quantiser (package llama-cpp-python)."""
KINDS = (*PLAIN, *BLOCKS, *K_QUANTS)

TABLES = ("token_embd.weight", "output.weight")
"""Embedding and, where it is not tied, head."""
_LARGEST_ERRORS = {
    "F32": 0.0,
    "F16": 1e-3,
    "BF16": 4e-3,
    "Q8": 0.025,
    "Q6": 0.1,
    "Q5": 0.2,
    "Q4": 0.36,
    "Q3": 0.5,
    "Q2": 0.7,
}


def check_kind(kind: str) -> None:
    """Raise `XmodelError` for a kind that is not known."""
    if kind not in KINDS:
        raise XmodelError(f"gguf: {kind!r} is not one of {', '.join(KINDS)}.{nearest(kind, KINDS)}")


def file_name(model: str, kind: str) -> str:
    """Return the name of a model's file, of letters that every system allows.

    >>> file_name("../my model", "q8_0")
    'my-model-q8_0.gguf'
    """
    return f"{re.sub(r'[^A-Za-z0-9._-]+', '-', model).strip('.-') or 'model'}-{kind}.gguf"


def tensor_type(kind: str, name: str, shape: Sequence[int]) -> "GGMLQuantizationType":
    """Return the type that a file of a kind, other than the K-quants, holds a tensor in."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    if len(shape) == 1:
        return GGMLQuantizationType.F32
    if kind in BLOCKS and name in TABLES:
        kind = "q8_0"
    found = GGMLQuantizationType[kind.upper()]
    return found if shape[-1] % GGML_QUANT_SIZES[found][0] == 0 else GGMLQuantizationType.F16


def largest_error(type_name: str) -> float:
    """Return the largest error that rounding to a type can make, as a share of a tensor's norm.

    A weight is off by at most half a step, and 32 share the step of the largest: q8_0 sqrt(32) / 254, q4_0 sqrt(32) / 16.
    """
    return _LARGEST_ERRORS[type_name.split("_")[0]]
