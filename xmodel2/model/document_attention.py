"""Attention within packed documents by flash kernels, which see each document alone; one operator a device for the compiler.

    CPU     one call a document: a row costs what its documents cost (`cpu_attention`)
    GPU     one call for all, of variable lengths, in 16 bits: on an H200 1.7 times as fast as FlexAttention (benchmarks/)

Letters: B rows, S positions, N query heads, K key/value heads, D head width, P = B S positions of all rows, one after another.
"""

import functools
from dataclasses import dataclass

import torch

from xmodel2.model.cpu_attention import attend_on_cpu, begins


@dataclass(frozen=True)
class Documents:
    """Where the documents of rows begin and end."""

    bounds: torch.Tensor
    """On a CPU ids [B, S], or [1, 0] for rows of one document each. On a GPU int32 [P + 1]: the place where each document
    begins, then P, as often as there is room, so that all batches have the same shape for the compiler."""
    sizes: torch.Tensor
    """How many documents there are, and positions in the longest: int64 [2], on the CPU, where reading it waits for nothing."""

    @classmethod
    def of(cls, document_ids_BS: torch.Tensor, device: torch.device) -> "Documents":
        """Find them from ids on any device, for rows on ``device``."""
        ids_BS = document_ids_BS.cpu()
        if device.type == "cpu":
            return cls(ids_BS, torch.zeros(2, dtype=torch.int64))
        bounds, sizes = padded_bounds(ids_BS)
        return cls(bounds.pin_memory().to(device, non_blocking=True), sizes)

    @classmethod
    def whole(cls) -> "Documents":
        """Return rows of one document each, on a CPU."""
        return cls(torch.zeros(1, 0, dtype=torch.int32), torch.zeros(2, dtype=torch.int64))


def can_attend_within(device: torch.device, dtype: torch.dtype, head_dim: int) -> bool:
    """Tell whether there are such kernels for a device, precision and width of a head.

    >>> can_attend_within(torch.device("cuda"), torch.bfloat16, head_dim=20)
    False
    """
    if device.type != "cuda":
        return True
    fits = dtype in (torch.float16, torch.bfloat16) and head_dim % 8 == 0 and head_dim <= 256
    return fits and torch.backends.cuda.is_flash_attention_available() and _has_flash(device)


def attend_within(
    q_BNSD: torch.Tensor, k_BKSD: torch.Tensor, v_BKSD: torch.Tensor, documents: Documents, scale: float
) -> torch.Tensor:
    """Return softmax(q k^T * scale) v [B, N, S, D], causal, of each document alone."""
    if not q_BNSD.is_cuda:
        return attend_on_cpu(q_BNSD, k_BKSD, v_BKSD, documents.bounds, scale)
    q_PND, k_PKD, v_PKD = (x.transpose(1, 2).flatten(0, 1) for x in (q_BNSD, k_BKSD, v_BKSD))
    out_PND, _ = torch.ops.xmodel2.varlen_attention(q_PND, k_PKD, v_PKD, documents.bounds, documents.sizes, scale)
    return out_PND.unflatten(0, (len(q_BNSD), -1)).transpose(1, 2)


@functools.cache
def _has_flash(device: torch.device) -> bool:
    return torch.cuda.get_device_capability(device) >= (8, 0)


def padded_bounds(document_ids_BS: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a GPU's ``bounds`` and ``sizes`` of `Documents`, both still on the CPU.

    >>> padded_bounds(torch.tensor([[0, 0, 1], [1, 1, 1]]))
    (tensor([0, 2, 3, 6, 6, 6, 6], dtype=torch.int32), tensor([3, 3]))
    """
    places, positions = torch.tensor(begins(document_ids_BS)), document_ids_BS.numel()
    bounds = torch.full((positions + 1,), positions, dtype=torch.int32)
    bounds[: len(places)] = places
    return bounds, torch.tensor([len(places), int(bounds.diff().max())])


@torch.library.custom_op("xmodel2::varlen_attention", mutates_args=(), device_types="cuda")
def _varlen_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, bounds: torch.Tensor, sizes: torch.Tensor, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Causal attention within documents; returns out like q [P, N, D] and log-sum-exp [N, P]."""
    count, longest = sizes.tolist()
    bounds = bounds[: count + 1]
    out, logsumexp = torch.ops.aten._flash_attention_forward(
        q, k, v, bounds, bounds, longest, longest, 0.0, True, False, scale=scale
    )[:2]
    return out.contiguous(), logsumexp


@_varlen_attention.register_fake
def _(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, bounds: torch.Tensor, sizes: torch.Tensor, scale: float):  # type: ignore[no-untyped-def]
    P, N, _ = q.shape
    return q.new_empty(q.shape), q.new_empty(N, P, dtype=torch.float32)


@torch.library.custom_op("xmodel2::varlen_attention_backward", mutates_args=(), device_types="cuda")
def _varlen_attention_backward(
    grad: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    out: torch.Tensor,
    logsumexp: torch.Tensor,
    bounds: torch.Tensor,
    sizes: torch.Tensor,
    scale: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    count, longest = sizes.tolist()
    bounds = bounds[: count + 1]
    drawn = torch.empty(2, dtype=torch.uint64, device=q.device)  # of a dropout that there is not
    grads = torch.ops.aten._flash_attention_backward(
        grad, q, k, v, out, logsumexp, bounds, bounds, longest, longest, 0.0, True, drawn, drawn, scale=scale
    )
    return grads[0].contiguous(), grads[1].contiguous(), grads[2].contiguous()


@_varlen_attention_backward.register_fake
def _(grad, q, k, v, out, logsumexp, bounds, sizes, scale):  # type: ignore[no-untyped-def]
    return tuple(x.new_empty(x.shape) for x in (q, k, v))


def _keep_varlen(ctx, inputs, output):  # type: ignore[no-untyped-def]
    q, k, v, bounds, sizes, ctx.scale = inputs
    ctx.save_for_backward(q, k, v, *output, bounds, sizes)


def _varlen_backward(ctx, grad, _):  # type: ignore[no-untyped-def]
    q, k, v, out, logsumexp, bounds, sizes = ctx.saved_tensors
    grads = torch.ops.xmodel2.varlen_attention_backward(
        grad.contiguous(), q, k, v, out, logsumexp, bounds, sizes, ctx.scale
    )
    return *grads, None, None, None


_varlen_attention.register_autograd(_varlen_backward, setup_context=_keep_varlen)
