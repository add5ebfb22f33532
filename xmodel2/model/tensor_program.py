"""The tensor-program rules, operation by operation (Table 6); m = hidden_size / dim_model_base.

    embedding output    x scale_emb
    block output        x scale_depth / sqrt(num_hidden_layers), before it is added to the residual stream
    LM head             logits x 1 / m
    initialisation      matrix-like tensors: std = init_std / sqrt(m); embedding and head: 0.1; norm weights: 1
    learning rate       matrix-like tensors: lr / m; all others: lr

`parametrization = "standard"` switches all of them off (std 0.02, every multiplier 1), for comparison; `rules_off` names single
ones: their multiplier is then 1, or their division by m is left out.
"""

import math
from collections.abc import Callable

import torch
from torch import nn

from xmodel2.recipe import ModelSettings

EMBEDDING_STD = 0.1
STANDARD_STD = 0.02


def embedding_multiplier(settings: ModelSettings) -> float:
    """Factor on the embedding's output."""
    return settings.scale_emb if _on(settings, "embedding") else 1.0


def residual_multiplier(settings: ModelSettings) -> float:
    """Factor on each block's output before it is added."""
    return settings.scale_depth / math.sqrt(settings.num_hidden_layers) if _on(settings, "residual") else 1.0


def logit_multiplier(settings: ModelSettings) -> float:
    """Factor on the logits."""
    return 1.0 / settings.width_multiplier if _on(settings, "head") else 1.0


def attention_multiplier(settings: ModelSettings) -> float:
    """Factor on query-key products; a setting, since Table 6 has no rule for it."""
    return settings.head_dim**-0.5 if settings.attention_scale == "1/sqrt(head_dim)" else 1.0 / settings.head_dim


def is_matrix_like(name: str, tensor: torch.Tensor) -> bool:
    """Tell whether a tensor maps hidden to hidden, so that both its sides grow with width.

    The embedding table is not: its rows are pieces. Tied to the head, it keeps the base rate, and 1/m on the logits does the rest.
    Nor is a head of its own: only the side that it sums over grows, and the same 1/m makes up for that (muP's rule for an output
    layer, written with a multiplier). So it starts, learns and goes without weight decay as the embedding does.
    """
    return tensor.dim() == 2 and not name.endswith(("embed_tokens.weight", "lm_head.weight"))


def initial_std(name: str, tensor: torch.Tensor, settings: ModelSettings) -> float:
    """Standard deviation of a two-dimensional tensor at the start."""
    if settings.parametrization == "standard":
        return STANDARD_STD
    if not is_matrix_like(name, tensor):
        return EMBEDDING_STD
    m = settings.width_multiplier if _on(settings, "initialisation") else 1.0
    return settings.init_std / math.sqrt(m)


def learning_rate_scale(name: str, tensor: torch.Tensor, settings: ModelSettings) -> float:
    """Factor on the learning rate of one tensor."""
    scaled = _on(settings, "learning_rate") and is_matrix_like(name, tensor)
    return 1.0 / settings.width_multiplier if scaled else 1.0


@torch.no_grad()
def initialise(
    model: nn.Module, seed: int, write: Callable[[torch.Tensor, torch.Tensor], object] = torch.Tensor.copy_
) -> None:
    """Draw every tensor from one CPU generator, in name order, so that the start is the same on every device.

    ``write(parameter, whole)`` puts a drawn tensor where it belongs: whole, or a rank's part of it.
    """
    settings: ModelSettings = model.settings  # type: ignore[assignment]
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in model.named_parameters():
        if tensor.dim() == 1:
            write(tensor, torch.ones(tensor.shape))
        else:
            noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float32)
            write(tensor, noise * initial_std(name, tensor, settings))


def _on(settings: ModelSettings, rule: str) -> bool:
    return settings.parametrization == "tensor_program" and rule not in settings.rules_off
