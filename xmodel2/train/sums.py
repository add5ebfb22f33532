"""Sums of squares over tensors that may be spread over ranks, and clipping by them.

A plain tensor is held whole by every rank; a `DTensor` is cut along the mesh dimensions that its placements shard, and held
again by all other ranks. Each rank adds up its own elements, each counted once over all copies; one all-reduce does the rest.
"""

import math
from collections.abc import Iterable, Sequence

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.tensor import DTensor, Replicate


def global_square_sum(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the sum of squares over all elements of at least one tensor: a scalar, fp64, the same bits on every rank."""
    return global_square_sums([tensors])[0]


@torch.no_grad()
def global_square_sums(groups: Sequence[Sequence[torch.Tensor]]) -> torch.Tensor:
    """Return the sum of squares of each group of tensors [groups], in one all-reduce; no group may be empty.

    The norm of one tensor is in fp32, as in `clip_grad_norm_`: of one above 1e19 the sum is infinite. Squares add in fp64.
    """
    ranks = dist.get_world_size() if dist.is_initialized() else 1
    sums = torch.stack([_square_sum_here(tensors, ranks) for tensors in groups])
    if ranks > 1:
        dist.all_reduce(sums)
    return sums


@torch.no_grad()
def clip_(parameters: Iterable[nn.Parameter], norm: torch.Tensor, max_norm: float, factor: float = 1.0) -> None:
    """Scale the gradients in place by ``factor``, and by max_norm / norm where that is below 1.

    ``norm``, a scalar on their device, is theirs once they are multiplied by ``factor``.
    """
    gradients = [local_part(p.grad) for p in parameters if p.grad is not None]
    scale = (max_norm / (norm + 1e-6)).clamp(max=1.0) * factor
    torch._foreach_mul_(gradients, scale.to(gradients[0].dtype))  # always: a condition would wait for the device


def local_part(tensor: torch.Tensor) -> torch.Tensor:
    """Return what this rank holds of a tensor, sharing its memory; under `torch.no_grad`."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _square_sum_here(tensors: Sequence[torch.Tensor], ranks: int) -> torch.Tensor:
    by_pieces: dict[int, list[torch.Tensor]] = {}
    for tensor in tensors:
        pieces = 1
        if isinstance(tensor, DTensor):
            tensor = _summed(tensor)
            sizes = zip(tensor.placements, tensor.device_mesh.shape, strict=True)
            pieces = math.prod(size for placement, size in sizes if not placement.is_replicate())
        by_pieces.setdefault(pieces, []).append(local_part(tensor))
    # An element lies on ranks / pieces ranks.
    parts = [_square_sum(local) * (pieces / ranks) for pieces, local in by_pieces.items()]
    return torch.stack(parts).sum()


def _square_sum(tensors: list[torch.Tensor]) -> torch.Tensor:
    dtype = None if all(tensor.dtype == torch.float32 for tensor in tensors) else torch.float32
    return torch.stack(torch._foreach_norm(tensors, 2, dtype)).double().square().sum()


def _summed(tensor: DTensor) -> DTensor:
    """Return the tensor with what ranks have yet to add up (`Partial`) added up."""
    if not any(placement.is_partial() for placement in tensor.placements):
        return tensor
    return tensor.redistribute(
        placements=[Replicate() if placement.is_partial() else placement for placement in tensor.placements]
    )
