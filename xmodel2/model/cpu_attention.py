"""Causal attention of rows or packed documents on a CPU, one operator for the compiler: flash forward, blocks of products back.

PyTorch's flash kernel is fast forward; its backward leaves a CPU's matrix units idle in bf16, and costs short documents the
most. By blocks of queries, the heads that share keys stacked into one product, only a block's scores are ever held
(docs/log.md has the times).

Letters: B rows, S positions, N query heads, K key/value heads, G = N / K, D head width, X = B K, Q positions of a block.
"""

from collections.abc import Iterator

import torch

_BLOCK = 128
"""Queries of a block."""
_LONGEST = 1024
"""Positions beyond which flash is as fast, heads repeated for it: blocks of scores no longer fit the cache."""
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
    places: list[int] = _first(document_ids_BS).view(-1).nonzero()[:, 0].tolist()
    return places


def _first(document_ids_BS: torch.Tensor) -> torch.Tensor:
    """Return at which positions a document begins, bool [B, S]."""
    first_BS = torch.ones(document_ids_BS.shape, dtype=torch.bool)
    first_BS[:, 1:] = document_ids_BS[:, 1:] != document_ids_BS[:, :-1]
    return first_BS


def _segments(document_ids_BS: torch.Tensor, S: int) -> Iterator[Segment]:
    """Yield (row, positions) of each document, so that short ones cost what they are; all rows, if they are one each."""
    places = begins(document_ids_BS)
    if not places:
        yield slice(None), slice(0, S)
        return
    for begin, end in zip(places, [*places[1:], len(document_ids_BS) * S], strict=True):
        row, first = divmod(begin, S)
        yield slice(row, row + 1), slice(first, first + end - begin)


def _starts(document_ids_BS: torch.Tensor) -> torch.Tensor:
    """Return where the document of each position begins in its row, [B, S]."""
    return torch.arange(document_ids_BS.shape[1]).where(_first(document_ids_BS), 0).cummax(1).values


def _repeated(x_BKSD: torch.Tensor, heads: int) -> torch.Tensor:
    """Return x with each head as often as queries share it: [B, heads, S, D]."""
    shared = heads // x_BKSD.shape[1]
    return x_BKSD if shared == 1 else x_BKSD[:, :, None].expand(-1, -1, shared, -1, -1).flatten(1, 2)


def _empty_like(x: torch.Tensor) -> torch.Tensor:
    """Return [B, heads, S, D] as both operators return it, heads beside each other in memory, and the compiler expects it."""
    return x.new_empty(x.transpose(1, 2).shape).transpose(1, 2)


