"""Settings under which a step fits into memory, and what a run says whose memory ran out."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from xmodel2.errors import XmodelError
from xmodel2.model.gpu_kernels import can_use
from xmodel2.recipe import Recipe
from xmodel2.recipe.settings import ParallelSettings
from xmodel2.train.device import can_compile, pick_device
from xmodel2.train.memory import Layout, MemoryPlan, memory_plan
from xmodel2.train.world import mesh_shape

_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""Of a container's memory, by Linux's second and first control groups."""
HEADROOM = 0.10
"""Share of a device's memory that a plan leaves free: context, fragments, what other libraries hold."""
BUDGETS = (1.0, 0.75, 0.5, 0.25, 0.0)


def with_settings(recipe: Recipe, rows: int, budget: float, parallel: ParallelSettings | None = None) -> Recipe | None:
    """Return the recipe with another ``train.micro_batch_size``, ``train.activation_memory_budget`` and layout.

    None if its other settings do not allow that.
    """
    train = replace(recipe.train, micro_batch_size=rows, activation_memory_budget=budget)
    try:
        return replace(recipe, train=train, parallel=parallel or recipe.parallel)
    except ValueError:
        return None


Plan = Callable[[Recipe], MemoryPlan]
"""`memory_plan` of one layout, precision and device."""


def lighter(recipe: Recipe, layout: Layout, plan: Plan, limit: float) -> Recipe | None:
    """Return the recipe with the largest micro-batch that needs at most ``limit`` bytes; only if none does, with a smaller budget.

    Neither key changes what is learnt, only how it is computed. None if nothing fits.
    """
    rows, train = recipe.batch_rows // layout.data, recipe.train
    sizes = [size for size in range(train.micro_batch_size, 0, -1) if rows % size == 0]
    for budget in (budget for budget in BUDGETS if budget <= train.activation_memory_budget):
        for size in sizes:
            tried = with_settings(recipe, size, budget)
            if tried and plan(tried).peak <= limit:
                return tried
    return None


def changed_settings(before: Recipe, after: Recipe) -> str:
    """Return the --set arguments that make one recipe of the other, as far as memory and layout go.

    >>> changed_settings(Recipe(), with_settings(Recipe(), 2, 1.0) or Recipe())
    '--set train.micro_batch_size=2'
    """
    pairs = [
        f"{room}.{key}={getattr(getattr(after, room), key)}"
        for room, keys in (
            ("train", ("micro_batch_size", "activation_memory_budget")),
            ("parallel", tuple(before.parallel.__dataclass_fields__)),
        )
        for key in keys
        if getattr(getattr(after, room), key) != getattr(getattr(before, room), key)
    ]
    return f"--set {' '.join(pairs)}" if pairs else ""


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that memory ran out, of a GPU or of the process."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and any(
        said in text for said in ("can't allocate memory", "not enough memory", "bad_alloc", "CUDA out of memory")
    )


@contextmanager
def explained(recipe: Recipe, world_size: int) -> Iterator[None]:
    """Raise `XmodelError` with what is needed and what to change where memory runs out; let other errors pass.

    The recipe's precision and device are those that the run resolved.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise XmodelError(out_of_memory_message(recipe, world_size, error)) from error


def out_of_memory_message(recipe: Recipe, world_size: int, error: BaseException) -> str:
    """Return what a run whose memory ran out needs, by part, and the setting to change."""
    here = pick_device(recipe.train.device)
    memory = total_memory(here)
    needs, advice = _needs(recipe, world_size, here, memory, _planner(recipe, world_size, here))
    said = str(error).strip().partition("\n")[0] or type(error).__name__
    return f"memory ran out on a {here.type} of {size_text(memory)}: {needs}; run it again with {advice} PyTorch said: {said}"


def shortage(recipe: Recipe, world_size: int) -> str:
    """Return what a run on a CPU that has too little memory is told before its first step, else nothing.

    Linux hands out more memory than there is, and kills without a word who uses it.
    """
    here = pick_device(recipe.train.device)
    if here.type != "cpu":
        return ""
    memory = total_memory(here) / int(os.environ.get("LOCAL_WORLD_SIZE") or 1)  # processes of this machine
    plan = _planner(recipe, world_size, here)
    if plan(recipe).peak <= memory:
        return ""
    needs, advice = _needs(recipe, world_size, here, memory, plan)
    return f"this may be more than memory holds, {size_text(memory)} a process: {needs}; if it is killed, use {advice}"


def _planner(recipe: Recipe, world_size: int, here: torch.device) -> Plan:
    """Return what plans recipes like one that runs ``here``."""
    train = recipe.train
    return partial(
        memory_plan,
        precision="bf16" if train.precision == "auto" else train.precision,
        layout=Layout(*mesh_shape(recipe, world_size)),
        compiled=train.compile and can_compile(here),
        device=here.type,
        kernels=can_use(here),
    )


def _needs(recipe: Recipe, world_size: int, here: torch.device, memory: float, plan: Plan) -> tuple[str, str]:
    """Return what a recipe needs by part, and the settings that need less than ``memory`` and less than that."""
    planned = plan(recipe)
    parts = ", ".join(f"{name} {size_text(size)}" for name, size in planned.parts.items() if size)
    # What was planned did not fit, whatever the device has: others may use it as well.
    limit = (1 - HEADROOM) * min(memory, planned.peak)
    found = lighter(recipe, Layout(*mesh_shape(recipe, world_size)), plan, limit)
    more = "machines" if here.type == "cpu" else "processes"  # on one machine they share its memory
    advice = f"more {more}, so that parallel.data_parallel_shard divides weights and moments, or a smaller model"
    if found is not None:
        advice = f"{changed_settings(recipe, found)}, which needs about {size_text(plan(found).peak)}"
    return (
        f"this recipe needs about {size_text(planned.peak)} for tensors on each of {world_size} in the {planned.phase} ({parts})",
        f"{advice}. `xmodel2 plan` shows other layouts.",
    )


def total_memory(device: torch.device) -> int:
    """Return the bytes that a GPU has, or that the machine of a CPU has and a container leaves us."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    sizes = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in _LIMITS:
        with suppress(OSError, ValueError):  # not there, or "max"
            sizes.append(int(path.read_text()))
    return min(sizes)


def size_text(size: float) -> str:
    """Return bytes for a reader.

    >>> size_text(20_500_000_000), size_text(51_000_000)
    ('20.5 GB', '51 MB')
    """
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.0f} MB"
