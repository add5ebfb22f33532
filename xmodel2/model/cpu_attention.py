"""Causal attention of rows or packed documents on a CPU, one operator for the compiler: flash forward, blocks of products back.

PyTorch's flash kernel is fast forward; its backward leaves a CPU's matrix units idle in bf16, and costs short documents the
most. By blocks of queries, the heads that share keys stacked into one product, only a block's scores are ever held
(docs/log.md has the times).

Letters: B rows, S positions, N query heads, K key/value heads, G = N / K, D head width, X = B K, Q positions of a block.
"""

from collections.abc import Iterator

import torch

_BLOCK = {torch.bfloat16: 128}
_BLOCK_OTHERWISE = 64
"""Queries of a block; the products of 16 bits want more."""
_LONGEST = {torch.bfloat16: 4096}
_LONGEST_OTHERWISE = 1024
"""Positions from which on flash is as fast: blocks of scores no longer fit the cache."""
_SCORES = 1 << 23
"""Of a block, held at once."""

Segment = tuple[slice, slice]
Gradients = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def attend_on_cpu(
    q_BNSD: torch.Tensor, k_BKSD: torch.Tensor, v_BKSD: torch.Tensor, document_ids_BS: torch.Tensor, scale: float
) -> torch.Tensor:
    """Return softmax(q k^T * scale) v [B, N, S, D], causal, of each document alone; ids of no positions [B, 0]: of each row."""
    out_BNSD: torch.Tensor
    out_BNSD, _ = torch.ops.xmodel2.cpu_attention(q_BNSD, k_BKSD, v_BKSD, document_ids_BS, scale)
    return out_BNSD


def begins(document_ids_BS: torch.Tensor) -> list[int]:
    """Return the places of all rows, one after another, at which a document begins."""
    starts = torch.ones(document_ids_BS.shape, dtype=torch.bool)
    starts[:, 1:] = document_ids_BS[:, 1:] != document_ids_BS[:, :-1]
    places: list[int] = starts.view(-1).nonzero()[:, 0].tolist()
    return places


