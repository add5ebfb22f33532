"""The kernels of `gpu_kernels`, in Triton, which comes with PyTorch for GPUs: all arithmetic in fp32, each number read once.

`TRITON_INTERPRET=1` runs them on a CPU, which is how they are tested without a GPU.
"""

from contextlib import nullcontext
from typing import Any

import torch
import triton
import triton.language as tl

ELEMENTS = 1024
"""Of a tile: 8 a thread, which is one access of 16 bytes in bf16."""
WARPS = 64
"""Of the norm's backward pass on each multiprocessor, in programs that each have a sum of gains' gradients of their own."""


def split_heads(
    qkv: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, factor: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return queries [B, S, K G, D] and keys [B, S, K, D], rotated, and values times ``factor``, of [B, S, K, G + 2, D]."""
    B, S, K, T, D = qkv.shape
    q, k, v = qkv.new_empty(B, S, K * (T - 2), D), qkv.new_empty(B, S, K, D), qkv.new_empty(B, S, K, D)
    _heads(qkv, q, k, v, cos, sin, factor, back=False)
    return q, k, v


def join_heads(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, factor: torch.Tensor
) -> torch.Tensor:
    """Return [B, S, K, G + 2, D] of the three, queries and keys turned back: the gradient of `split_heads`."""
    B, S, K, D = k.shape
    qkv = q.new_empty(B, S, K, q.shape[2] // K + 2, D)
    _heads(qkv, q, k, v, cos, sin, factor, back=True)
    return qkv


def _heads(qkv: torch.Tensor, *others: torch.Tensor, back: bool) -> None:
    B, S, K, T, D = qkv.shape
    grid, sizes = _tiles(B * S * K, D // 2)
    _launch(_heads_kernel, grid, qkv, *others, B * S * K, S, K, T - 2, D, back, *sizes)


def swiglu(gate_up: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Return silu(gate) * up * factor [..., F] of [..., 2, F]."""
    F = gate_up.shape[-1]
    result = gate_up.new_empty(*gate_up.shape[:-2], F)
    count = result.numel() // F
    grid, sizes = _tiles(count, F)
    _launch(_swiglu_kernel, grid, gate_up, result, factor, count, F, *sizes)
    return result


def swiglu_backward(grad: torch.Tensor, gate_up: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Return the gradient by [..., 2, F] of silu(gate) * up * factor, whose own is [..., F]."""
    result, F = torch.empty_like(gate_up), grad.shape[-1]
    count = grad.numel() // F
    grid, sizes = _tiles(count, F)
    _launch(_swiglu_backward_kernel, grid, grad, gate_up, result, factor, count, F, *sizes)
    return result


def norm_backward(
    grad: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, rms: torch.Tensor, passed: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the gradients by x [..., H] and weight [H] of x * rms * weight, where ``rms`` [..., 1] is 1 over that of x.

    ``passed`` is x's gradient from elsewhere, which is added.
    """
    H = x.shape[-1]
    count = x.numel() // H
    columns = triton.next_power_of_2(H)
    warps = max(1, min(8, columns // 256))
    programs = min(count, WARPS // warps * _multiprocessors(x.device))
    result, parts = torch.empty_like(x), weight.new_empty(programs, H, dtype=torch.float32)
    tensors = grad, x, weight, rms, passed, result, parts
    _launch(_norm_backward_kernel, (programs,), *tensors, count, H, columns, num_warps=warps)
    return result, parts.sum(0).to(weight.dtype)


def _launch(kernel: Any, grid: tuple[int, ...], first: torch.Tensor, *arguments: Any, **options: Any) -> None:
    """Launch a kernel where its first tensor is: Triton goes by the current GPU, which may be another."""
    with torch.cuda.device_of(first) if first.is_cuda else nullcontext():
        kernel[grid](first, *arguments, **options)


def _multiprocessors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 2


def _tiles(count: int, width: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the grid of tiles for ``count`` rows of ``width``, and a tile's rows and columns."""
    columns = min(triton.next_power_of_2(width), ELEMENTS)
    rows = ELEMENTS // columns
    return (triton.cdiv(count, rows), triton.cdiv(width, columns)), (rows, columns)


@triton.jit
def _heads_kernel(
    qkv, q, k, v, cos, sin, factor, count, S,
    K: tl.constexpr, G: tl.constexpr, D: tl.constexpr, back: tl.constexpr, rows: tl.constexpr, columns: tl.constexpr,
):  # fmt: skip
    """Split the fused heads, or ``back`` from their gradients; a row is a position's key/value head, a column half a pair."""
    half: tl.constexpr = D // 2
    row = tl.program_id(0).to(tl.int64) * rows + tl.arange(0, rows)[:, None]
    column = tl.arange(0, columns)[None]
    there = (row < count) & (column < half)
    angle = (row // K) % S * half + column
    c, s = tl.load(cos + angle, there), tl.load(sin + angle, there)
    if back:
        s = -s
    for head in tl.static_range(G + 2):
        fused = qkv + (row * (G + 2) + head) * D + column
        if head < G:
            single = q + (row * G + head) * D + column
        elif head == G:
            single = k + row * D + column
        else:
            single = v + row * D + column
        if back:
            source, target = single, fused
        else:
            source, target = fused, single
        first, second = tl.load(source, there), tl.load(source + half, there)
        if head <= G:
            a, b = first.to(tl.float32), second.to(tl.float32)
            first, second = (a * c - b * s).to(first.dtype), (b * c + a * s).to(first.dtype)
        else:
            first, second = (first * tl.load(factor)).to(first.dtype), (second * tl.load(factor)).to(first.dtype)
        tl.store(target, first, there)
        tl.store(target + half, second, there)


@triton.jit
def _pairs(count, F: tl.constexpr, rows: tl.constexpr, columns: tl.constexpr):
    """Return where a tile's numbers of [..., F] are, where its gates of [..., 2, F] are, and which exist."""
    row = tl.program_id(0).to(tl.int64) * rows + tl.arange(0, rows)[:, None]
    column = tl.program_id(1) * columns + tl.arange(0, columns)[None]
    return row * F + column, row * 2 * F + column, (row < count) & (column < F)


@triton.jit
def _swiglu_kernel(gate_up, result, factor, count, F: tl.constexpr, rows: tl.constexpr, columns: tl.constexpr):
    single, pair, there = _pairs(count, F, rows, columns)
    gate = tl.load(gate_up + pair, there).to(tl.float32)
    up = tl.load(gate_up + pair + F, there).to(tl.float32)
    product = gate / (1 + tl.exp(-gate)) * up * tl.load(factor)
    tl.store(result + single, product.to(result.dtype.element_ty), there)


@triton.jit
def _swiglu_backward_kernel(
    grad, gate_up, result, factor, count, F: tl.constexpr, rows: tl.constexpr, columns: tl.constexpr
):
    single, pair, there = _pairs(count, F, rows, columns)
    g = tl.load(grad + single, there).to(tl.float32) * tl.load(factor)
    gate = tl.load(gate_up + pair, there).to(tl.float32)
    up = tl.load(gate_up + pair + F, there).to(tl.float32)
    sigmoid = 1 / (1 + tl.exp(-gate))
    silu = gate * sigmoid
    by_gate, by_up = g * up * (sigmoid + silu * (1 - sigmoid)), g * silu
    tl.store(result + pair, by_gate.to(result.dtype.element_ty), there)
    tl.store(result + pair + F, by_up.to(result.dtype.element_ty), there)


@triton.jit
def _norm_backward_kernel(
    grad, x, weight, rms, passed, result, parts, count, H: tl.constexpr, columns: tl.constexpr
):  # fmt: skip
    column = tl.arange(0, columns)
    there = column < H
    w = tl.load(weight + column, there, other=0.0).to(tl.float32)
    by_weight = tl.zeros((columns,), tl.float32)
    row = tl.program_id(0)
    while row < count:
        place = row.to(tl.int64) * H + column
        g = tl.load(grad + place, there, other=0.0).to(tl.float32)
        p = tl.load(passed + place, there, other=0.0).to(tl.float32)
        scale = tl.load(rms + row)
        u = tl.load(x + place, there, other=0.0).to(tl.float32) * scale
        by_weight += g * u
        g *= w
        total = p + scale * (g - u * (tl.sum(g * u, 0) / H))
        tl.store(result + place, total.to(result.dtype.element_ty), there)
        row += tl.num_programs(0)
    tl.store(parts + tl.program_id(0) * H + column, by_weight, there)
