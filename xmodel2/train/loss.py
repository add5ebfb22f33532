"""Cross-entropy from hidden states without ever holding the logits of a batch.

Positions with a target are gathered, and go through the head a chunk at a time; each chunk's gradient is made at once, while
its logits are there, so that the backward pass only scales it. Under tensor parallelism each rank holds some of the pieces
(rows of the table), and maxima, sums and the hidden states' gradient go over the group.

Letters: N positions, T of them with a target, C positions of a chunk, H hidden, V pieces of this rank.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F

from xmodel2.data.batch import IGNORED

CHUNK_BYTES = {"cpu": 32 << 20, "cuda": 512 << 20}
"""Logits held at once, in fp32, if the recipe does not say: the products are busy, and a block's activations weigh more."""

Chunk = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor, torch.Tensor]]
"""hidden [C, H], table [V, H], targets [C] to summed nats and their gradients by hidden and table."""


def chunk_positions(asked: int, positions: int, vocab_size: int, device: str = "cpu") -> int:
    """Return C: as asked for, or what `CHUNK_BYTES` holds in equal chunks of a batch of ``positions``."""
    if asked:
        return min(asked, positions)
    chunks = -(-positions * vocab_size * 4 // CHUNK_BYTES[device])
    return -(-positions // chunks)


class VocabShard:
    """The pieces that this rank of a tensor-parallel group holds, and sums over the group."""

    def __init__(self, group: dist.ProcessGroup) -> None:
        self.group, self.rank = group, dist.get_rank(group)

    def max(self, x: torch.Tensor) -> torch.Tensor:
        """Replace x by the group's largest."""
        dist.all_reduce(x, dist.ReduceOp.MAX, group=self.group)
        return x

    def sum(self, x: torch.Tensor) -> torch.Tensor:
        """Replace x by the group's sum."""
        dist.all_reduce(x, group=self.group)
        return x


def cross_entropy_chunk(
    hidden_CH: torch.Tensor, weight_VH: torch.Tensor, target_C: torch.Tensor, multiplier: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return a chunk's summed nats, and their gradient by hidden states and by table (of one rank with all pieces)."""
    logits_CV = (F.linear(hidden_CH, weight_VH) * multiplier).float()
    kept_C = target_C != IGNORED
    index_C1 = target_C.clamp_min(0)[:, None]
    lse_C = torch.logsumexp(logits_CV, dim=-1)
    nats = ((lse_C - logits_CV.gather(1, index_C1)[:, 0]) * kept_C).sum()
    grad_CV = _gradient(logits_CV, lse_C, index_C1, kept_C, multiplier, hidden_CH.dtype)
    return nats, grad_CV @ weight_VH, grad_CV.t() @ hidden_CH


def _gradient(
    logits_CV: torch.Tensor,
    lse_C: torch.Tensor,
    index_C1: torch.Tensor,
    kept_C: torch.Tensor,
    multiplier: float,
    dtype: torch.dtype,
) -> torch.Tensor:
    piece_V = torch.arange(logits_CV.shape[1], device=logits_CV.device)
    softmax_CV = torch.exp(logits_CV - lse_C[:, None])
    return ((softmax_CV - (piece_V[None] == index_C1).float()) * (kept_C * multiplier)[:, None]).to(dtype)


def sharded_cross_entropy_chunk(
    hidden_CH: torch.Tensor, weight_VH: torch.Tensor, target_C: torch.Tensor, multiplier: float, shard: VocabShard
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """As `cross_entropy_chunk`, each rank of a group with its own pieces, in order of rank."""
    V = len(weight_VH)
    logits_CV = (F.linear(hidden_CH, weight_VH) * multiplier).float()
    kept_C = target_C != IGNORED
    local_C = target_C - shard.rank * V
    here_C = (local_C >= 0) & (local_C < V)
    top_C = shard.max(logits_CV.amax(dim=-1))
    lse_C = top_C + shard.sum(torch.exp(logits_CV - top_C[:, None]).sum(dim=-1)).log()
    chosen_C = logits_CV.gather(1, local_C.clamp(0, V - 1)[:, None])[:, 0]
    nats = ((lse_C - shard.sum(torch.where(here_C, chosen_C, 0.0))) * kept_C).sum()
    index_C1 = torch.where(here_C, local_C, V)[:, None]
    grad_CV = _gradient(logits_CV, lse_C, index_C1, kept_C, multiplier, hidden_CH.dtype)
    return nats, shard.sum(grad_CV @ weight_VH), grad_CV.t() @ hidden_CH


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_NH: torch.Tensor,
        weight_VH: torch.Tensor,
        target_T: torch.Tensor,
        position_T: torch.Tensor | None,
        size: int,
        chunk: Chunk,
    ) -> torch.Tensor:
        hidden_TH = hidden_NH if position_T is None else hidden_NH.index_select(0, position_T)
        missing = -len(hidden_TH) % size
        if missing:
            hidden_TH = F.pad(hidden_TH, (0, 0, 0, missing))
            target_T = F.pad(target_T, (0, missing), value=IGNORED)
        nats = torch.zeros((), device=hidden_NH.device)
        grad_TH, grad_VH = torch.empty_like(hidden_TH), torch.zeros_like(weight_VH, dtype=torch.float32)
        weight = weight_VH.to(hidden_NH.dtype)
        for start in range(0, len(target_T), size):
            here = slice(start, start + size)
            loss, grad_TH[here], grad = chunk(hidden_TH[here], weight, target_T[here])
            nats += loss
            grad_VH += grad
            del grad  # not beside the next one
        ctx.save_for_backward(grad_TH[: len(grad_TH) - missing], grad_VH, position_T)
        ctx.rows, ctx.dtype = len(hidden_NH), weight_VH.dtype
        return nats

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        grad_TH, grad_VH, position_T = ctx.saved_tensors
        grad_NH = grad_TH.mul_(grads[0].to(grad_TH.dtype))
        if position_T is not None:
            grad_NH = grad_TH.new_zeros(ctx.rows, grad_TH.shape[1]).index_copy_(0, position_T, grad_TH)
        return grad_NH, grad_VH.mul_(grads[0]).to(ctx.dtype), None, None, None, None


def linear_cross_entropy(
    hidden_NH: torch.Tensor,
    weight_VH: torch.Tensor,
    target_T: torch.Tensor,
    position_T: torch.Tensor | None,
    size: int,
    chunk: Chunk,
) -> torch.Tensor:
    """Return the summed nats of T of N positions (all, if ``position`` is None), ``size`` at a time; -100 counts nothing.

    ``chunk`` is `cross_entropy_chunk` with its multiplier, perhaps compiled, or `sharded_cross_entropy_chunk` with its group.
    To be differentiated once.
    """
    nats: torch.Tensor = _LinearCrossEntropy.apply(hidden_NH, weight_VH, target_T, position_T, size, chunk)
    return nats
