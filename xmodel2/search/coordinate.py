"""Coordinate check: do activations, and how much training changes them, keep their size as width grows? By Table 6 they do.

    recipe -> a small model a size and seed -> RMS at the start and of the change after each step -> slopes -> findings

The model, its start, its optimizer and its step are those of `xmodel2 train`; what it learns is one batch of random pieces,
which is also what it is measured on. What else would tilt the slopes is kept out:

* 32 tokens, half of the narrowest width. A gradient of T tokens has rank T: with more tokens than that, a narrow model's
  updates fill all directions and a wide one's do not (Muon over 64 to 512: 0.08 in attention with 128 tokens, 0.05 with 32).
* A twentieth of the recipe's rate, without a warm-up. At the whole rate the first updates are as large as the weights, which
  real runs never see: activations saturate, with slopes to -0.27 over 64 to 512 though all rules are on, and a rate without
  its 1/m begins at 0.3 instead of 0.6.
* RMS over positions, layers and seeds: theory speaks of squares, and the mean is taken before the root.
* The change of logits is that of the logit of the piece that follows, which training moves. All other logits move by chance
  only, with a mean square c + d / width: that is still falling at these widths (-0.4), is reported as `all logits`, and is
  held to nothing. For the same reason logits at the start may fall, as 1 / sqrt(width), but not grow.

Attention and feed-forward are measured before the residual multiplier, whose effect is the stream's. Over depth only the start is
held: Table 6 has no rule that scales the rate with depth, and the change does grow with it, all rules on (docs/wind-tunnel.md).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from xmodel2.data.batch import Batch
from xmodel2.model import Xmodel2, tensor_program
from xmodel2.recipe import Recipe, replace
from xmodel2.search.rates import at_rate
from xmodel2.search.sizes import at_size, at_width
from xmodel2.train.device import pick_device
from xmodel2.train.optimizer import build_optimizer
from xmodel2.train.step import TrainStep, to_device

ROWS, LENGTH, VOCAB_SIZE = 2, 16, 256
RATE_SHARE = 0.05
"""Of the recipe's rate."""
LAYERS = 2
"""Of the models of all widths."""
BOUND = 0.05
"""On slopes, in doublings a doubling."""
ORDER_ONE = (10**-0.5, 10**0.5)
"""RMS whose nearest power of ten is 1."""

HIDDEN = ("embedding", "queries, keys, values", "attention", "feed-forward", "residual stream")
LOGITS, ALL_LOGITS = "logits", "all logits"
CLASSES = (*HIDDEN, LOGITS, ALL_LOGITS)

Squares = dict[str, list[float]]
"""Layer class to mean square [at the start, of the change after step 1, 2, ...] of one model."""


@dataclass(frozen=True)
class Series:
    """One parametrisation over one axis."""

    sizes: tuple[int, ...]
    """Widths, or numbers of layers."""
    rms: dict[str, list[list[float]]]
    """Layer class to, by size, RMS [at the start, of the change after step 1, 2, ...]."""

    def slope(self, name: str, step: int) -> float:
        """Return the slope of log(RMS) by log(size) of a class, at the start (0) or of its change after a step."""
        values = [row[step] for row in self.rms[name]]
        if not all(0 < value < math.inf for value in values):
            return math.nan
        return float(np.polyfit(np.log2(self.sizes), np.log2(values), 1)[0])

    def steepest_change(self, name: str) -> float:
        """Return the slope of the change after the step at which it is furthest from 0; NaN if there is one."""
        slopes = [self.slope(name, step) for step in range(1, len(self.rms[name][0]))]
        return math.nan if any(map(math.isnan, slopes)) else max(slopes, key=abs)


@dataclass(frozen=True)
class Finding:
    """A figure and the range it is held to."""

    criterion: str
    """`start of order one`, `start over width`, `change over width` or `start over depth`."""
    layer_class: str
    figure: float
    """RMS in `start of order one`, else a slope."""
    low: float | None
    """None: no bound below."""
    high: float

    @property
    def held(self) -> bool:
        """Whether the figure is a number within its range."""
        return (-math.inf if self.low is None else self.low) <= self.figure <= self.high


def findings(width: Series, depth: Series) -> list[Finding]:
    """Return every criterion's figure; one rule of Table 6 at least is broken if any is not held.

    start of order one   RMS of the embedding's output, the width at which it is furthest from 1       embedding
    start over width     slope of RMS at the start; logits may fall                                    initialisation, head
    change over width    slope of RMS of the change, after the step at which it is steepest            learning rate, head
    start over depth     as over width                                                                 residual
    """
    start = max((row[0] for row in width.rms[HIDDEN[0]]), key=lambda rms: abs(math.log(rms)) if rms > 0 else math.inf)
    found = [Finding("start of order one", HIDDEN[0], start, *ORDER_ONE)]
    for axis, series in (("width", width), ("depth", depth)):
        for name in (*HIDDEN, ALL_LOGITS):
            low, shown = (None, LOGITS) if name == ALL_LOGITS else (-BOUND, name)
            found.append(Finding(f"start over {axis}", shown, series.slope(name, 0), low, BOUND))
        if axis == "width":
            changes = [(name, series.steepest_change(name)) for name in (*HIDDEN, LOGITS)]
            found += [Finding("change over width", name, slope, -BOUND, BOUND) for name, slope in changes]
    return found


