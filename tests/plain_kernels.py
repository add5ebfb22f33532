"""What `xmodel2.model.gpu_kernels` computes, by PyTorch's operations: to compare with, and for a decoder on a CPU."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

import torch
import torch.nn.functional as F

from xmodel2.model import gpu_kernels
from xmodel2.model.decoder import rotate

NAMES = ("split_heads", "join_heads", "swiglu", "swiglu_backward", "norm_backward")


INTERPRETED = bool(find_spec("triton")) and os.environ.get("TRITON_INTERPRET") == "1"
"""Whether Triton's kernels run on a CPU."""


@contextmanager
def kernels_everywhere() -> Iterator[None]:
    """Let decoders use the operators on any device; on a CPU they are Triton's, interpreted, or the functions below."""
    functions = sys.modules[__name__]
    if INTERPRETED:
        from xmodel2.model import triton_kernels as functions  # type: ignore[no-redef]
    before, gpu_kernels.can_use = gpu_kernels.can_use, lambda device: True
    try:
        with torch.library._scoped_library("xmodel2", "FRAGMENT") as library:
            for name in NAMES:
                library.impl(name, getattr(functions, name), "CPU")
            yield
    finally:
        gpu_kernels.can_use = before


def split_heads(
    qkv_BSKTD: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, factor: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    qkv_BKTSD, angles = qkv_BSKTD.permute(0, 2, 3, 1, 4), (cos[None, None], sin[None, None])
    q, k = rotate(qkv_BKTSD[:, :, :-2].flatten(1, 2), angles), rotate(qkv_BKTSD[:, :, -2], angles)
    return tuple(x.transpose(1, 2).contiguous() for x in (q, k, qkv_BKTSD[:, :, -1] * factor))


def join_heads(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, factor: torch.Tensor
) -> torch.Tensor:
    # Turned back: by the opposite angle.
    q, k = (rotate(x.transpose(1, 2), (cos[None, None], -sin[None, None])).transpose(1, 2) for x in (q, k))
    return torch.cat((q.unflatten(2, (k.shape[2], -1)), k[:, :, :, None], v[:, :, :, None] * factor), dim=3)


def swiglu(gate_up: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    gate, up = gate_up.unbind(-2)
    return F.silu(gate) * up * factor


def swiglu_backward(grad: torch.Tensor, gate_up: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    grad = grad * factor
    gate, up = gate_up.unbind(-2)
    by_gate = torch.ops.aten.silu_backward(grad * up, gate)
    return torch.stack((by_gate, grad * F.silu(gate)), dim=-2)


def norm_backward(
    grad: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, rms: torch.Tensor, passed: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    unit = x.float() * rms
    inner = (grad * weight * unit).mean(-1, keepdim=True)
    by_x = passed + rms * (grad * weight - unit * inner)
    return by_x.to(x.dtype), (grad * unit).flatten(0, -2).sum(0)
