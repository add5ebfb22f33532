"""Cross-entropy from hidden states without ever holding the logits of a batch.

Positions with a target are gathered, and go through the head a chunk at a time; each chunk's gradient is made at once, while
its logits are there, so that the backward pass only hands it on. Under tensor parallelism each rank holds some of the pieces
(rows of the table), and maxima, sums and the hidden states' gradient go over the group.

Letters: N positions, T of them with a target, C positions of a chunk, H hidden, V pieces of this rank.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F

from xmodel2.data.batch import IGNORED
from xmodel2.model.gpu_kernels import AMPERE
from xmodel2.recipe import Recipe

CHUNK_BYTES = {"cpu": 32 << 20, "cuda": 1 << 30}
"""Logits held at once, in fp32, if the recipe does not say: the products are busy, and a block's activations weigh more."""
SLICE = 8192
"""Rows of the table whose gradient a CPU makes at once in 16 bits, so that it is in the cache when it is added to the sum."""

_MOST = 1e26
"""Of a sum of exponentials, and 1 over the least: far from what fp32 holds, so that its products with the table stay finite."""

Chunk = tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]
"""Summed nats of a chunk, their gradient by hidden states [C, H], and the factors of that by table, [C, V] and [C, H]."""
Errors = tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]
"""Nats of each position, their gradients by logits [C, V], and what these are yet to be multiplied by [C]."""


