"""What a recipe will need and cost on some devices, before anything is paid for.

    recipe, devices -> layout -> memory by part (`memory`) -> does it fit? -> other layouts -> tokens/s from MFU -> days, cost

MFU here is as metrics.jsonl states it: on a GPU `mfu_nominal`, full-attention FLOPs over the data sheet's; on a CPU `mfu`,
causal FLOPs over those of a matrix product measured on this machine.
"""

import math
import shutil
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from xmodel2.cores import usable_cores
from xmodel2.errors import XmodelError
from xmodel2.model.count import block_parameter_count, flops_per_token, parameter_count
from xmodel2.recipe import Recipe, load_recipe
from xmodel2.train.device import can_compile, pick_precision
from xmodel2.train.devices import Device, cpu_mfu, find_device
from xmodel2.train.guard import rollback_reach
from xmodel2.train.memory import Layout, memory_plan
from xmodel2.train.metrics import read_metrics
from xmodel2.train.out_of_memory import (
    BUDGETS,
    HEADROOM,
    Plan,
    changed_settings,
    is_out_of_memory,
    lighter,
    with_settings,
)
from xmodel2.train.run_dir import RECIPE_FILE
from xmodel2.train.world import largest_divisor, mesh_shape

MICRO_TOKENS = 1 << 16
"""Tokens of a micro-batch on a rank above which nothing becomes faster: no more are proposed."""
SHOWN = 8
"""Layouts that are proposed."""


@dataclass(frozen=True)
class Target:
    """What the run is planned for."""

    device: Device
    count: int
    precision: str
    compiled: bool
    rate: float
    """FLOP/s of one device that MFU is a share of."""
    mfu: float
    mfu_from: str
    price: float
    price_from: str

    @property
    def kind(self) -> str:
        """Kind of device in PyTorch."""
        return "cpu" if self.device.name == "cpu" else "cuda"

    @property
    def limit(self) -> float:
        """Bytes that a plan may use."""
        return (1 - HEADROOM) * self.device.memory

    def plan(self, layout: Layout) -> Plan:
        """Return what plans the memory of recipes in a layout."""
        return partial(memory_plan, precision=self.precision, layout=layout, compiled=self.compiled, device=self.kind)


def plan_run(
    recipe: Recipe,
    devices: int = 1,
    device: str = "h200",
    mfu: float | None = None,
    price: float | None = None,
    measured: Path | None = None,
) -> dict[str, Any]:
    """Return parameters, FLOPs, memory, layouts, speed, days and cost; sizes in bytes, prices in US dollars.

    ``mfu`` is a share, or is read from the run directory ``measured``. If the recipe's layout does not go on so many devices, one
    that does is planned, and ``advice`` says so. Raises `XmodelError` for an unknown device, for figures out of range, and if no
    layout goes.
    """
    target = _target(recipe, devices, device, mfu, price, measured)
    alternatives = _alternatives(recipe, target)
    layout, planned, refused = _own_layout(recipe, devices, alternatives)
    memory = target.plan(layout)(planned)
    own = _option(planned, layout, recipe, target)
    others = [_option(tried, place, recipe, target) for place, tried in alternatives]
    fits = memory.peak <= target.limit
    model, length = recipe.model, recipe.data.sequence_length
    return {
        "recipe": recipe.name,
        "device": target.device.name,
        "devices": devices,
        "precision": target.precision,
        "model": {
            "parameters": parameter_count(model),
            "parameters in blocks": block_parameter_count(model),
            "FLOPs a token": flops_per_token(model, length),
            "FLOPs a token, full attention": flops_per_token(model, length, causal=False),
        },
        "stages": {
            "stable": {"steps": recipe.stable_steps, "tokens": recipe.stable_steps * recipe.train.batch_tokens},
            "decay": {"steps": recipe.decay_steps, "tokens": recipe.decay_steps * recipe.train.batch_tokens},
        },
        "FLOPs": flops_per_token(model, length) * recipe.total_steps * recipe.train.batch_tokens,
        "memory": {
            "phase": memory.phase,
            "parts": {name: size for name, size in memory.parts.items() if size},
            "phases": {name: sum(parts.values()) for name, parts in memory.phases.items()},
            "peak": memory.peak,
            "device": target.device.memory,
            "fits": fits,
            "host": memory.host,
        },
        "layout": own,
        "alternatives": others,
        "advice": refused if refused or fits else _advice(recipe, layout, others, target),
        "speed": {
            "mfu": own["mfu"],
            "mfu from": target.mfu_from,
            "FLOP/s of a device": target.rate,
            "tokens per second": own["tokens per second"],
            "days": own["days"],
            "device hours": own["days"] * 24 * devices,
            "dollars a device hour": target.price,
            "price from": target.price_from,
            "dollars": own["days"] * 24 * devices * target.price,
        },
        "checkpoints": _checkpoints(recipe, target),
    }


