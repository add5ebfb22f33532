"""One optimizer step: summed cross-entropy over micro-batches, divided by the loss tokens of the whole batch.

Dividing by the batch's own count (not a mean of means) makes the gradient independent of how rows fall into micro-batches
and ranks. What comes of it is judged before it is applied: `gradients`, then `apply` or `discard`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import nn
from torch.distributed.tensor import DTensor

from xmodel2.data.batch import IGNORED, Batch
from xmodel2.errors import XmodelError
from xmodel2.model import Xmodel2
from xmodel2.model.document_attention import can_attend_within
from xmodel2.recipe import Recipe
from xmodel2.train.context import ContextShard
from xmodel2.train.device import DTYPES, can_compile, keep_compiled_code_apart
from xmodel2.train.float8 import apply_float8
from xmodel2.train.loss import (
    Chunk,
    VocabShard,
    chunk_positions,
    compiled_chunk,
    cross_entropy_chunk,
    linear_cross_entropy,
)
from xmodel2.train.recompute import keep_activations
from xmodel2.train.sharding import cut_tensors, shard, sum_gains, sync_gradients
from xmodel2.train.sums import clip_, global_square_sum
from xmodel2.train.tied_embedding import add_rows_in_place
from xmodel2.train.world import World


@dataclass(frozen=True)
class MicroBatch:
    """Rows on the device, and the positions at which they have a target."""

    inputs_BS: torch.Tensor
    documents_BT: torch.Tensor | None
    """Of whole rows, also where this rank holds some of the positions; on the CPU, where the documents' bounds are found."""
    position_T: torch.Tensor | None
    """In the flattened rows; None: all."""
    target_T: torch.Tensor


class LossModule(nn.Module):
    """The decoder and its loss as one module: every use of a weight lies within its forward, as sharding needs."""

    def __init__(self, model: Xmodel2, recipe: Recipe, precision: str, world: World, device: torch.device) -> None:
        super().__init__()
        self.model, self.kernel, self.dtype = model, recipe.train.attention, DTYPES[precision]
        _check_attention(recipe, device, self.dtype)
        positions = recipe.train.micro_batch_size * recipe.data.sequence_length
        self.compiled, self.graph_kernel = False, self.kernel
        if self.kernel == "auto" and recipe.data.mask_documents and device.type == "cuda":
            self.graph_kernel = "flex"  # a CUDA graph holds no kernel whose launch depends on where documents end
        self.context = None
        if world.mesh is not None and world.axis("context")[1] > 1:
            self.context = ContextShard(world.mesh.get_group("context"), recipe.data.sequence_length, device)
            positions = recipe.train.micro_batch_size * len(self.context.positions)
        tensor_parallel = world.axis("tensor")[1]
        self.chunk = chunk_positions(recipe, positions, self.dtype.itemsize, device.type, tensor_parallel)
        shard = VocabShard(world.mesh.get_group("tensor")) if world.mesh and tensor_parallel > 1 else None
        # A tensor and no constant, so that all models of one shape run the same compiled code.
        multiplier = torch.tensor(model.logit_multiplier, device=device)
        self.cross_entropy: Callable[..., Chunk] = partial(cross_entropy_chunk, multiplier=multiplier, shard=shard)

    def compile(self, mode: str, device: torch.device) -> None:  # type: ignore[override]
        """Compile by region: one block's code serves all blocks, so that compile time does not grow with depth."""
        self.compiled = True
        if mode == "reduce-overhead":
            self.kernel = self.graph_kernel
        for block in (*self.model.layers, self.model.norm):
            block.compile(dynamic=False, mode=mode)
        self.cross_entropy = compiled_chunk(self.cross_entropy, device, dynamic=False, mode=mode)

    def forward(self, batch: MicroBatch) -> torch.Tensor:
        """Return the summed nats of a micro-batch, a scalar; `backward` is to be called on it as it is."""
        if self.compiled:  # it imports the whole compiler
            torch.compiler.cudagraph_mark_step_begin()
        if self.context is None:
            hidden = self.model.hidden(batch.inputs_BS, batch.documents_BT, dtype=self.dtype, kernel=self.kernel)
        else:
            rows = self.context.rows(self.model, batch.documents_BT, self.kernel)
            hidden = self.model.run(batch.inputs_BS, rows, self.dtype)
        weight: torch.Tensor = self.model.head_weight
        if isinstance(weight, DTensor):
            weight = weight.to_local()
        return linear_cross_entropy(
            hidden.flatten(0, 1), weight, batch.target_T, batch.position_T, self.chunk, self.cross_entropy
        )


