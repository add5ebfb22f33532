"""Held-out loss by source: nats a token, perplexity, and bits a byte of text (which compares across tokenizers)."""

import math
from typing import Any

import torch

from xmodel2.data.loader import heldout_rows
from xmodel2.data.shards import ShardSet
from xmodel2.model import Xmodel2
from xmodel2.recipe import Recipe
from xmodel2.train.step import LossFunction, loss_function, to_device


@torch.no_grad()
def heldout_losses(
    model: Xmodel2, shards: ShardSet, recipe: Recipe, precision: str = "fp32", max_rows: int | None = None
) -> dict[str, dict[str, Any]]:
    """Return {source: {loss, perplexity, tokens, bits_per_byte}}; bits a byte only for text, where every token counts."""
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    loss_of = loss_function(model, precision, compiled=False)
    # Blocks that training compiled run as written here: a shape seen once is not worth compiling for.
    with torch.compiler.set_stance("force_eager"):
        losses = _losses(loss_of, shards, recipe, device, max_rows)
    model.train(was_training)
    return losses


def _losses(
    loss_of: LossFunction, shards: ShardSet, recipe: Recipe, device: torch.device, max_rows: int | None
) -> dict[str, dict[str, Any]]:
    losses: dict[str, dict[str, Any]] = {}
    for name, source in shards.sources.items():
        if source.heldout is None or source.heldout.tokens == 0:
            continue
        rows = heldout_rows(source.heldout, recipe.data.sequence_length, max_rows)
        total = 0.0
        for start in range(0, len(rows.inputs), recipe.train.micro_batch_size):
            part = slice(start, start + recipe.train.micro_batch_size)
            documents = to_device(rows.document_ids[part], device) if recipe.data.mask_documents else None
            total += float(
                loss_of(to_device(rows.inputs[part], device), to_device(rows.targets[part], device), documents)
            )
        count = int((rows.targets != -100).sum())
        if count == 0:
            continue
        loss = total / count
        losses[name] = {"loss": loss, "perplexity": math.exp(min(loss, 700.0)), "tokens": count}
        if source.kind == "text" and source.heldout.bytes:
            split = source.heldout
            tokens_per_byte = (split.tokens - split.documents) / split.bytes
            losses[name]["bits_per_byte"] = loss * tokens_per_byte / math.log(2)
    return losses
