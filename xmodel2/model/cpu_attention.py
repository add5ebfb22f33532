"""Causal attention of rows or packed documents on a CPU, one operator for the compiler: by blocks of products, or by flash.

PyTorch's flash kernel leaves a CPU's matrix units idle in its backward pass in bf16, where short documents cost the most, and in
fp32 makes small products of rows of some hundred positions. By blocks of queries, the heads that share keys stacked into one
product, only a block's scores are ever held (docs/log.md has the times).

Letters: B rows, S positions, N query heads, K key/value heads, G = N / K, D head width, X = B K, Q positions of a block, T keys
that any of its queries sees.
"""

from collections.abc import Iterator

import torch

_BLOCK = {2: 128, 4: 64, 8: 64}
"""Queries of a block, by bytes of a number."""
_GRAIN = 64
"""Keys of a block begin at a multiple of it: oneDNN makes code for each shape of a product, and documents end anywhere."""
_LENGTHS = {2: (1, 1024), 4: (256, 512), 8: (256, 512)}
"""Positions of rows that go by blocks: flash is as fast beyond, heads repeated for it, and in fp32 on short rows."""
_SCORES = 1 << 23
"""Of a block, held at once."""

Segment = tuple[slice, slice]
Group = tuple[slice | list[int], torch.Tensor | None]
"""Rows, and where the document of each of their positions begins, if they hold several."""


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


def _segments(document_ids_BS: torch.Tensor, S: int, flash: list[bool]) -> Iterator[Segment]:
    """Yield (row, positions) of each document of rows that are flash's, so that short ones cost what they are."""
    if not any(flash):
        return
    places = begins(document_ids_BS)
    if not places:  # rows of one document each, all at once
        yield slice(None), slice(0, S)
        return
    for begin, end in zip(places, [*places[1:], len(document_ids_BS) * S], strict=True):
        row, first = divmod(begin, S)
        if flash[row]:
            yield slice(row, row + 1), slice(first, first + end - begin)


def _starts(document_ids_BS: torch.Tensor) -> torch.Tensor:
    """Return where the document of each position begins in its row, [B, S]."""
    return torch.arange(document_ids_BS.shape[1]).where(_first(document_ids_BS), 0).cummax(1).values


def _split(document_ids_BS: torch.Tensor, q_BNSD: torch.Tensor) -> tuple[list[bool], list[Group]]:
    """Return which rows are flash's, and groups of the others whose blocks fit."""
    B, N, S, _ = q_BNSD.shape
    size = q_BNSD.dtype.itemsize
    starts, (shortest, longest) = None, _LENGTHS[size]
    if not document_ids_BS.shape[1]:
        flash = [not shortest <= S <= longest] * B
    elif size > 2:  # a block's products with other documents' keys take longer than small products of each
        flash = [True] * B
    else:
        starts = _starts(document_ids_BS)
        flash = (torch.arange(S) - starts >= longest).any(1).tolist()
    others = [row for row in range(B) if not flash[row]]
    together = max(1, _SCORES // (N * S * _BLOCK[size]))
    groups: list[Group] = []
    for first in range(0, len(others), together):
        rows = others[first : first + together] if any(flash) else slice(first, first + together)
        groups.append((rows, None if starts is None else starts[rows]))
    return flash, groups


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
    """Causal attention within documents; returns out like q [B, N, S, D] and, of rows that are flash's, log-sum-exp [B, S, N]."""
    B, N, S, _ = q.shape
    out = _empty_like(q)
    logsumexp = q.new_zeros(B, S, N, dtype=torch.promote_types(q.dtype, torch.float32))
    # In 16 bits flash's forward pass is the faster one at every length.
    flash, groups = _split(document_ids, q) if q.dtype.itemsize > 2 else ([True] * B, [])
    for rows, positions in _segments(document_ids, S, flash):
        parts = q[rows, :, positions], _repeated(k[rows, :, positions], N), _repeated(v[rows, :, positions], N)
        out[rows, :, positions], lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            *parts, 0.0, True, scale=scale
        )
        logsumexp[rows, positions] = lse.transpose(1, 2)
    for some, starts in groups:
        for queries, part in _forward_by_blocks(q[some], k[some], v[some], starts, scale):
            out[some, :, queries] = part
    return out, logsumexp