def chunk_positions(recipe: Recipe, positions: int, element: int, device: str, tensor: int = 1) -> int:
    """Return C: as asked for, or equal chunks of a batch of ``positions``, in numbers of ``element`` bytes.

    Chunks are of what `CHUNK_BYTES` holds, by each of ``tensor`` ranks that share the pieces. In 16 bits a CPU adds to the
    whole sum of the table's gradients in fp32 after every chunk: there a chunk's logits weigh at least as much.
    """
    asked, model = recipe.train.loss_chunk_tokens, recipe.model
    if asked:
        return min(asked, positions)
    most = CHUNK_BYTES[device] / (4 * (model.vocab_size // tensor))
    if device == "cpu" and element == 2:
        most = max(most, 2 * model.hidden_size)
    return math.ceil(positions / math.ceil(positions / most))


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


Exponentials = Callable[..., tuple[torch.Tensor, torch.Tensor | None]]


def _exponentials(
    logits_CV: torch.Tensor, base_C: torch.Tensor, multiplier: float | torch.Tensor, dtype: torch.dtype | None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return the sum [C] of exp(logits * multiplier - base) and, in ``dtype`` if there is one, themselves."""
    exp_CV = logits_CV.to(torch.float32, copy=True).mul_(multiplier).sub_(base_C[:, None]).exp_()
    return exp_CV.sum(dim=-1), None if dtype is None else exp_CV.to(dtype)


def cross_entropy_chunk(
    hidden_CH: torch.Tensor,
    weight_VH: torch.Tensor,
    target_C: torch.Tensor,
    gradients: bool,
    multiplier: float | torch.Tensor,
    shard: VocabShard | None = None,
    exponentials: Exponentials = _exponentials,
) -> Chunk:
    """Return a chunk's summed nats and, if asked for, their gradients: see `Chunk`.

    With ``shard`` each rank of a group has its own pieces, in order of rank. ``exponentials``: `_exponentials`, perhaps compiled.
    """
    logits_CV = F.linear(hidden_CH, weight_VH)
    kept_C = target_C != IGNORED
    place_C = target_C if shard is None else target_C - shard.rank * len(weight_VH)
    wanted = hidden_CH.dtype if gradients else None
    arguments = place_C, kept_C * multiplier, wanted, shard
    if logits_CV.is_cuda:
        logits_CV = logits_CV.float().mul_(multiplier)
        nats_C, error_CV, scale_C = _errors(logits_CV, *arguments)
    else:
        nats_C, error_CV, scale_C = _undivided_errors(logits_CV, *arguments, multiplier, exponentials)
    del logits_CV  # not beside the products
    nats = (nats_C * kept_C).sum()
    if error_CV is None:
        return nats, None, None, None
    grad_CH = error_CV @ weight_VH
    if scale_C is not None:
        grad_CH, hidden_CH = ((x * scale_C[:, None]).to(x.dtype) for x in (grad_CH, hidden_CH))
    return nats, grad_CH if shard is None else shard.sum(grad_CH), error_CV, hidden_CH


def compiled_chunk(chunk: Callable[..., Chunk], device: torch.device, **options: Any) -> Callable[..., Chunk]:
    """Return `cross_entropy_chunk`, compiled: on a GPU all of it, on a CPU the pass over its logits."""
    if device.type == "cpu":
        return partial(chunk, exponentials=torch.compile(_exponentials, **options))
    return torch.compile(chunk, **options)


def _errors(
    logits_CV: torch.Tensor,
    place_C: torch.Tensor,
    factor_C: torch.Tensor,
    dtype: torch.dtype | None,
    shard: VocabShard | None,
) -> Errors:
    """Return the nats of each position and, in ``dtype`` if there is one, ``factor`` times softmax less one-hot.

    ``logits`` are fp32, and multiplied.
    """
    V = logits_CV.shape[1]
    here_C = (place_C >= 0) & (place_C < V)
    chosen_C = torch.where(here_C, logits_CV.gather(1, place_C.clamp(0, V - 1)[:, None])[:, 0], 0.0)
    if shard is None:
        lse_C = torch.logsumexp(logits_CV, dim=-1)
    else:
        top_C = shard.max(logits_CV.amax(dim=-1))
        lse_C = top_C + shard.sum(torch.exp(logits_CV - top_C[:, None]).sum(dim=-1)).log()
        chosen_C = shard.sum(chosen_C)
    if dtype is None:
        return lse_C - chosen_C, None, None
    piece_V = torch.arange(V, device=logits_CV.device)
    error_CV = torch.exp(logits_CV - lse_C[:, None]) - (piece_V[None] == place_C[:, None]).float()
    return lse_C - chosen_C, (error_CV * factor_C[:, None]).to(dtype), None


def _undivided_errors(
    logits_CV: torch.Tensor,
    place_C: torch.Tensor,
    factor_C: torch.Tensor,
    dtype: torch.dtype | None,
    shard: VocabShard | None,
    multiplier: float | torch.Tensor,
    exponentials: Exponentials,
) -> Errors:
    """Return the same of logits as they are, not yet multiplied by the last tensor, [C]: in one pass, one exponential each.

    On a CPU such a pass is 7% of nano's step in bf16. Exponentials are of what is above the target's logit, which is no pass to
    find; where that is too much, above the greatest.
    """
    V = logits_CV.shape[1]
    here_C, index_C = (place_C >= 0) & (place_C < V), torch.arange(len(place_C))
    place_C = place_C.clamp(0, V - 1)
    chosen_C = torch.where(here_C, logits_CV[index_C, place_C].float() * multiplier, 0.0)
    base_C = chosen_C = chosen_C if shard is None else shard.sum(chosen_C)

    def above(base_C: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        sum_C, exp_CV = exponentials(logits_CV, base_C, multiplier, dtype)
        return sum_C if shard is None else shard.sum(sum_C), exp_CV

    sum_C, error_CV = above(base_C)
    if not bool(((sum_C > 1 / _MOST) & (sum_C < _MOST)).all()):
        del error_CV
        base_C = logits_CV.amax(dim=-1).float() * multiplier
        base_C = base_C if shard is None else shard.max(base_C)
        sum_C, error_CV = above(base_C)
    nats_C, scale_C = base_C - chosen_C + sum_C.log(), factor_C / sum_C
    if error_CV is not None:
        # Less one-hot here and not in the products' results: of a target that is nearly sure 16 bits would leave little.
        own_C = torch.exp(chosen_C - base_C) - sum_C
        error_CV[index_C, place_C] = torch.where(here_C, own_C.to(error_CV.dtype), error_CV[index_C, place_C])
    return nats_C, error_CV, scale_C


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_NH: torch.Tensor, weight_VH: torch.Tensor, position_T: torch.Tensor | None, *chunks: Any
    ) -> torch.Tensor:
        nats, grad_TH, grad_VH = _chunks(hidden_NH, weight_VH, position_T, *chunks, gradients=True)
        ctx.save_for_backward(grad_TH, grad_VH, position_T)
        ctx.rows, ctx.dtype = len(hidden_NH), weight_VH.dtype
        return nats

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        grad_TH, grad_VH, position_T = ctx.saved_tensors
        if position_T is not None:
            grad_TH = grad_TH.new_zeros(ctx.rows, grad_TH.shape[1]).index_copy_(0, position_T, grad_TH)
        return grad_TH, grad_VH.to(ctx.dtype), None, None, None, None


def _chunks(
    hidden_NH: torch.Tensor,
    weight_VH: torch.Tensor,
    position_T: torch.Tensor | None,
    target_T: torch.Tensor,
    size: int,
    chunk: Callable[..., Chunk],
    *,
    gradients: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the summed nats and, filled if asked for, their gradients by gathered hidden states [T, H] and table [V, H]."""
    # A slice of all positions would else require a gradient, and the chunk be compiled for a second time.
    hidden_NH = hidden_NH.detach()
    hidden_TH = hidden_NH if position_T is None else hidden_NH.index_select(0, position_T)
    T = len(hidden_TH)
    if missing := -T % size:
        hidden_TH = F.pad(hidden_TH, (0, 0, 0, missing))
        target_T = F.pad(target_T, (0, missing), value=IGNORED)
    nats = torch.zeros((), device=hidden_NH.device)
    grad_TH = torch.empty_like(hidden_TH) if gradients else hidden_TH
    grad_VH = torch.zeros_like(weight_VH, dtype=torch.float32) if gradients else weight_VH
    weight = weight_VH.to(hidden_NH.dtype)
    for start in range(0, len(target_T), size):
        here = slice(start, start + size)
        loss, by_hidden, error, hidden = chunk(hidden_TH[here], weight, target_T[here], gradients)
        nats += loss
        if by_hidden is not None and error is not None and hidden is not None:
            grad_TH[here] = by_hidden
            _add_product(grad_VH, error.t(), hidden)
            del error  # not beside the next one
    return nats, grad_TH[:T], grad_VH


def _add_product(sum_VH: torch.Tensor, error_VC: torch.Tensor, hidden_CH: torch.Tensor) -> None:
    """Add a product to a sum in fp32, as part of it where the device can, since the table is large and chunks are many."""
    if error_VC.dtype == sum_VH.dtype:
        sum_VH.addmm_(error_VC, hidden_CH)
        return
    if sum_VH.is_cuda and torch.version.cuda and torch.cuda.get_device_capability(sum_VH.device) >= AMPERE:
        torch.addmm(sum_VH, error_VC, hidden_CH, torch.float32, out=sum_VH)
        return
    for some_SH, error_SC in zip(sum_VH.split(SLICE), error_VC.split(SLICE), strict=True):
        some_SH += error_SC @ hidden_CH


def linear_cross_entropy(
    hidden_NH: torch.Tensor,
    weight_VH: torch.Tensor,
    target_T: torch.Tensor,
    position_T: torch.Tensor | None,
    size: int,
    chunk: Callable[..., Chunk],
) -> torch.Tensor:
    """Return the summed nats of T of N positions (all, if ``position`` is None), ``size`` at a time; -100 counts nothing.

    ``chunk`` is `cross_entropy_chunk` with its multiplier and shard, perhaps compiled. ``backward`` is to be called on the sum
    itself: what would multiply it afterwards is left out, since it would cost a pass over both gradients, and bits of them.
    """
    inputs = hidden_NH, weight_VH, position_T, target_T, size, chunk
    if not torch.is_grad_enabled():
        return _chunks(*inputs, gradients=False)[0]
    nats: torch.Tensor = _LinearCrossEntropy.apply(*inputs)
    return nats