def _own_layout(recipe: Recipe, devices: int, alternatives: list[tuple[Layout, Recipe]]) -> tuple[Layout, Recipe, str]:
    """Return the recipe's layout; or the first that goes on so many devices, the recipe changed to it, and why its own does not.

    Raises `XmodelError` if none does.
    """
    try:
        return Layout(*mesh_shape(recipe, devices)), recipe, ""
    except XmodelError as error:
        if not alternatives:
            raise
        layout, changed = alternatives[0]
        return layout, changed, f"planned with {changed_settings(recipe, changed)}, since as it is: {error}"


def _target(
    recipe: Recipe, count: int, name: str, mfu: float | None, price: float | None, measured: Path | None
) -> Target:
    device = find_device(name)
    if count < 1:
        raise XmodelError(f"--devices {count}: must be at least 1")
    if device.flops is None:  # this machine, whose processes share it
        device = replace(device, memory=device.memory // count, price=device.price / count)
        price = price and price / count
    if mfu is not None and measured is not None:
        raise XmodelError("--mfu and --measured both say what share of the FLOP/s is reached; give one")
    if mfu is not None and not 0 < mfu <= 1:
        raise XmodelError(f"--mfu {mfu:g}: a share of the device's FLOP/s, above 0 and at most 1")
    if price is not None and not (math.isfinite(price) and price >= 0):
        raise XmodelError(f"--price-per-hour {price:g}: US dollars an hour of one device, 0 or more")
    precision: str = recipe.train.precision
    rate = device.fp32_flops if precision == "fp32" else device.flops
    if rate is None:
        rows = recipe.train.micro_batch_size * recipe.data.sequence_length
        shape = torch.device("cpu"), min(rows, 4096), recipe.model
        try:
            precision, whole = pick_precision(precision, *shape)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise XmodelError(
                f"this machine has no memory for the model's widest product, {recipe.model.hidden_size} x"
                f" {2 * recipe.model.intermediate_size}, which is measured to plan for a CPU; plan for a GPU with --device"
            ) from None
        rate = whole * min(1.0, usable_cores() / (torch.get_num_threads() * count))
    compiled = recipe.train.compile and (device.flops is not None or can_compile(torch.device("cpu")))
    source = "--mfu"
    if measured is not None:
        mfu, source = measured_mfu(measured, device), f"median of {measured}"
    elif mfu is None:
        mfu, source = device.mfu, "an assumption: measure some steps, and give --measured RUN"
        if device.flops is None:
            mfu, source = cpu_mfu(whole, pick_precision("fp32", *shape)[1]), "benchmarks/README.md"
        mfu *= _slower(recipe)
    return Target(
        device,
        count,
        "bf16" if precision == "auto" else precision,
        compiled,
        rate,
        mfu,
        source,
        device.price if price is None else price,
        "an assumption: give --price-per-hour" if price is None else "--price-per-hour",
    )


def measured_mfu(run_dir: Path, device: Device) -> float:
    """Return the median MFU of a run's steps. Raises `XmodelError` if it has none, or was made on the other kind of device."""
    steps = [line for line in read_metrics(run_dir) if "tokens_per_second" in line]
    if not steps:
        raise XmodelError(f"--measured {run_dir}: no steps in its metrics.jsonl; give the directory of a run")
    key = "mfu" if device.flops is None else "mfu_nominal"
    found = [line[key] for line in steps[min(10, len(steps) // 2) :] if key in line]
    on_cpu = not any("mfu_nominal" in line for line in steps)
    if on_cpu and (run_dir / RECIPE_FILE).exists():
        on_cpu = load_recipe(run_dir / RECIPE_FILE).train.device == "cpu"
    if not found or on_cpu != (device.flops is None):
        where = "a CPU" if on_cpu else "a GPU"
        if not (on_cpu or found or device.flops is None):
            raise XmodelError(f"--measured {run_dir}: was made on a GPU whose FLOP/s are not known here; give --mfu")
        advice = "; give --device cpu, or --mfu" if on_cpu else "; leave --device cpu out, or give --mfu"
        raise XmodelError(f"--measured {run_dir}: was made on {where}, which says nothing about {device.name}{advice}")
    return statistics.median(found)


def _slower(recipe: Recipe) -> float:
    """Share of the speed that is left if activations are computed again: at most another forward pass, a third of a step."""
    return 1 / (1 + (1 - recipe.train.activation_memory_budget) / 3)


def _option(tried: Recipe, layout: Layout, recipe: Recipe, target: Target) -> dict[str, Any]:
    mfu = target.mfu * _slower(tried) / _slower(recipe)
    causal = target.device.flops is None
    per_token = flops_per_token(recipe.model, recipe.data.sequence_length, causal)
    speed = mfu * target.rate * target.count / per_token
    return {
        **layout._asdict(),
        "micro_batch_size": tried.train.micro_batch_size,
        "accumulation": tried.batch_rows // (layout.data * tried.train.micro_batch_size),
        "activation_memory_budget": tried.train.activation_memory_budget,
        "bytes": target.plan(layout)(tried).peak,
        "mfu": mfu,
        "tokens per second": speed,
        "days": recipe.total_steps * recipe.train.batch_tokens / speed / 86400,
        "settings": changed_settings(recipe, tried),
    }


def _alternatives(recipe: Recipe, target: Target) -> list[tuple[Layout, Recipe]]:
    """Return the layouts that fit, each with its largest micro-batch; those that compute and send least first."""
    found = []
    for layout in _layouts(target.count):
        cut = replace(
            recipe.parallel,
            data_parallel_replicate=layout.replicate,
            data_parallel_shard=layout.shard if recipe.parallel.data_parallel_shard else 0,
            context_parallel=layout.context,
            tensor_parallel=layout.tensor,
        )
        rows, rest = divmod(recipe.batch_rows, layout.data)
        largest = max(1, MICRO_TOKENS * layout.context // recipe.data.sequence_length)
        if rest:
            continue
        start = with_settings(recipe, largest_divisor(rows, largest), BUDGETS[0], cut)
        if start is None or not _can_be_cut(start, target.count):
            continue
        tried = lighter(start, layout, target.plan(layout), target.limit)
        if tried is not None:
            found.append((layout, tried))

    def rank(option: tuple[Layout, Recipe]) -> tuple[float, int, int, int]:
        layout, tried = option
        tokens = tried.train.micro_batch_size // layout.context
        return -tried.train.activation_memory_budget, layout.context * layout.tensor, -tokens, layout.shard

    return sorted(found, key=rank)[:SHOWN]


def _layouts(count: int) -> Iterator[Layout]:
    for tensor in (1, 2, 4, 8):
        for context in (1, 2, 4, 8):
            data, rest = divmod(count, tensor * context)
            if not rest and data:
                for shard in (size for size in range(1, data + 1) if data % size == 0):
                    yield Layout(data // shard, shard, context, tensor)


def _can_be_cut(recipe: Recipe, count: int) -> bool:
    try:
        mesh_shape(recipe, count)
    except XmodelError:
        return False
    return True


def _advice(recipe: Recipe, layout: Layout, others: list[dict[str, Any]], target: Target) -> str:
    """Return what to change so that the run fits."""
    same = lighter(recipe, layout, target.plan(layout), target.limit)
    if same is not None:
        return f"does not fit; {changed_settings(recipe, same)} does"
    if others:
        return f"does not fit in this layout; {others[0]['settings']} does"
    for more in (target.count * factor for factor in (2, 4, 8, 16, 32, 64)):
        options = _alternatives(recipe, replace(target, count=more))
        if options:
            return f"does not fit on {target.count}; --devices {more} {changed_settings(recipe, options[0][1])} does"
    return "does not fit in any layout: choose a smaller model.preset or data.sequence_length, or a larger device"


def _checkpoints(recipe: Recipe, target: Target) -> dict[str, Any]:
    """Bytes of a checkpoint (weights and moments in fp32), how many a run keeps, and how many the disk here has room for."""
    train = recipe.train
    whole = target.plan(Layout())(recipe).parts
    size = whole["weights"] + whole["optimizer moments"]
    written = -(-recipe.total_steps // train.checkpoint_every)
    for_good = recipe.total_steps // train.keep_checkpoint_every if train.keep_checkpoint_every else 0
    newest = max(train.keep_checkpoints, 1 + -(-rollback_reach(recipe.guard) // train.checkpoint_every))
    kept = min(newest + 1 + for_good, written + 1)
    return {
        "bytes": size,
        "kept": kept,
        "bytes kept": kept * size,
        "fit on the disk here": shutil.disk_usage(".").free // size,
    }