@_attention.register_fake
def _(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, document_ids: torch.Tensor, scale: float):  # type: ignore[no-untyped-def]
    B, N, S, _ = q.shape
    return _empty_like(q), q.new_empty(B, S, N, dtype=torch.promote_types(q.dtype, torch.float32))


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
    grads = [_empty_like(x) for x in (q, k, v)]
    exact = torch.promote_types(q.dtype, torch.float32)  # for sums that in 16 bits would be rounded at every block
    flash, groups = _split(document_ids, q)
    for rows, positions in _segments(document_ids, q.shape[2], flash):
        grad_, q_, k_, v_, out_ = (x[rows, :, positions] for x in (grad, q, k, v, out))
        parts = _by_flash(grad_, q_, k_, v_, out_, logsumexp[rows, positions].transpose(1, 2), scale)
        for whole, part in zip(grads, parts, strict=True):
            whole[rows, :, positions] = part
    for some, starts in groups:
        by_keys = torch.zeros(2, *k[some].shape, dtype=exact)
        top = _tops(logsumexp[some], starts).to(q.dtype) if q.dtype.itemsize == 2 else None
        for queries, part in _backward_by_blocks(grad[some], q[some], k[some], v[some], starts, scale, by_keys, top):
            grads[0][some, :, queries] = part
        grads[1][some], grads[2][some] = by_keys.to(k.dtype)
    return grads[0], grads[1], grads[2]


def _by_flash(
    grad: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    out: torch.Tensor,
    logsumexp: torch.Tensor,
    scale: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    N, K = q.shape[1], k.shape[1]
    grad_q, *others = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
        grad, q, _repeated(k, N), _repeated(v, N), out, logsumexp, 0.0, True, scale=scale
    )
    grad_k, grad_v = (x if K == N else x.unflatten(1, (K, -1)).sum(2) for x in others)
    return grad_q, grad_k, grad_v


