"""What a step holds in memory by the plan: against real allocations, and in the directions that settings must move it."""

import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch

from xmodel2.data.loader import Batch
from xmodel2.errors import XmodelError
from xmodel2.model import Xmodel2
from xmodel2.model.count import parameter_count
from xmodel2.recipe import Recipe, recipe_from_dict, replace
from xmodel2.train.memory import Layout, memory_plan
from xmodel2.train.optimizer import build_optimizer
from xmodel2.train.out_of_memory import changed_settings, explained, is_out_of_memory, lighter
from xmodel2.train.sharding import draw_weights
from xmodel2.train.step import TrainStep

SETTINGS = {
    "model": {
        "hidden_size": 64,
        "intermediate_size": 160,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 1024,
    },
    "data": {"sequence_length": 128},
    "train": {
        "batch_tokens": 512,
        "micro_batch_size": 4,
        "compile": False,
        "norms_every": 0,
        "async_checkpoint": False,
        "device": "cpu",
    },
}


def recipe_with(**train: object) -> Recipe:
    return recipe_from_dict({**SETTINGS, "train": {**SETTINGS["train"], **train}})


def measured_peak(recipe: Recipe, precision: str) -> int:
    """Return the most bytes of tensors in two steps, from every allocation that PyTorch reports."""
    cpu, length = torch.device("cpu"), recipe.data.sequence_length
    tokens = np.random.default_rng(0).integers(0, recipe.model.vocab_size, (recipe.batch_rows, length + 1))
    documents = np.zeros((recipe.batch_rows, length), dtype=np.int64)
    batch = Batch(tokens[:, :-1], tokens[:, 1:], documents, [])
    with torch.device("meta"):
        model = Xmodel2(recipe.model)
    step = TrainStep(model, recipe, precision, cpu)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        draw_weights(model, cpu, 1)
        optimizer = build_optimizer(model.named_parameters(), recipe.model, recipe.train)
        for _ in range(2):
            _, norm = step.gradients(batch, float(batch.targets.size))
            step.apply(optimizer, norm)
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    return int(np.cumsum([event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]).max())


@pytest.mark.parametrize(
    ("precision", "train"),
    [
        ("fp32", {}),
        ("bf16", {}),
        ("fp32", {"micro_batch_size": 1}),
        ("fp32", {"activation_memory_budget": 0.5}),
        ("fp32", {"loss_chunk_tokens": 64}),
        ("fp32", {"attention": "plain"}),
        ("fp32", {"optimizer": "muon", "micro_batch_size": 1}),
    ],
    ids=str,
)
def test_the_plan_is_within_a_tenth_of_what_is_allocated(precision: str, train: dict[str, object]) -> None:
    recipe = recipe_with(**train)
    plan = memory_plan(recipe, precision, Layout(), compiled=False, device="cpu")
    assert plan.peak == pytest.approx(measured_peak(recipe, precision), rel=0.1)


def test_weights_and_moments_are_exact_and_divided_by_the_shards() -> None:
    recipe, count = recipe_with(), parameter_count(recipe_with().model)
    alone = memory_plan(recipe, "fp32", Layout(), True, "cuda").parts
    assert (alone["weights"], alone["optimizer moments"]) == (4 * count, 8 * count)
    sharded = memory_plan(recipe, "fp32", Layout(2, 2, 2, 1), True, "cuda").parts
    assert (sharded["weights"], sharded["optimizer moments"]) == (count, 2 * count)
    muon = memory_plan(recipe_with(optimizer="muon"), "fp32", Layout(), True, "cuda").parts
    assert muon["optimizer moments"] < 6 * count


def test_what_saves_memory_saves_it() -> None:
    recipe = replace(recipe_with(batch_tokens=2048, micro_batch_size=2), {"data.sequence_length": 512})

    def peak(layout: Layout = Layout(), **train: object) -> int:  # noqa: B008
        changed = replace(recipe, {f"train.{key}": value for key, value in train.items()})
        return memory_plan(changed, "bf16", layout, True, "cuda").peak

    assert peak(micro_batch_size=1) < peak()
    assert peak(activation_memory_budget=0.5) < peak()
    assert peak(loss_chunk_tokens=64) < peak(loss_chunk_tokens=1024)
    assert peak(Layout(tensor=2), loss_chunk_tokens=16) < peak(loss_chunk_tokens=16)
    assert peak(Layout(context=2)) < peak()


def test_copies_for_a_checkpoint_lie_in_cpu_memory() -> None:
    recipe = recipe_with(async_checkpoint=True)
    size = 12 * parameter_count(recipe.model)
    on_gpu = memory_plan(recipe, "fp32", Layout(), True, "cuda")
    assert on_gpu.host == {"checkpoint copies": size}
    assert "checkpoint copies" not in on_gpu.parts
    assert memory_plan(recipe, "fp32", Layout(), True, "cpu").parts["checkpoint copies"] == size


def test_lighter_takes_rows_first_and_then_the_budget() -> None:
    recipe = recipe_with()
    arguments = (Layout(), partial(memory_plan, precision="fp32", layout=Layout(), compiled=True, device="cuda"))
    full = memory_plan(recipe, "fp32", Layout(), True, "cuda").peak
    found = lighter(recipe, *arguments, limit=0.7 * full)
    assert found is not None
    assert found.train.micro_batch_size == 2
    assert changed_settings(recipe, found) == "--set train.micro_batch_size=2"
    one = memory_plan(recipe_with(micro_batch_size=1), "fp32", Layout(), True, "cuda").peak
    least = lighter(recipe, *arguments, limit=0.95 * one)
    assert least is not None
    assert least.train.micro_batch_size == 1
    assert least.train.activation_memory_budget < 1
    assert lighter(recipe, *arguments, limit=1.0) is None


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: 4096 bytes"),
        MemoryError(),
    ],
)
def test_errors_of_memory_are_explained(error: BaseException) -> None:
    assert is_out_of_memory(error)
    with pytest.raises(XmodelError, match=r"--set train\.micro_batch_size=2.*needs about"), explained(recipe_with(), 1):
        raise error


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match="shapes"), explained(recipe_with(), 1):
        raise RuntimeError("shapes do not fit")


def test_a_step_without_room_says_which_setting_to_change() -> None:
    """A real allocation that fails: the process may take 64 MB more than it has."""
    code = f"""
import resource, sys
sys.path.insert(0, {str(__file__).rsplit("/", 1)[0]!r})
from test_memory import measured_peak, recipe_with
from xmodel2.train.out_of_memory import explained
recipe = recipe_with(batch_tokens=16384, micro_batch_size=128, precision="fp32")
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (64 << 20),) * 2)
with explained(recipe, 1):
    measured_peak(recipe, "fp32")
"""
    environment = {"OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1", "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 1
    assert "XmodelError: memory ran out on a cpu" in done.stderr
    assert "--set train.micro_batch_size=" in done.stderr