@torch.library.custom_op("xmodel2::cpu_attention", mutates_args=(), device_types="cpu")
def _attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, document_ids: torch.Tensor, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Causal attention within documents; returns out like q [B, N, S, D] and log-sum-exp [B, S, N]."""
    B, N, S, _ = q.shape
    flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    out = _empty_like(q)
    logsumexp = q.new_empty(B, S, N, dtype=torch.float32)
    for rows, positions in _segments(document_ids, S):
        parts = q[rows, :, positions], _repeated(k[rows, :, positions], N), _repeated(v[rows, :, positions], N)
        out[rows, :, positions], lse = flash(*parts, 0.0, True, scale=scale)
        logsumexp[rows, positions] = lse.transpose(1, 2)
    return out, logsumexp


@_attention.register_fake
def _(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, document_ids: torch.Tensor, scale: float):  # type: ignore[no-untyped-def]
    B, N, S, _ = q.shape
    return _empty_like(q), q.new_empty(B, S, N, dtype=torch.float32)


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
    B, N, S, _ = q.shape
    grads = [_empty_like(x) for x in (q, k, v)]
    starts, flash = None, [S > _LONGEST] * B
    if q.dtype.itemsize > 2:  # in fp32 products are what takes time, and flash wastes none
        flash = [True] * B
    elif document_ids.shape[1]:
        starts = _starts(document_ids)
        flash = (torch.arange(S) - starts >= _LONGEST).any(1).tolist()
    for rows, positions in _segments(document_ids, S) if any(flash) else ():
        if any(flash[rows]):
            grad_, q_, k_, v_, out_ = (x[rows, :, positions] for x in (grad, q, k, v, out))
            parts = _by_flash(grad_, q_, k_, v_, out_, logsumexp[rows, positions].transpose(1, 2), scale)
            for whole, part in zip(grads, parts, strict=True):
                whole[rows, :, positions] = part
    others = [row for row in range(B) if not flash[row]]
    together = max(1, _SCORES // (N * S * _BLOCK))
    for first in range(0, len(others), together):
        some = others[first : first + together] if any(flash) else slice(first, first + together)
        parts = _by_blocks(grad[some], q[some], k[some], v[some], None if starts is None else starts[some], scale)
        for whole, part in zip(grads, parts, strict=True):
            whole[some] = part.to(whole.dtype)
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
    grad_q, *others = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
        grad, q, _repeated(k, N), _repeated(v, N), out, logsumexp, 0.0, True, scale=scale
    )
    grad_k, grad_v = (x if K == N else x.unflatten(1, (K, -1)).sum(2) for x in others)
    return grad_q, grad_k, grad_v


def _by_blocks(
    grad_BNSD: torch.Tensor,
    q_BNSD: torch.Tensor,
    k_BKSD: torch.Tensor,
    v_BKSD: torch.Tensor,
    starts_BS: torch.Tensor | None,
    scale: float,
) -> Gradients:
    B, N, S, D = q_BNSD.shape
    K, dtype = k_BKSD.shape[1], q_BNSD.dtype
    size = min(S, _BLOCK)
    k_XSD, v_XSD = (x.reshape(B * K, S, D) for x in (k_BKSD, v_BKSD))
    q_XGSD, grad_XGSD = (x.reshape(B * K, N // K, S, D) for x in (q_BNSD, grad_BNSD))
    hidden_QQ = torch.full((size, size), float("-inf"), dtype=dtype).triu_(1)
    grad_q_XGSD = torch.empty_like(q_XGSD)
    # In fp32: in 16 bits they would be rounded at every block.
    sums = [torch.zeros(B * K, S, D, dtype=torch.float32) for _ in range(2)]
    for first in range(0, S, size):
        end, low = min(S, first + size), 0
        block = slice(first, end)
        if starts_BS is not None:
            low = int(starts_BS[:, first].min())
        keys = slice(low, end)
        # Queries of all heads one below the other: [X, G Q, D], scores [X, G Q, T], T = end - low.
        q, grad = q_XGSD[:, :, block].flatten(1, 2) * scale, grad_XGSD[:, :, block].flatten(1, 2)
        score = q @ k_XSD[:, keys].transpose(1, 2)
        score.view(B * K, -1, end - first, end - low)[..., first - low :] += hidden_QQ[: end - first, : end - first]
        if starts_BS is not None:
            other_BQT = torch.arange(low, end) < starts_BS[:, block, None]
            score.view(B, N, end - first, end - low).masked_fill_(other_BQT[:, None], float("-inf"))
        weight = torch.softmax(score, dim=-1)
        grad_weight = grad @ v_XSD[:, keys].transpose(1, 2)
        grad_score = torch._softmax_backward_data(grad_weight, weight, -1, dtype)
        grad_q_XGSD[:, :, block] = (grad_score @ k_XSD[:, keys]).view(B * K, -1, end - first, D)
        for total, left, right in zip(sums, (grad_score, weight), (q, grad), strict=True):
            total[:, keys] += left.transpose(1, 2) @ right
    grad_k, grad_v = (total.view(B, K, S, D) for total in sums)
    return grad_q_XGSD.mul_(scale).view(B, N, S, D), grad_k, grad_v


@_attention_backward.register_fake
def _(grad, q, k, v, out, logsumexp, document_ids, scale):  # type: ignore[no-untyped-def]
    return _empty_like(q), _empty_like(k), _empty_like(v)


def _keep(ctx, inputs, output):  # type: ignore[no-untyped-def]
    q, k, v, document_ids, ctx.scale = inputs
    ctx.save_for_backward(q, k, v, *output, document_ids)


def _backward(ctx, grad, _):  # type: ignore[no-untyped-def]
    q, k, v, out, logsumexp, document_ids = ctx.saved_tensors
    grads = torch.ops.xmodel2.cpu_attention_backward(grad, q, k, v, out, logsumexp, document_ids, ctx.scale)
    return *grads, None, None


_attention.register_autograd(_backward, setup_context=_keep)
