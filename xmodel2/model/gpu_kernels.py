"""What torch.compile makes slow on a GPU, by kernels of our own: between products, memory is passed over once.

    split_heads    one product's output -> queries and keys, rotated, and values, each as the attention kernels read them; and back
    swiglu         of the fused product, and its gradient, both halves at once
    norm           its backward pass, which adds the gradient that goes past it, and makes that of the gains as it reads on

The compiler joins halves by masked loads of single numbers, and leaves a copy on either side of attention; on an H200 these took
about twice what memory needs (docs/training.md).

Letters: B rows, S positions, K key/value heads, G query heads a key/value head, D head width, F part of a feed-forward group.
"""

import functools
import warnings
from importlib.util import find_spec
from typing import Any

import torch

VOLTA, AMPERE = (7, 0), (8, 0)
"""CUDA compute capability from which Triton makes kernels, and from which it has bf16."""

Three = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def can_use(device: torch.device) -> bool:
    """Tell whether a device runs these kernels."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= AMPERE and can_build(device)


def can_build(device: torch.device) -> bool:
    """Tell whether Triton, and so torch.compile, makes kernels for a GPU, by running one: it needs a C compiler and Python.h."""
    index = torch.cuda.current_device() if device.index is None else device.index
    return _builds(torch.device("cuda", index))


@functools.cache
def _builds(device: torch.device) -> bool:
    if not find_spec("triton") or torch.cuda.get_device_capability(device) < VOLTA:
        return False
    try:
        swiglu(torch.ones(1, 2, 8, device=device), torch.ones((), device=device))
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        warnings.warn(
            f"Triton cannot build kernels for this GPU, so it works without torch.compile, slower: {reason}",
            stacklevel=2,
        )
        return False
    return True


def normed(x: torch.Tensor, weight: torch.Tensor, eps: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return x / rms(x) * weight [..., H], computed in fp32, and 1 / rms(x) [..., 1] in fp32."""
    wide = x.float()
    rms = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
    return (weight * (wide * rms)).to(x.dtype), rms


def split_heads(qkv_BSKTD: torch.Tensor, cos_SD: torch.Tensor, sin_SD: torch.Tensor, factor: torch.Tensor) -> Three:
    """Return rotated queries [B, S, K G, D] and keys [B, S, K, D], and values times an fp32 scalar, of [B, S, K, G + 2, D].

    The angles' cosines and sines are [S, D / 2].
    """
    heads: Three = torch.ops.xmodel2.split_heads(
        qkv_BSKTD.contiguous(), cos_SD.contiguous(), sin_SD.contiguous(), factor
    )
    return heads


def swiglu(gate_up: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Return silu(gate) * up * factor [..., F] of [..., 2, F]; ``factor`` is an fp32 scalar."""
    result: torch.Tensor = torch.ops.xmodel2.swiglu(gate_up.contiguous(), factor)
    return result


def norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return x [..., H], to go on with past the norm, and x / rms(x) * weight."""
    both: tuple[torch.Tensor, torch.Tensor] = _Norm.apply(x, weight, eps)
    return both


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, eps: float) -> tuple[torch.Tensor, torch.Tensor]:
        result, rms = normed(x, weight, eps)
        ctx.save_for_backward(x, weight, rms)
        return x, result

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (passed, grad), (x, weight, rms) = (grad.contiguous() for grad in grads), ctx.saved_tensors
        by_x, by_weight = torch.ops.xmodel2.norm_backward(grad, x.contiguous(), weight, rms, passed)
        return by_x, by_weight, None


@torch.library.custom_op("xmodel2::norm_backward", mutates_args=(), device_types="cuda")
def _norm_backward(
    grad: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, rms: torch.Tensor, passed: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    from xmodel2.model import triton_kernels

    return triton_kernels.norm_backward(grad, x, weight, rms, passed)


@_norm_backward.register_fake
def _(
    grad: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, rms: torch.Tensor, passed: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.empty_like(x), torch.empty_like(weight)


@torch.library.custom_op("xmodel2::split_heads", mutates_args=(), device_types="cuda")
def _split_heads(qkv: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, factor: torch.Tensor) -> Three:
    from xmodel2.model import triton_kernels  # Triton takes long to import, and is not everywhere

    return triton_kernels.split_heads(qkv, cos, sin, factor)


@_split_heads.register_fake
def _(qkv: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, factor: torch.Tensor) -> Three:
    B, S, K, T, D = qkv.shape
    return qkv.new_empty(B, S, K * (T - 2), D), qkv.new_empty(B, S, K, D), qkv.new_empty(B, S, K, D)


@torch.library.custom_op("xmodel2::join_heads", mutates_args=(), device_types="cuda")
def _join_heads(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, factor: torch.Tensor
) -> torch.Tensor:
    from xmodel2.model import triton_kernels

    return triton_kernels.join_heads(q, k, v, cos, sin, factor)


@_join_heads.register_fake
def _(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, factor: torch.Tensor
) -> torch.Tensor:
    B, S, N, D = q.shape
    return q.new_empty(B, S, k.shape[2], N // k.shape[2] + 2, D)


def _keep_others(ctx: Any, inputs: tuple[torch.Tensor, ...], output: Three) -> None:
    ctx.save_for_backward(*inputs[1:])


def _split_gradient(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    q, k, v = (grad.contiguous() for grad in grads)
    return torch.ops.xmodel2.join_heads(q, k, v, *ctx.saved_tensors), None, None, None


_split_heads.register_autograd(_split_gradient, setup_context=_keep_others)


@torch.library.custom_op("xmodel2::swiglu", mutates_args=(), device_types="cuda")
def _swiglu(gate_up: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    from xmodel2.model import triton_kernels

    return triton_kernels.swiglu(gate_up, factor)


@_swiglu.register_fake
def _(gate_up: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    return gate_up.new_empty(*gate_up.shape[:-2], gate_up.shape[-1])


@torch.library.custom_op("xmodel2::swiglu_backward", mutates_args=(), device_types="cuda")
def _swiglu_backward(grad: torch.Tensor, gate_up: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    from xmodel2.model import triton_kernels

    return triton_kernels.swiglu_backward(grad, gate_up, factor)


@_swiglu_backward.register_fake
def _(grad: torch.Tensor, gate_up: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(gate_up)


def _keep_all(ctx: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _swiglu_gradient(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    return torch.ops.xmodel2.swiglu_backward(grad.contiguous(), *ctx.saved_tensors), None


_swiglu.register_autograd(_swiglu_gradient, setup_context=_keep_all)
