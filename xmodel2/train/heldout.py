"""Held-out loss by source: nats a token, perplexity, and bits a byte of text (which compares across tokenizers)."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from xmodel2.data.loader import IGNORED, Batch, heldout_rows
from xmodel2.data.shards import ShardSet, SourceSplit, piece_beyond
from xmodel2.model import Xmodel2
from xmodel2.recipe import Recipe, replace
from xmodel2.train.sharding import reshard
from xmodel2.train.step import LossModule, micro_batches
from xmodel2.train.world import World


@torch.no_grad()
def heldout_losses(
    model: Xmodel2, shards: ShardSet, recipe: Recipe, precision: str = "fp32", max_rows: int | None = None
) -> dict[str, dict[str, Any]]:
    """Return {source: {loss, perplexity, tokens, bits_per_byte}}; bits a byte only for text, where every token counts."""
    device = next(model.parameters()).device
    recipe = replace(recipe, {"train.attention": "auto"})  # the device may be another than it was trained on
    module = LossModule(model, recipe, precision, World(), device)
    return measure_heldout(module, shards, recipe, World(), device, max_rows)


@torch.no_grad()
def measure_heldout(
    module: LossModule, shards: ShardSet, recipe: Recipe, world: World, device: torch.device, max_rows: int | None
) -> dict[str, dict[str, Any]]:
    """As `heldout_losses`, of a model that may lie on several ranks, each of which calls this and gets the same."""
    was_training = module.training
    module.eval()
    # On a CPU, blocks that training compiled run as written here: a shape seen once is not worth compiling for.
    # CUDA graphs of blocks without a backward pass would overwrite each other's input.
    eager = device.type == "cpu" or recipe.train.compile_mode == "reduce-overhead"
    with torch.compiler.set_stance("force_eager" if eager else "default"):
        losses = {
            name: _loss(
                module, source.heldout, source.kind, recipe, world, device, max_rows, f"{shards.directory}: {name}"
            )
            for name, source in shards.sources.items()
            if source.heldout is not None and source.heldout.tokens > 0
        }
    module.train(was_training)
    reshard(module)
    return {name: loss for name, loss in losses.items() if loss}


def _loss(
    module: LossModule,
    split: SourceSplit,
    kind: str,
    recipe: Recipe,
    world: World,
    device: torch.device,
    max_rows: int | None,
    where: str,
) -> dict[str, Any]:
    rows = heldout_rows(split, recipe.data.sequence_length, max_rows)
    if (largest := int(rows.inputs.max(initial=0))) >= recipe.model.vocab_size:
        raise piece_beyond(f"{where}: its held-out documents have piece {largest:,},", recipe.model.vocab_size)
    count = int((rows.targets != IGNORED).sum())
    if count == 0:
        return {}
    size, total = recipe.train.micro_batch_size, 0.0
    for part in _parts(rows, size, world):
        for batch in micro_batches(part, size, recipe.data.mask_documents, module, device):
            total += float(module(batch))
    loss = world.sum([total])[0] / world.axis("tensor")[1] / count
    result = {"loss": loss, "perplexity": math.exp(min(loss, 700.0)), "tokens": count}
    if kind == "text" and split.bytes:
        tokens_per_byte = (split.tokens - split.documents) / split.bytes
        result["bits_per_byte"] = loss * tokens_per_byte / math.log(2)
    return result


def _parts(rows: Batch, size: int, world: World) -> Iterator[Batch]:
    """Yield this rank's micro-batches of equal size, as many as any other rank's: empty rows fill up."""
    place, places = world.data
    missing = -len(rows.inputs) % (size * places)
    inputs = np.pad(rows.inputs, ((0, missing), (0, 0)))
    targets = np.pad(rows.targets, ((0, missing), (0, 0)), constant_values=IGNORED)
    documents = np.pad(rows.document_ids, ((0, missing), (0, 0)))
    for start in range(place * size, len(inputs), places * size):
        part = slice(start, start + size)
        yield Batch(inputs[part], targets[part], documents[part], [])