def _blocks(
    q_BNSD: torch.Tensor,
    k_BKSD: torch.Tensor,
    starts_BS: torch.Tensor | None,
    scale: float,
    top_BNS: torch.Tensor | None = None,
) -> Iterator[tuple[slice, slice, torch.Tensor, torch.Tensor]]:
    """Yield for each block its queries, their keys, themselves [X, G Q, D], head below head, and their weights [X, G Q, T].

    In 16 bits ``top`` is taken from a query's scores before they are rounded: then those that weigh are near 0, and their
    error is small. What it is by itself the softmax does not see.
    """
    B, N, S, _ = q_BNSD.shape
    K, dtype = k_BKSD.shape[1], q_BNSD.dtype
    size = _block_size(q_BNSD)
    k_XDS, blocks = _shared(k_BKSD).transpose(1, 2), _cut(q_BNSD, K)
    lows = [0] * len(blocks)
    if starts_BS is not None:
        lows = (starts_BS[:, ::size].amin(0) // _GRAIN * _GRAIN).tolist()
    hidden_QQ = torch.full((size, size), float("-inf"), dtype=dtype).triu_(1)
    for low, first, q in zip(lows, range(0, S, size), blocks, strict=True):
        end = min(S, first + size)
        if top_BNS is None:
            score = _scaled_product(q, k_XDS[:, :, low:end], scale)
        else:
            top = top_BNS[:, :, first:end].reshape(len(q), -1, 1)
            score = torch.baddbmm(top.expand(-1, -1, end - low), q, k_XDS[:, :, low:end], beta=-1, alpha=scale)
        score_BNQT = score.view(B, N, end - first, end - low)
        score_BNQT[..., first - low :] += hidden_QQ[: end - first, : end - first]
        if starts_BS is not None:
            other_BQT = torch.arange(low, end) < starts_BS[:, first:end, None]
            score_BNQT.masked_fill_(other_BQT[:, None], float("-inf"))
        yield slice(first, end), slice(low, end), q, torch.softmax(score, dim=-1, out=score)


def _scaled_product(a: torch.Tensor, b: torch.Tensor, scale: float) -> torch.Tensor:
    """Return the batched product times ``scale``, which is not rounded by itself."""
    return torch.baddbmm(a.new_zeros(1, 1, 1), a, b, beta=0, alpha=scale)


def _tops(logsumexp_BSN: torch.Tensor, starts_BS: torch.Tensor | None) -> torch.Tensor:
    """Return what lies near all scores that weigh, [B, N, S]: halfway from the greatest, if it alone does, to that of equals."""
    keys_S = torch.arange(1, logsumexp_BSN.shape[1] + 1)
    keys_BS = keys_S[None] if starts_BS is None else keys_S - starts_BS
    return (logsumexp_BSN - keys_BS.log()[..., None] / 2).transpose(1, 2)


def _block_size(x_BNSD: torch.Tensor) -> int:
    return min(x_BNSD.shape[2], _BLOCK[x_BNSD.dtype.itemsize])


def _cut(x_BNSD: torch.Tensor, K: int) -> list[torch.Tensor]:
    """Return blocks of queries [X, G Q, D], the heads that share keys one below the other; the last block may be smaller."""
    B, N, S, D = x_BNSD.shape
    size = _block_size(x_BNSD)
    whole_BNSD, rest_BNSD = x_BNSD.split([S - S % size, S % size], dim=2)
    blocks = whole_BNSD.unflatten(2, (-1, size)).movedim(2, 0).reshape(-1, B * K, N // K * size, D)
    return [*blocks, *([rest_BNSD.reshape(B * K, -1, D)] if S % size else [])]


def _forward_by_blocks(
    q_BNSD: torch.Tensor, k_BKSD: torch.Tensor, v_BKSD: torch.Tensor, starts_BS: torch.Tensor | None, scale: float
) -> Iterator[tuple[slice, torch.Tensor]]:
    """Yield for each block its queries and what attention returns for them, [B, N, Q, D]."""
    (B, N, _, D), v_XSD = q_BNSD.shape, _shared(v_BKSD)
    for queries, keys, _, weight in _blocks(q_BNSD, k_BKSD, starts_BS, scale):
        yield queries, torch.bmm(weight, v_XSD[:, keys]).view(B, N, -1, D)


def _backward_by_blocks(
    grad_BNSD: torch.Tensor,
    q_BNSD: torch.Tensor,
    k_BKSD: torch.Tensor,
    v_BKSD: torch.Tensor,
    starts_BS: torch.Tensor | None,
    scale: float,
    by_keys_2BKSD: torch.Tensor,
    top_BNS: torch.Tensor | None,
) -> Iterator[tuple[slice, torch.Tensor]]:
    """Yield for each block its queries and their gradient [B, N, Q, D]; add those of keys and values to ``by_keys``."""
    B, N, _, D = q_BNSD.shape
    k_XSD, v_XSD = _shared(k_BKSD), _shared(v_BKSD)
    by_k_XSD, by_v_XSD = by_keys_2BKSD.flatten(1, 2)
    blocks = _blocks(q_BNSD, k_BKSD, starts_BS, scale, top_BNS)
    for grad, (queries, keys, q, weight) in zip(_cut(grad_BNSD, k_BKSD.shape[1]), blocks, strict=True):
        by_weight = torch.bmm(grad, v_XSD[:, keys].transpose(1, 2))
        by_v_XSD[:, keys].add_(torch.bmm(weight.transpose(1, 2), grad))
        by_score = torch._softmax_backward_data(by_weight, weight, -1, weight.dtype, grad_input=by_weight)
        by_k_XSD[:, keys].add_(torch.bmm(by_score.transpose(1, 2), q))
        yield queries, _scaled_product(by_score, k_XSD[:, keys], scale).view(B, N, -1, D)
    by_k_XSD.mul_(scale)


def _shared(x_BKSD: torch.Tensor) -> torch.Tensor:
    """Return keys or values [X, S, D]."""
    return x_BKSD.reshape(-1, *x_BKSD.shape[2:])


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
