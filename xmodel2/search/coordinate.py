"""Coordinate check: do activations keep their size as width grows? They do under tensor programs, and not otherwise.

Models of several widths (same depth, same head width) take a few AdamW steps on the same random tokens; after them the mean
size of each layer class's output is recorded. Growth is the slope of log2(size) by log2(width): 0 is flat.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from xmodel2.model import Xmodel2, tensor_program
from xmodel2.recipe import ModelSettings, TrainSettings
from xmodel2.train.optimizer import build_optimizer

HEAD_DIM, LAYERS, VOCAB_SIZE, ROWS, LENGTH = 32, 2, 256, 4, 32


@dataclass(frozen=True)
class CoordinateResult:
    """Sizes and how they grow."""

    sizes: dict[str, dict[int, float]]
    """Layer class to width to mean absolute output after the last step."""
    growth: dict[str, float]
    """Layer class to slope in doublings of size per doubling of width."""

    @property
    def worst_growth(self) -> float:
        """The steepest upward slope of any layer class."""
        return max(self.growth.values())


def coordinate_check(
    widths: Sequence[int] = (64, 128, 256),
    steps: int = 3,
    parametrization: Literal["tensor_program", "standard"] = "tensor_program",
    seed: int = 0,
) -> CoordinateResult:
    """Train one small model a width for ``steps`` and compare the sizes of what its layers put out."""
    sizes: dict[str, dict[int, float]] = {}
    for width in widths:
        for name, size in _sizes(width, steps, parametrization, seed).items():
            sizes.setdefault(name, {})[width] = size
    return CoordinateResult(sizes, {name: _slope(by_width) for name, by_width in sizes.items()})


def _sizes(
    width: int, steps: int, parametrization: Literal["tensor_program", "standard"], seed: int
) -> dict[str, float]:
    settings = ModelSettings(
        hidden_size=width,
        intermediate_size=5 * width // 2,
        num_hidden_layers=LAYERS,
        num_attention_heads=width // HEAD_DIM,
        num_key_value_heads=1,
        vocab_size=VOCAB_SIZE,
        max_position_embeddings=LENGTH,
        dim_model_base=64,
        parametrization=parametrization,
    )
    model = Xmodel2(settings)
    tensor_program.initialise(model, seed)
    optimizer = build_optimizer(model.named_parameters(), settings, TrainSettings(learning_rate=0.01))
    tokens = torch.randint(VOCAB_SIZE, (ROWS, LENGTH + 1), generator=torch.Generator().manual_seed(seed))
    for _ in range(steps):
        logits_BSV = model(tokens[:, :-1])
        F.cross_entropy(logits_BSV.flatten(0, 1), tokens[:, 1:].flatten()).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    sizes: dict[str, float] = {}

    def record(name: str, part: nn.Module) -> None:
        part.register_forward_hook(lambda _m, _i, out: sizes.__setitem__(name, float(out.detach().abs().mean())))

    last = model.layers[-1]
    record("embedding", model.embed_tokens)
    record("attention", last.self_attn)  # type: ignore[arg-type]
    record("feed-forward", last.mlp)  # type: ignore[arg-type]
    record("residual stream", last)
    with torch.no_grad():
        sizes["logits"] = float(model(tokens[:, :-1]).abs().mean())
    return sizes


def _slope(by_width: dict[int, float]) -> float:
    x = [math.log2(width) for width in by_width]
    y = [math.log2(size) for size in by_width.values()]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    return sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / sum((a - mean_x) ** 2 for a in x)
