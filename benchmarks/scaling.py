"""How the seconds of a step grow as width, depth, rows and sequence double, beside the FLOPs that they ask for.

    python -m benchmarks.scaling [--quick] [--json] [--figure docs/images/scaling.svg]

Each axis doubles from one common shape. `ours` is the largest exponent e of seconds = c FLOPs^e among the axes: 1 is a cost
that grows as the FLOPs do, less is overhead that larger shapes pay off. The figure has the measured seconds of each axis, and
what the FLOPs would take at the matrix-product rate of the same rounds.
"""

import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from matplotlib.figure import Figure

from benchmarks.harness import Result, argument_parser, machine
from benchmarks.train_step import Ours
from xmodel2 import plots
from xmodel2.model.count import flops_per_token
from xmodel2.recipe import Recipe, recipe_from_dict
from xmodel2.train.device import matmul_rate, pick_device, pick_precision

BASE = {"width": 128, "depth": 4, "rows": 4, "sequence": 256}
DOUBLINGS = {"width": 4, "depth": 4, "rows": 4, "sequence": 4}


def main() -> None:
    """Measure, draw and print."""
    parser = argument_parser(__doc__, "two doublings an axis, not compiled")
    parser.add_argument("--figure", type=Path, help=".svg or .png to draw into")
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    device = pick_device("auto")
    torch._dynamo.config.recompile_limit = 64  # every shape compiles the same functions
    doublings = 2 if options.quick else None
    shapes = [
        {**BASE, axis: BASE[axis] * 2**n} for axis, most in DOUBLINGS.items() for n in range((doublings or most) + 1)
    ]
    unique = list({tuple(shape.values()): shape for shape in shapes}.values())
    base = recipe_of(BASE, compiled=not options.quick)
    tokens = base.train.batch_tokens
    precision, _ = pick_precision("auto", device, tokens, base.model)
    recipes = {tuple(shape.values()): recipe_of(shape, compiled=not options.quick) for shape in unique}
    runs = {key: _timed(recipe, precision, device) for key, recipe in recipes.items()}
    rates: list[float] = []
    seconds: dict[tuple[int, ...], list[float]] = {key: [] for key in runs}
    for _ in range(3 if options.quick else options.repeats):
        for key, run in runs.items():
            seconds[key].append(run())
        rates.append(matmul_rate(device, precision, tokens, recipes[tuple(BASE.values())].model, seconds=0.2))
    peak = statistics.median(rates)
    axes = {}
    for axis in DOUBLINGS:
        keys = [tuple(shape.values()) for shape in shapes if all(shape[n] == BASE[n] for n in BASE if n != axis)]
        keys = list(dict.fromkeys(keys))
        flops = [_flops(recipes[key]) for key in keys]
        axes[axis] = (
            [dict(zip(BASE, key, strict=True))[axis] for key in keys],
            flops,
            [statistics.median(seconds[key]) for key in keys],
        )
    exponents = {axis: _exponent(flops, taken) for axis, (_, flops, taken) in axes.items()}
    if options.figure:
        _draw(axes, peak, options.figure)
    shares = {axis: taken_share(flops, taken, peak) for axis, (_, flops, taken) in axes.items()}
    Result(
        name="scaling",
        machine=machine(),
        ours=max(exponents.values()),
        peers={},
        unit="exponent of seconds by FLOPs, the largest of four axes",
        ratio_to_best_peer=None,
        share_of_limit=None,
        limit=1.0,
        notes=f"from {BASE}, {precision}: "
        + "; ".join(
            f"{axis} {values[0]}..{values[-1]}: exponent {exponents[axis]:.2f}, MFU {shares[axis][0]:.0%} to"
            f" {shares[axis][1]:.0%}"
            for axis, (values, _, _) in axes.items()
        ),
    ).show(options.json)


def recipe_of(shape: dict[str, int], compiled: bool) -> Recipe:
    """Return a recipe of one step of a shape."""
    heads = shape["width"] // 64
    return recipe_from_dict(
        {
            "model": {
                "hidden_size": shape["width"],
                "intermediate_size": shape["width"] * 5 // 2,
                "num_hidden_layers": shape["depth"],
                "num_attention_heads": heads,
                "num_key_value_heads": max(1, heads // 4),
                "vocab_size": 4096,
                "dim_model_base": 64,
            },
            "data": {"sequence_length": shape["sequence"], "mask_documents": False},
            "train": {
                "micro_batch_size": shape["rows"],
                "batch_tokens": shape["rows"] * shape["sequence"],
                "compile": compiled,
            },
        }
    )


def taken_share(flops: list[float], seconds: list[float], peak: float) -> tuple[float, float]:
    """Return the share of the matrix-product rate at an axis's first and last shape."""
    return flops[0] / seconds[0] / peak, flops[-1] / seconds[-1] / peak


def _flops(recipe: Recipe) -> float:
    return recipe.train.batch_tokens * flops_per_token(recipe.model, recipe.data.sequence_length)


def _timed(recipe: Recipe, precision: str, device: torch.device) -> Callable[[], float]:
    step = Ours(recipe, precision, device)
    for _ in range(2):
        step(packed=False)

    def run() -> float:
        started = time.perf_counter()
        for _ in range(2):
            step(packed=False)
        return (time.perf_counter() - started) / 2

    return run


def _exponent(flops: list[float], seconds: list[float]) -> float:
    x, y = [math.log(f) for f in flops], [math.log(s) for s in seconds]
    return statistics.linear_regression(x, y).slope


def _draw(axes: dict[str, tuple[list[int], list[float], list[float]]], peak: float, path: Path) -> None:
    figure = Figure(figsize=(11, 2.9), layout="constrained")
    panels = figure.subplots(1, len(axes), sharey=True)
    for panel, (axis, (values, flops, seconds)) in zip(panels, axes.items(), strict=True):
        panel.loglog(values, seconds, "o-", color=plots.BLUE, label="measured", base=2)
        panel.loglog(
            values,
            [f / peak for f in flops],
            "--",
            color=plots.GREY,
            label="its FLOPs at a matrix product's rate",
            base=2,
        )
        panel.set_xlabel(axis)
        panel.set_xticks(values, [str(value) for value in values])
        panel.minorticks_off()
    panels[0].set_ylabel("seconds a step")
    panels[0].legend(fontsize=7)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


if __name__ == "__main__":
    main()
