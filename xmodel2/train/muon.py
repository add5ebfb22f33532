"""Muon: momentum, orthogonalised (Jordan 2024, kellerjordan.github.io/posts/muon), for the matrices; AdamW for the rest.

    M <- momentum M + (1 - momentum) g;   O = orthogonalise(momentum M + (1 - momentum) g);   W <- (1 - r decay) W - r s O

r is the rate and s = sqrt(fan_out / fan_in). O's singular values are near 1, so an update's spectral norm is r s, as the
spectral condition asks (arXiv 2310.17813): one rate r holds at every width, where AdamW needs lr / m. Decay is by r alone,
so it does not change with width either. Depth: the block multiplier keeps the forward pass steady, but L updates that agree
move the residual stream by r sqrt(L). Table 6 leaves AdamW the same: neither carries its rate over depth by construction.

`torch.optim.Muon` takes a parameter as one matrix; two of ours hold several (`fused_layout`), each orthogonalised by itself
here, equal shapes of all layers in one batch. A sharded parameter is gathered, since a shard of O is not O of the shard.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor, distribute_tensor

from xmodel2.model.fused_layout import matrices
from xmodel2.recipe import ModelSettings

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Jordan's quintic: steepest at 0, and singular values end between 0.7 and 1.2."""
ITERATIONS = 5
CHUNK_ELEMENTS = 1 << 26
"""Elements that are orthogonalised at once: enough to fill a GPU, few enough to fit beside a large model."""


def orthogonalise(x_BMN: torch.Tensor) -> torch.Tensor:
    """Return U V^T of each matrix U S V^T, nearly, by Newton-Schulz in the input's dtype; zero stays zero."""
    if x_BMN.shape[1] > x_BMN.shape[2]:
        return orthogonalise(x_BMN.mT).mT
    a, b, c = COEFFICIENTS
    x_BMN = x_BMN / x_BMN.norm(dim=(1, 2), keepdim=True).clamp_min(1e-7)
    for _ in range(ITERATIONS):
        gram_BMM = x_BMN @ x_BMN.mT
        x_BMN = torch.baddbmm(x_BMN, torch.baddbmm(gram_BMM, gram_BMM, gram_BMM, beta=b, alpha=c), x_BMN, beta=a)
    return x_BMN


class Muon(torch.optim.Optimizer):
    """Muon over named matrix-like tensors; steps and exposes the groups and state of ``others`` as its own."""

    def __init__(
        self,
        named: Iterable[tuple[str, nn.Parameter]],
        others: torch.optim.AdamW,
        settings: ModelSettings,
        group: dict[str, Any],
    ) -> None:
        """``group`` holds lr, momentum and weight_decay of the named ones."""
        self._names = {parameter: name for name, parameter in named}
        self._others, self._settings = others, settings
        super().__init__([{"params": list(self._names), **group}, *others.param_groups], {})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every parameter that has a gradient; all ranks of a sharded model call it together."""
        loss = torch.enable_grad()(closure)() if closure is not None else None
        # Loading a state replaces groups and state, so AdamW is handed the present ones each time.
        self._others.state = self.state
        self._others.param_groups = [group for group in self.param_groups if "momentum" not in group]
        self._others.step()
        for group in self.param_groups:
            if "momentum" in group:
                for chunk in _chunks([p for p in group["params"] if p.grad is not None]):
                    self._update(chunk, group["lr"], group["momentum"], group["weight_decay"])
        return loss

    def _update(self, parameters: list[nn.Parameter], rate: float, momentum: float, decay: float) -> None:
        for parameter in parameters:
            if "momentum_buffer" not in self.state[parameter]:
                self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        grads = [_local(p.grad, like=p) for p in parameters if p.grad is not None]
        buffers = [_local(self.state[p]["momentum_buffer"], like=p) for p in parameters]
        torch._foreach_lerp_(buffers, grads, 1 - momentum)
        averages = torch._foreach_lerp(grads, buffers, momentum)
        updates = [_whole(average, like=p) for average, p in zip(averages, parameters, strict=True)]
        _orthogonalise_views([view for p, u in zip(parameters, updates, strict=True) for view in self._matrices(p, u)])
        weights = [_local(p, like=p) for p in parameters]
        torch._foreach_mul_(weights, 1 - rate * decay)
        shards = [_shard(update, like=p) for update, p in zip(updates, parameters, strict=True)]
        torch._foreach_add_(weights, shards, alpha=-rate)

    def _matrices(self, parameter: nn.Parameter, update: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return matrices(self._names[parameter], update, self._settings)


def _orthogonalise_views(views: list[torch.Tensor]) -> None:
    """Replace each matrix, a view [groups, rows, columns], by s O, in place."""
    batches: dict[tuple[int, int], list[torch.Tensor]] = {}
    for view in views:
        batches.setdefault((view.shape[0] * view.shape[1], view.shape[2]), []).append(view)
    for (fan_out, fan_in), batch in batches.items():
        # A CPU without bf16 units is slower in bf16 than in fp32, by far.
        dtype = torch.bfloat16 if batch[0].is_cuda else torch.float32
        stacked = torch.stack([view.flatten(0, 1) for view in batch]).to(dtype)
        results = orthogonalise(stacked) * math.sqrt(fan_out / fan_in)
        for view, result in zip(batch, results, strict=True):
            view.copy_(result.unflatten(0, view.shape[:2]))


def _chunks(parameters: list[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """Cut a list, in order, into parts of at most CHUNK_ELEMENTS elements (or of one parameter)."""
    chunk: list[nn.Parameter] = []
    for parameter in parameters:
        if chunk and sum(p.numel() for p in chunk) + parameter.numel() > CHUNK_ELEMENTS:
            yield chunk
            chunk = []
        chunk.append(parameter)
    if chunk:
        yield chunk


def _local(tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return this rank's part of a tensor that lies as ``like`` does, sharing memory; a plain tensor is its own part."""
    if isinstance(tensor, DTensor) and isinstance(like, DTensor):
        return tensor.redistribute(placements=like.placements).to_local()
    return tensor


def _whole(local: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Gather the tensor of which ``local`` is this rank's part."""
    if not isinstance(like, DTensor):
        return local
    mesh, placements = like.device_mesh, like.placements
    # Without shape and stride it would take all shards for equally large.
    shards = DTensor.from_local(local, mesh, placements, run_check=False, shape=like.shape, stride=like.stride())
    return shards.full_tensor()


def _shard(whole: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return this rank's part of a tensor that every rank holds; nothing is sent."""
    if not isinstance(like, DTensor):
        return whole
    return distribute_tensor(whole, like.device_mesh, like.placements, src_data_rank=None).to_local()
