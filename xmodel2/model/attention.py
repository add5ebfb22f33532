"""Attention: softmax(q k^T * scale) v by the kernel that suits device and rows; for training no mask [S, T] is ever held.

    rows of a batch                         mask                     kernel
    one document a row                      None                     `sdpa`: cuDNN or flash on a GPU, flash on a CPU
    packed documents, CPU                   document ids [B, S]      `documents`: flash, one document at a time
    packed documents, GPU                   BlockMask                `flex`: blocks of 128 that no document crosses are left out
    some of the positions (context          Places                   `plain`: products and a softmax, the reference that the
    parallel on a CPU)                                               others are tested against
    continuation of a cache (generation)    bool [B, S, T]           `sdpa`

Letters: B rows, S positions of the queries, T of the keys, N query heads, K key/value heads, D head width.
"""

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from xmodel2.model.mask import Places, block_mask

Gather = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""Keys and values [B, K, S, D] of this rank's positions to those of all positions [B, K, T, D]."""
BACKENDS = [SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
"""In the order in which a Hopper GPU runs heads of 64 fastest (PyTorch passes over those that cannot run)."""


Mask = torch.Tensor | Places | BlockMask | None


def mask_for(kernel: str, places: Places, whole: bool) -> Mask:
    """Return what `attend` takes for ``kernel``, or for what ``auto`` picks; ``whole``: queries are all positions, in order."""
    documents = places.query_document_BS
    if kernel == "auto":
        if documents is None and whole:
            kernel = "sdpa"
        elif places.query_S.is_cuda:
            kernel = "flex"
        else:
            kernel = "documents" if whole else "plain"
    if kernel == "flex":
        return block_mask(places)
    if kernel == "plain" or not whole:
        return places
    return documents.cpu() if documents is not None else None


def attend(q_BNSD: torch.Tensor, k_BKTD: torch.Tensor, v_BKTD: torch.Tensor, mask: Mask, scale: float) -> torch.Tensor:
    """Return softmax(q k^T * scale) v [B, N, S, D]; each key/value head serves N / K query heads; without a mask, causal."""
    shared = q_BNSD.shape[1] != k_BKTD.shape[1]
    if isinstance(mask, Places):
        return _plain(q_BNSD, k_BKTD, v_BKTD, mask.visible(), scale)
    if isinstance(mask, BlockMask):
        # Outside of a compiled block, by itself: as written it would hold all scores.
        written = torch.compiler.is_compiling() or not q_BNSD.is_cuda
        flex: Callable[..., torch.Tensor] = flex_attention if written else _compiled_flex()  # type: ignore[assignment]
        return flex(q_BNSD, k_BKTD, v_BKTD, block_mask=mask, scale=scale, enable_gqa=shared)
    if mask is not None and mask.dtype != torch.bool:
        out_BNSD: torch.Tensor = torch.ops.xmodel2.document_attention(q_BNSD, k_BKTD, v_BKTD, mask, scale)[0]
        return out_BNSD
    causal = mask is None
    allowed = None if mask is None else mask[:, None]
    arguments = (q_BNSD, k_BKTD, v_BKTD, allowed, 0.0, causal)
    if not q_BNSD.is_cuda:
        return F.scaled_dot_product_attention(*arguments, scale=scale, enable_gqa=shared)
    with sdpa_kernel(BACKENDS, set_priority=True):
        return F.scaled_dot_product_attention(*arguments, scale=scale, enable_gqa=shared)


@functools.cache
def _compiled_flex() -> Callable[..., torch.Tensor]:
    return torch.compile(flex_attention)


def _plain(
    q_BNSD: torch.Tensor, k_BKTD: torch.Tensor, v_BKTD: torch.Tensor, seen_BST: torch.Tensor, scale: float
) -> torch.Tensor:
    B, N, S, D = q_BNSD.shape
    K, T = k_BKTD.shape[1:3]
    score_BKGST = (q_BNSD.reshape(B, K, -1, D) @ k_BKTD.transpose(2, 3)).view(B, K, N // K, S, T)
    score_BKGST = (score_BKGST.float() * scale).masked_fill(~seen_BST[:, None, None], float("-inf"))
    weight_BKGST = torch.softmax(score_BKGST, dim=-1).to(v_BKTD.dtype)
    return (weight_BKGST.view(B, K, -1, T) @ v_BKTD).view(B, N, S, D)


Segment = tuple[slice, slice]


def _segments(document_ids_BS: torch.Tensor) -> list[Segment]:
    """Return the documents of all rows as (row, positions), so that short ones cost what they are and not what the row is."""
    B, S = document_ids_BS.shape
    starts = torch.ones(B, S, dtype=torch.bool)
    starts[:, 1:] = document_ids_BS[:, 1:] != document_ids_BS[:, :-1]
    begins = starts.view(-1).nonzero()[:, 0].tolist()
    found = []
    for begin, end in zip(begins, [*begins[1:], B * S], strict=True):
        row, first = divmod(begin, S)
        found.append((slice(row, row + 1), slice(first, first + end - begin)))
    return found


def _cut(x: torch.Tensor, segment: Segment, heads: int) -> torch.Tensor:
    """Return one document of x [B, K, T, D] as [1, heads, length, D], each head seen by all queries that share it."""
    part = x[segment[0], :, segment[1]]
    shared = heads // part.shape[1]
    return part if shared == 1 else part[:, :, None].expand(-1, -1, shared, -1, -1).flatten(1, 2)


@torch.library.custom_op("xmodel2::document_attention", mutates_args=(), device_types="cpu")
def _document_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, document_ids: torch.Tensor, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Causal attention within documents; returns out like q [B, N, S, D] and log-sum-exp [B, S, N]."""
    B, N, S, D = q.shape
    out = q.new_empty(B, S, N, D).transpose(1, 2)
    logsumexp = q.new_empty(B, S, N, dtype=torch.float32)
    for segment in _segments(document_ids):
        parts = q[segment[0], :, segment[1]], _cut(k, segment, N), _cut(v, segment, N)
        out[segment[0], :, segment[1]], lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            *parts, 0.0, True, scale=scale
        )
        logsumexp[segment[0], segment[1]] = lse.transpose(1, 2)
    return out, logsumexp


@_document_attention.register_fake
def _(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, document_ids: torch.Tensor, scale: float):  # type: ignore[no-untyped-def]
    B, N, S, D = q.shape
    return q.new_empty(B, S, N, D).transpose(1, 2), q.new_empty(B, S, N, dtype=torch.float32)


@torch.library.custom_op("xmodel2::document_attention_backward", mutates_args=(), device_types="cpu")
def _document_attention_backward(
    grad: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    out: torch.Tensor,
    logsumexp: torch.Tensor,
    document_ids: torch.Tensor,
    scale: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    B, N, S, D = q.shape
    K = k.shape[1]
    grads = [x.new_empty(B, S, x.shape[1], D).transpose(1, 2) for x in (q, k, v)]
    for segment in _segments(document_ids):
        parts = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
            grad[segment[0], :, segment[1]],
            q[segment[0], :, segment[1]],
            _cut(k, segment, N),
            _cut(v, segment, N),
            out[segment[0], :, segment[1]],
            logsumexp[segment[0], segment[1]].transpose(1, 2),
            0.0,
            True,
            scale=scale,
        )
        for whole, part in zip(grads, parts, strict=True):
            heads = whole.shape[1]
            whole[segment[0], :, segment[1]] = part if heads == N else part.unflatten(1, (K, -1)).sum(2)
    return grads[0], grads[1], grads[2]


@_document_attention_backward.register_fake
def _(grad, q, k, v, out, logsumexp, document_ids, scale):  # type: ignore[no-untyped-def]
    B, _, S, D = q.shape
    grads = [x.new_empty(B, S, x.shape[1], D).transpose(1, 2) for x in (q, k, v)]
    return grads[0], grads[1], grads[2]


def _keep(ctx, inputs, output):  # type: ignore[no-untyped-def]
    q, k, v, document_ids, ctx.scale = inputs
    ctx.save_for_backward(q, k, v, *output, document_ids)


def _backward(ctx, grad, _):  # type: ignore[no-untyped-def]
    q, k, v, out, logsumexp, document_ids = ctx.saved_tensors
    grads = torch.ops.xmodel2.document_attention_backward(grad, q, k, v, out, logsumexp, document_ids, ctx.scale)
    return *grads, None, None


_document_attention.register_autograd(_backward, setup_context=_keep)