def _check_attention(recipe: Recipe, device: torch.device, dtype: torch.dtype) -> None:
    """Raise `XmodelError` for a kernel that the device lacks, or that can't keep packed documents apart."""
    kernel, masked = recipe.train.attention, recipe.data.mask_documents
    why = ""
    if kernel == "flex" and device.type == "cpu":
        why = "has no backward pass on a CPU"
    elif kernel == "documents" and not can_attend_within(device, dtype, recipe.model.head_dim):
        why = (
            f"has no kernel for {dtype} and heads {recipe.model.head_dim} wide on this GPU: it takes 16 bits, a multiple"
            " of 8 up to 256, and Ampere or later"
        )
    elif kernel == "documents" and masked and device.type == "cuda" and recipe.train.compile_mode == "reduce-overhead":
        why = "is launched by where documents end, which no CUDA graph (train.compile_mode) can follow"
    elif kernel in ("documents", "sdpa") and recipe.parallel.context_parallel > 1:
        why = "needs all positions of a row on one rank (parallel.context_parallel)"
    elif kernel == "sdpa" and masked:
        why = "can't keep packed documents apart (data.mask_documents)"
    if why:
        raise XmodelError(f"train.attention = '{kernel}' {why}; use 'auto'")


def micro_batches(
    batch: Batch, rows: int, mask_documents: bool, module: LossModule, device: torch.device
) -> Iterator[MicroBatch]:
    """Yield a batch's rows, ``rows`` at a time, on the device."""
    places = slice(None) if module.context is None else module.context.positions.numpy()
    for start in range(0, len(batch.inputs), rows):
        part = slice(start, start + rows)
        inputs, targets = batch.inputs[part, places], batch.targets[part, places].ravel()
        kept = np.flatnonzero(targets != IGNORED)
        some = 0 < len(kept) < len(targets)
        position, target = (to_device(kept, device), targets[kept]) if some else (None, targets)
        documents = torch.from_numpy(batch.document_ids[part]) if mask_documents else None
        yield MicroBatch(to_device(inputs, device), documents, position, to_device(target, device))


def to_device(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """Copy a loader array to the device; to a GPU through pinned memory, so that nothing waits for it."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


class Stopped(Exception):  # noqa: N818
    """The step was left unmade, because the run is to stop."""


class TrainStep:
    """Forward, backward, clip and update for one global batch, or for a rank's rows of it."""

    def __init__(
        self, model: Xmodel2, recipe: Recipe, precision: str, device: torch.device, world: World | None = None
    ) -> None:
        """Lay the model over the ranks and compile it; its weights are drawn, and its optimizer is made, after this."""
        self.model, self.recipe, self.device, self.world = model, recipe, device, world or World()
        if recipe.train.float8:
            apply_float8(model, device)
        cut_tensors(model, self.world)
        if device.type == "cpu" and self.world.mesh is None:
            add_rows_in_place(model)
        self.module = LossModule(model, recipe, precision, self.world, device)
        compiled = recipe.train.compile and can_compile(device)
        keep_activations(model, recipe.train.activation_memory_budget, compiled)
        if compiled:
            keep_compiled_code_apart(device)
            self.module.compile(recipe.train.compile_mode, device)
        shard(self.module, model.layers, self.world, DTYPES[precision])

    def gradients(
        self, batch: Batch, loss_tokens: float, stopping: Callable[[], bool] = lambda: False
    ) -> tuple[float, torch.Tensor]:
        """Make the gradients of this rank's rows; return the loss (nats a loss token) and its gradient's norm, over all ranks.

        ``loss_tokens`` are those of the whole batch. Raises `Stopped` if ``stopping`` says so, on all ranks alike, before a
        micro-batch.
        """
        total = torch.zeros((), device=self.device)
        rows, self._count = self.recipe.train.micro_batch_size, max(1.0, loss_tokens)
        last = len(batch.inputs) - rows
        parts = micro_batches(batch, rows, self.recipe.data.mask_documents, self.module, self.device)
        for number, part in enumerate(parts):
            if stopping():
                raise Stopped
            sync_gradients(self.module, number * rows >= last)
            loss = self.module(part)
            loss.backward()
            total += loss.detach()
        sum_gains(self.model, self.world)
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        norm = global_square_sum(gradients).sqrt() / self._count
        copies = self.world.size // (self.world.data[1] * self.world.axis("context")[1])
        return self.world.sum([float(total)])[0] / copies / self._count, norm

    @property
    def gradient_scale(self) -> float:
        """What the gradients are yet to be multiplied by: they are those of the sum, not of the mean."""
        return 1 / self._count

    def apply(self, optimizer: torch.optim.Optimizer, norm: torch.Tensor) -> None:
        """Make the gradients those of the mean, clip them to ``max_grad_norm`` by their norm, and update the weights."""
        clip_(self.model.parameters(), norm, self.recipe.train.max_grad_norm, self.gradient_scale)
        optimizer.step()
        self.discard(optimizer)

    def discard(self, optimizer: torch.optim.Optimizer) -> None:
        """Forget the gradients."""
        optimizer.zero_grad(set_to_none=True)
