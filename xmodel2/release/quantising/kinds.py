"""The types that a model can be quantised to, and what each needs of the model's widths."""

from dataclasses import dataclass

from xmodel2.errors import XmodelError, nearest
from xmodel2.recipe import ModelSettings
from xmodel2.release.exporting.gguf_types import KINDS as GGUF_KINDS

GGUF = "gguf-"
TORCHAO = ("int8", "int4")
KINDS = (*TORCHAO, *(GGUF + kind for kind in GGUF_KINDS))
GROUP_SIZES = (32, 64, 128)
"""Weights that share a scale in int4, as the kernels allow."""
_ROWS = 16
"""The CPU kernel of int4 takes rows in blocks of this many."""


@dataclass(frozen=True)
class Unquantised:
    """What a quantised model is compared with."""

    name: str
    dtype: str
    """As `transformers` names it, or the GGUF kind."""


NATIVE_BASES = (Unquantised("fp32", "float32"), Unquantised("bf16", "bfloat16"))
GGUF_BASE = Unquantised("gguf-f16", "f16")


def parse_kinds(text: str) -> list[str]:
    """Return the types of a comma-separated list, each once. Raises `XmodelError` for an unknown one, or none.

    >>> parse_kinds("int8, gguf-q4_0,int8")
    ['int8', 'gguf-q4_0']
    """
    kinds = list(dict.fromkeys(kind.strip() for kind in text.split(",") if kind.strip()))
    if not kinds:
        raise XmodelError(f"--types: names no type; there are {', '.join(KINDS)}")
    for kind in kinds:
        if kind not in KINDS:
            raise XmodelError(f"--types: {kind!r} is none of {', '.join(KINDS)}.{nearest(kind, KINDS)}")
    return kinds


def check_int4(settings: ModelSettings, group_size: int) -> None:
    """Raise `XmodelError` if int4 can't hold the matrices of a model in groups of ``group_size``."""
    if group_size not in GROUP_SIZES:
        raise XmodelError(f"--group-size {group_size}: int4 has groups of {', '.join(map(str, GROUP_SIZES))}")
    inner = {"hidden_size": settings.hidden_size, "intermediate_size": settings.intermediate_size}
    possible = [size for size in GROUP_SIZES if not any(width % size for width in inner.values())]
    if group_size not in possible:
        wrong = next(name for name, width in inner.items() if width % group_size)
        works = (
            f"--group-size {', '.join(map(str, possible))} works" if possible else "none of its groups does; take int8"
        )
        raise XmodelError(f"int4: {wrong} {inner[wrong]} is no multiple of the group size {group_size}; {works}")
    head_dim = settings.hidden_size // settings.num_attention_heads
    outer = inner | {"num_key_value_heads x head size": settings.num_key_value_heads * head_dim}
    for name, width in outer.items():
        if width % _ROWS:
            raise XmodelError(f"int4: {name} {width} is no multiple of {_ROWS}, as its CPU kernel needs; take int8")
