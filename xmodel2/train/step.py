"""One optimizer step: summed cross-entropy over micro-batches, divided once by the loss tokens of the whole batch.

Dividing by the batch's own count (not a mean of means) makes the gradient independent of how rows fall into micro-batches.
"""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F

from xmodel2.data.loader import Batch
from xmodel2.model import Xmodel2
from xmodel2.recipe import Recipe
from xmodel2.train.device import DTYPES, can_compile

LossFunction = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]


def loss_function(model: Xmodel2, precision: str, compiled: bool) -> LossFunction:
    """Return f(inputs [B, S], targets [B, S], document_ids [B, S] or None) -> summed nats, a scalar.

    Compiled by region: one block's code serves all blocks, so that compile time does not grow with depth.
    """

    def head(hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        logits_BSV = model.logits(hidden)
        return F.cross_entropy(logits_BSV.float().flatten(0, 1), targets.flatten(), ignore_index=-100, reduction="sum")

    if compiled:
        for block in model.layers:
            block.compile(dynamic=False)
        head = torch.compile(head, dynamic=False)

    def loss_sum(inputs: torch.Tensor, targets: torch.Tensor, document_ids: torch.Tensor | None) -> torch.Tensor:
        with torch.autocast(inputs.device.type, dtype=DTYPES[precision], enabled=precision != "fp32"):
            return head(model.hidden(inputs, document_ids), targets)

    return loss_sum


def to_device(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """Copy a loader array to the device."""
    return torch.from_numpy(array).to(device, non_blocking=True)


class TrainStep:
    """Forward, backward, clip and update for one global batch."""

    def __init__(self, model: Xmodel2, optimizer: torch.optim.Optimizer, recipe: Recipe, precision: str) -> None:
        self.model, self.optimizer = model, optimizer
        self.rows = recipe.train.micro_batch_size
        self.mask_documents = recipe.data.mask_documents
        self.max_grad_norm = recipe.train.max_grad_norm
        self.device = next(model.parameters()).device
        self._loss = loss_function(model, precision, recipe.train.compile and can_compile(self.device))

    def __call__(self, batch: Batch) -> tuple[float, float]:
        """Update the weights; return loss (nats a loss token) and gradient norm before clipping."""
        loss_tokens = max(1, int((batch.targets != -100).sum()))
        total = torch.zeros((), device=self.device)
        for start in range(0, len(batch.inputs), self.rows):
            part = slice(start, start + self.rows)
            documents = to_device(batch.document_ids[part], self.device) if self.mask_documents else None
            loss = self._loss(
                to_device(batch.inputs[part], self.device), to_device(batch.targets[part], self.device), documents
            )
            (loss / loss_tokens).backward()
            total += loss.detach()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return float(total) / loss_tokens, float(norm)
