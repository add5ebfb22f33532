"""Width rules of Table 6 beside those of the reference library `mup`, on one network: slopes of the coordinate check.

    python -m benchmarks.coordinate [--quick] [--json]

Both train the decoder with the same constants at width 256 (its `dim_model_base`, mup's base shape); how initialisation, rate
and head follow the width is ours in one (`model/tensor_program.py`, our optimizer) and mup's in the other (`set_base_shapes`,
`mup.init`, `MuAdamW`, `MuSharedReadout`). Measured as `search/coordinate.py` does. `ours` is the largest slope, away from 0, of
the change of any layer class after any step; the limit is the bound it is held to.

    pip install -c constraints.txt --no-deps mup        (it asks for torchvision and seaborn, which this needs neither of)
"""

import argparse
from collections.abc import Callable

import torch
import torch.nn.functional as F

from benchmarks.harness import Result, argument_parser, machine
from xmodel2.model import Xmodel2
from xmodel2.recipe import ModelSettings, Recipe, replace
from xmodel2.search.coordinate import (
    BOUND,
    HIDDEN,
    LOGITS,
    Series,
    Squares,
    measure,
    probe_batch,
    probe_recipe,
    series,
    watch,
)
from xmodel2.search.sizes import at_width
from xmodel2.train.step import to_device

try:
    import mup
except ImportError:
    mup = None

WIDTHS = (64, 128, 256, 512, 1024, 2048)
OFF = ["initialisation", "learning_rate", "head"]
"""Our rules over width, which mup's take the place of."""


class MupDecoder(Xmodel2):
    """The decoder with the head of mup."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__(settings)
        self.readout = mup.MuSharedReadout(self.embed_tokens.weight, bias=False)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """[..., H] to [..., V]."""
        return self.readout(hidden)


def main() -> None:
    """Measure, compare, print."""
    parser = argument_parser(__doc__, "widths to 512, two seeds, four steps")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--steps", type=int, default=8)
    options = _reduced(parser.parse_args())
    recipe = probe_recipe(_recipe())
    sides: dict[str, Callable[[Recipe, int, int], Squares]] = {"ours": measure}
    if mup is not None:
        sides["mup"] = _measure_mup
    measured: dict[str, dict[int, list[Squares]]] = {name: {width: [] for width in options.widths} for name in sides}
    for width in options.widths:
        for seed in range(options.seeds):
            for name, side in sides.items():
                measured[name][width].append(side(at_width(recipe, width), seed, options.steps))
    slopes = {name: _steepest(series(options.widths, found)) for name, found in measured.items()}
    ours, *peer = (max(map(abs, found.values())) for found in slopes.values())
    Result(
        name="coordinate",
        machine=machine(),
        ours=ours,
        peers=dict(zip(["mup"], peer, strict=False)),
        unit="slope of log(change) by log(width)",
        ratio_to_best_peer=ours / peer[0] if peer else None,
        share_of_limit=ours / BOUND,
        limit=BOUND,
        notes=f"widths {options.widths[0]} to {options.widths[-1]}, {options.seeds} seeds, the steepest of steps 1 to"
        f" {options.steps}; "
        + "; ".join(f"{side}: {', '.join(f'{k} {v:+.4f}' for k, v in found.items())}" for side, found in slopes.items())
        + ("" if peer else "; mup is not installed"),
    ).show(options.json)


def _reduced(options: argparse.Namespace) -> argparse.Namespace:
    options.widths = WIDTHS
    if options.quick:
        options.widths, options.seeds, options.steps = WIDTHS[:4], 2, 4
    return options


def _recipe() -> Recipe:
    sizes = {"hidden_size": 128, "intermediate_size": 320, "num_attention_heads": 4, "num_key_value_heads": 2}
    # mup keeps rate x decay as it is over width
    other = {"model.dim_model_base": 256, "train.weight_decay_scaling": "constant"}
    return replace(Recipe(), {**{f"model.{key}": value for key, value in sizes.items()}, **other})


def _measure_mup(recipe: Recipe, seed: int, steps: int) -> Squares:
    """Return what activations do when mup's rules stand in for ours over width."""
    with torch.device("meta"):
        shapes = [MupDecoder(at_width(recipe, width).model) for width in (256, 128)]
    model, train = MupDecoder(replace(recipe, {"model.rules_off": OFF}).model), recipe.train
    mup.set_base_shapes(model, shapes[0], delta=shapes[1], rescale_params=False)
    torch.manual_seed(seed)
    matrices: list[torch.nn.Parameter] = []
    others: list[torch.nn.Parameter] = []
    for parameter in model.parameters():
        if parameter.dim() == 2:
            mup.init.normal_(parameter, std=recipe.model.init_std)
        matrix_like = parameter.infshape.ninf() == 2  # type: ignore[attr-defined]
        (matrices if matrix_like else others).append(parameter)
    optimizer = mup.MuAdamW(
        [{"params": matrices, "weight_decay": train.weight_decay}, {"params": others, "weight_decay": 0.0}],
        lr=train.learning_rate,
        betas=(train.adam_beta1, train.adam_beta2),
        eps=train.adam_eps,
    )
    batch = probe_batch(seed)
    inputs, targets = (to_device(array, torch.device("cpu")) for array in (batch.inputs, batch.targets))

    def update() -> None:
        F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), train.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return watch(model, batch, update, steps)


def _steepest(found: Series) -> dict[str, float]:
    return {name: found.steepest_change(name) for name in (*HIDDEN, LOGITS)}


if __name__ == "__main__":
    main()
