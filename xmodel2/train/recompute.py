"""Activation memory: which of a block's activations are kept for the backward pass, and which are computed again.

Compiled, the budget goes to the partitioner, which keeps what costs most to compute for the bytes (`torch.compile`'s
activation memory budget). Not compiled, the share of blocks that the budget does not cover is computed again as a whole.
"""

from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from xmodel2.model import Xmodel2


def keep_activations(model: Xmodel2, budget: float, compiled: bool) -> None:
    """Apply ``train.activation_memory_budget``, a share of what the blocks would keep (1: all)."""
    if compiled:
        from torch._functorch import config  # it imports the compiler

        config.activation_memory_budget = budget
        # Under tensor parallelism a block's inputs hold the mesh, an object without tensors, whose size the partitioner asks for.
        if hasattr(config, "unsafe_treat_script_objects_as_zero_size"):
            config.unsafe_treat_script_objects_as_zero_size = True
        return
    for block in model.layers[: blocks_computed_again(len(model.layers), budget)]:
        block.forward = _computed_again(block.forward)  # type: ignore[method-assign]


def blocks_computed_again(blocks: int, budget: float) -> int:
    """Return how many of a model's first blocks a budget does not cover, not compiled."""
    return round(blocks * (1 - budget))


def _computed_again(forward: Any) -> Any:
    def run(*inputs: Any) -> Any:
        return checkpoint(forward, *inputs, use_reentrant=False) if torch.is_grad_enabled() else forward(*inputs)

    return run