def probe_recipe(recipe: Recipe, changes: dict[str, Any] | None = None) -> Recipe:
    """Return what is measured in a recipe's place: its rules and optimizer, with few layers, pieces and tokens."""
    return replace(
        at_rate(recipe, RATE_SHARE),
        {
            "model.num_hidden_layers": LAYERS,
            "model.vocab_size": VOCAB_SIZE,
            "model.max_position_embeddings": LENGTH,
            "data.sequence_length": LENGTH,
            "data.mask_documents": False,
            "train.warmup_steps": 0,
            "train.batch_tokens": ROWS * LENGTH,
            "train.micro_batch_size": ROWS,
            "train.precision": "fp32",
            "train.float8": False,
            "train.compile": False,
            "train.compile_mode": "default",
            "train.attention": "auto",
            "train.activation_memory_budget": 1.0,
            "parallel.context_parallel": 1,
            **(changes or {}),
        },
    )


def measure(recipe: Recipe, seed: int, steps: int) -> Squares:
    """Train the model of a `probe_recipe` from ``seed`` for ``steps`` and return what its activations did."""
    device = pick_device(recipe.train.device)
    with torch.device(device):
        model = Xmodel2(recipe.model)
    tensor_program.initialise(model, seed)
    step = TrainStep(model, recipe, "fp32", device)
    optimizer = build_optimizer(model.named_parameters(), recipe.model, recipe.train)
    batch = probe_batch(seed)

    def update() -> None:
        _, norm = step.gradients(batch, float(batch.targets.size))
        step.apply(optimizer, norm)

    return watch(model, batch, update, steps)


def probe_batch(seed: int) -> Batch:
    """Return rows of random pieces, to learn by heart and to be measured on."""
    tokens = np.random.default_rng(seed).integers(VOCAB_SIZE, size=(ROWS, LENGTH + 1))
    return Batch(tokens[:, :-1], tokens[:, 1:], np.zeros((ROWS, LENGTH), np.int32), ["random"] * ROWS)


def watch(model: Xmodel2, batch: Batch, update: Callable[[], None], steps: int) -> Squares:
    """Call ``update`` ``steps`` times and return what the activations of a batch did."""
    start = _activations(model, batch)
    squares = {name: [_mean_square(parts)] for name, parts in start.items()}
    for _ in range(steps):
        update()
        for name, parts in _activations(model, batch).items():
            squares[name].append(_mean_square([now - old for now, old in zip(parts, start[name], strict=True)]))
    return squares


def series(sizes: Sequence[int], measured: dict[int, list[Squares]]) -> Series:
    """Return the root of the mean over seeds of what was measured, ``measured`` by size."""
    rms = {
        name: [np.sqrt(np.mean([squares[name] for squares in measured[size]], axis=0)).tolist() for size in sizes]
        for name in CLASSES
    }
    return Series(tuple(sizes), rms)


def coordinate_check(
    recipe: Recipe,
    widths: Sequence[int] = (128, 512),
    depths: Sequence[int] = (2, 16),
    seeds: int = 3,
    steps: int = 2,
) -> list[Finding]:
    """Return the findings of a check of seconds: two sizes an axis, far enough apart that a few seeds are enough."""
    base = at_width(probe_recipe(recipe), min(widths))
    over = {}
    for axis, sizes in (("width", widths), ("depth", depths)):
        models = {size: at_size(base, axis, size) for size in sizes}
        measured = {
            size: [measure(model, seed, steps if axis == "width" else 0) for seed in range(seeds)]
            for size, model in models.items()
        }
        over[axis] = series(sizes, measured)
    return findings(over["width"], over["depth"])


def _mean_square(parts: list[torch.Tensor]) -> float:
    return float(torch.stack([part.double().square().mean() for part in parts]).mean())


@torch.no_grad()
def _activations(model: Xmodel2, batch: Batch) -> dict[str, list[torch.Tensor]]:
    """Return what each layer class puts out for the batch, a tensor a layer."""
    found: dict[str, list[torch.Tensor]] = {name: [] for name in CLASSES}
    hooks = []

    def record(module: nn.Module, name: str) -> None:
        hooks.append(module.register_forward_hook(lambda _m, _i, out: found[name].append(out)))

    first, last = model.layers[0], model.layers[-1]
    hooks.append(first.register_forward_pre_hook(lambda _m, inputs: found["embedding"].append(inputs[0])))
    for block in model.layers:
        record(block.self_attn.qkv_proj, "queries, keys, values")  # type: ignore[union-attr, arg-type]
        record(block.self_attn, "attention")  # type: ignore[arg-type]
        record(block.mlp, "feed-forward")  # type: ignore[arg-type]
    record(last, "residual stream")
    model.kernels = False  # before the residual multiplier, as elsewhere
    try:
        logits_BSV = model(to_device(batch.inputs, model.embed_tokens.weight.device))
    finally:
        model.kernels = True
        for hook in hooks:
            hook.remove()
    next_BS1 = to_device(batch.targets, logits_BSV.device)[..., None]
    return {**found, LOGITS: [logits_BSV.gather(-1, next_BS1)], ALL_LOGITS: [logits_BSV]}