def _segments(document_ids_BS: torch.Tensor, q_BNSD: torch.Tensor) -> Iterator[Segment]:
    """Yield (rows, positions) to attend within: a document, so that short ones cost what they are, or some whole rows."""
    B, N, S, _ = q_BNSD.shape
    if document_ids_BS.shape[1] == 0:
        rows = max(1, _SCORES // (N * S * _BLOCK.get(q_BNSD.dtype, _BLOCK_OTHERWISE)))
        yield from ((slice(first, min(B, first + rows)), slice(0, S)) for first in range(0, B, rows))
        return
    places = begins(document_ids_BS)
    for begin, end in zip(places, [*places[1:], B * S], strict=True):
        row, first = divmod(begin, S)
        yield slice(row, row + 1), slice(first, first + end - begin)


def _cut(x_BKSD: torch.Tensor, segment: Segment, heads: int) -> torch.Tensor:
    """Return a segment of x as [rows, heads, length, D], each head seen by all queries that share it."""
    part = x_BKSD[segment[0], :, segment[1]]
    shared = heads // part.shape[1]
    return part if shared == 1 else part[:, :, None].expand(-1, -1, shared, -1, -1).flatten(1, 2)


@torch.library.custom_op("xmodel2::cpu_attention", mutates_args=(), device_types="cpu")
def _attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, document_ids: torch.Tensor, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Causal attention within documents; returns out like q [B, N, S, D] and log-sum-exp [B, S, N]."""
    B, N, S, D = q.shape
    out = q.new_empty(B, S, N, D).transpose(1, 2)
    logsumexp = q.new_empty(B, S, N, dtype=torch.float32)
    for segment in _segments(document_ids, q):
        parts = q[segment[0], :, segment[1]], _cut(k, segment, N), _cut(v, segment, N)
        out[segment[0], :, segment[1]], lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            *parts, 0.0, True, scale=scale
        )
        logsumexp[segment[0], segment[1]] = lse.transpose(1, 2)
    return out, logsumexp


@_attention.register_fake
def _(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, document_ids: torch.Tensor, scale: float):  # type: ignore[no-untyped-def]
    B, N, S, D = q.shape
    return q.new_empty(B, S, N, D).transpose(1, 2), q.new_empty(B, S, N, dtype=torch.float32)


@torch.library.custom_op("xmodel2::cpu_attention_backward", mutates_args=(), device_types="cpu")
def _attention_backward(
    grad: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    out: torch.Tensor,
    logsumexp: torch.Tensor,
    document_ids: torch.Tensor,
    scale: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    B, _, S, D = q.shape
    grads = [x.new_empty(B, S, x.shape[1], D).transpose(1, 2) for x in (q, k, v)]
    for rows, positions in _segments(document_ids, q):
        grad_, q_, k_, v_, out_ = (x[rows, :, positions] for x in (grad, q, k, v, out))
        if q_.shape[2] > _LONGEST.get(q.dtype, _LONGEST_OTHERWISE):
            parts = _by_flash(grad_, q_, k_, v_, out_, logsumexp[rows, positions].transpose(1, 2), scale)
        else:
            parts = _by_blocks(grad_, q_, k_, v_, scale)
        for whole, part in zip(grads, parts, strict=True):
            whole[rows, :, positions] = part
    return grads[0], grads[1], grads[2]


def _by_flash(
    grad: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    out: torch.Tensor,
    logsumexp: torch.Tensor,
    scale: float,
) -> Gradients:
    N, K = q.shape[1], k.shape[1]
    everything = slice(None), slice(None)
    grad_q, *others = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
        grad, q, _cut(k, everything, N), _cut(v, everything, N), out, logsumexp, 0.0, True, scale=scale
    )
    grad_k, grad_v = (x if K == N else x.unflatten(1, (K, -1)).sum(2) for x in others)
    return grad_q, grad_k, grad_v


def _by_blocks(
    grad_BNSD: torch.Tensor, q_BNSD: torch.Tensor, k_BKSD: torch.Tensor, v_BKSD: torch.Tensor, scale: float
) -> Gradients:
    B, N, S, D = q_BNSD.shape
    K, dtype = k_BKSD.shape[1], q_BNSD.dtype
    size = min(S, _BLOCK.get(dtype, _BLOCK_OTHERWISE))
    k_XSD, v_XSD = (x.reshape(B * K, S, D) for x in (k_BKSD, v_BKSD))
    q_XGSD, grad_XGSD = (x.reshape(B * K, N // K, S, D) for x in (q_BNSD, grad_BNSD))
    later_QQ = torch.full((size, size), float("-inf"), dtype=dtype).triu_(1)
    grad_q_XGSD = torch.empty_like(q_XGSD)
    sums = [
        torch.zeros(B * K, S, D, dtype=torch.float32) for _ in range(2)
    ]  # in 16 bits many blocks would round many times
    for first in range(0, S, size):
        end = min(S, first + size)
        block = slice(first, end)
        # Queries of all heads one below the other: [X, G Q, D], scores [X, G Q, end].
        q, grad = q_XGSD[:, :, block].flatten(1, 2) * scale, grad_XGSD[:, :, block].flatten(1, 2)
        score = q @ k_XSD[:, :end].transpose(1, 2)
        score.view(B * K, -1, end - first, end)[..., block] += later_QQ[: end - first, : end - first]
        weight = torch.softmax(score, dim=-1)
        grad_weight = grad @ v_XSD[:, :end].transpose(1, 2)
        grad_score = torch._softmax_backward_data(grad_weight, weight, -1, dtype)
        grad_q_XGSD[:, :, block] = (grad_score @ k_XSD[:, :end]).view(B * K, -1, end - first, D)
        for total, left, right in zip(sums, (grad_score, weight), (q, grad), strict=True):
            total[:, :end] += left.transpose(1, 2) @ right
    grad_k, grad_v = (total.view(B, K, S, D) for total in sums)
    return grad_q_XGSD.mul_(scale).view(B, N, S, D), grad_k, grad_v


@_attention_backward.register_fake
def _(grad, q, k, v, out, logsumexp, document_ids, scale):  # type: ignore[no-untyped-def]
    B, _, S, D = q.shape
    grads = [x.new_empty(B, S, x.shape[1], D).transpose(1, 2) for x in (q, k, v)]
    return grads[0], grads[1], grads[2]


def _keep(ctx, inputs, output):  # type: ignore[no-untyped-def]
    q, k, v, document_ids, ctx.scale = inputs
    ctx.save_for_backward(q, k, v, *output, document_ids)


def _backward(ctx, grad, _):  # type: ignore[no-untyped-def]
    q, k, v, out, logsumexp, document_ids = ctx.saved_tensors
    grads = torch.ops.xmodel2.cpu_attention_backward(grad, q, k, v, out, logsumexp, document_ids, ctx.scale)
    return *grads, None, None


_attention.register_autograd(_backward, setup_context=_keep)
