"""The peak of a training step's tensor memory, measured, beside what `xmodel2 plan` says of it.

    python -m benchmarks.memory [--quick] [--json] [--device auto]

Each case is a process of its own that makes two steps (in the second, moments are there) and adds up every allocation and
release that PyTorch's allocator reports: on a CPU through the profiler, on a GPU by `torch.cuda.max_memory_allocated`. `ours`
is the largest difference of plan and measurement, as a share of what was measured; it must stay below 0.10. On a GPU the 1.2B
is among the cases. `--quick` leaves out all but two cases of nano.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.harness import Result, argument_parser, machine
from xmodel2.data.loader import Batch
from xmodel2.model import Xmodel2
from xmodel2.recipe import Recipe, recipe_from_dict
from xmodel2.train.device import pick_device, set_determinism
from xmodel2.train.memory import Layout, memory_plan
from xmodel2.train.optimizer import build_optimizer
from xmodel2.train.sharding import draw_weights
from xmodel2.train.step import TrainStep
from xmodel2.train.world import World, open_world

Case = dict[str, Any]
CPU: list[Case] = [
    {"preset": "nano", "rows": 2, "precision": "fp32"},
    {"preset": "nano", "rows": 2, "precision": "fp32", "compile": False},
    {"preset": "nano", "rows": 8, "precision": "fp32"},
    {"preset": "nano", "rows": 2, "precision": "bf16"},
    {"preset": "nano", "rows": 2, "precision": "bf16", "compile": False},
    {"preset": "nano", "rows": 1, "length": 2048, "precision": "fp32"},
    {"preset": "nano", "rows": 2, "precision": "fp32", "batches": 3},
    {"preset": "nano", "rows": 4, "precision": "fp32", "activation_memory_budget": 0.5},
    {"preset": "nano", "rows": 4, "precision": "fp32", "activation_memory_budget": 0.5, "compile": False},
    {"preset": "nano", "rows": 4, "precision": "fp32", "attention": "plain"},
    {"preset": "nano", "rows": 2, "precision": "fp32", "optimizer": "muon"},
    {"preset": "nano", "rows": 4, "precision": "fp32", "vocab_size": 65280},
    {"preset": "nano", "rows": 4, "precision": "bf16", "vocab_size": 65280, "compile": False},
    {"preset": "micro", "rows": 4, "precision": "fp32"},
    {"preset": "micro", "rows": 2, "length": 1024, "precision": "bf16"},
    {"preset": "tiny", "rows": 1, "precision": "fp32"},
    {"preset": "tiny", "rows": 2, "precision": "bf16"},
    {"preset": "small", "rows": 1, "precision": "fp32"},
    {"preset": "small", "rows": 2, "precision": "bf16"},
    {"preset": "small", "rows": 1, "precision": "bf16", "vocab_size": 65280},
    {"preset": "nano", "rows": 2, "precision": "fp32", "compile": False, "layout": [1, 2, 1, 1]},
    {"preset": "nano", "rows": 2, "precision": "bf16", "compile": False, "layout": [1, 2, 1, 1], "batches": 2},
    {"preset": "nano", "rows": 2, "precision": "fp32", "compile": False, "layout": [2, 1, 1, 1]},
    {"preset": "nano", "rows": 2, "precision": "fp32", "compile": False, "layout": [1, 1, 2, 1]},
    {"preset": "tiny", "rows": 1, "precision": "fp32", "compile": False, "layout": [1, 1, 1, 2]},
    {"preset": "small", "rows": 1, "precision": "bf16", "compile": False, "layout": [1, 2, 1, 1]},
]
GPU: list[Case] = [
    {"preset": "nano", "rows": 32, "precision": "bf16"},
    {"preset": "small", "rows": 16, "length": 2048, "precision": "bf16"},
    {"preset": "xl", "rows": 2, "length": 4096, "precision": "bf16", "vocab_size": 65280},
    {"preset": "xl", "rows": 4, "length": 4096, "precision": "bf16", "vocab_size": 65280},
    {"preset": "xl", "rows": 4, "length": 4096, "precision": "bf16", "vocab_size": 65280, "batches": 2},
    {
        "preset": "xl",
        "rows": 4,
        "length": 4096,
        "precision": "bf16",
        "vocab_size": 65280,
        "activation_memory_budget": 0.5,
    },
]


def main() -> None:
    """Measure and print."""
    parser = argument_parser(__doc__, "two cases of nano")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--only", default="", help="cases whose description contains this")
    parser.add_argument("--case", help="measure one case, given as JSON, and print its bytes (what each process does)")
    options = parser.parse_args()
    device = pick_device(options.device)
    if options.case:
        case = json.loads(options.case)
        recipe = recipe_of(case)
        with open_world(recipe, device) as world:
            size = measure(recipe, case["precision"], device, world)
            if world.is_main:
                print(size)
        return
    cases = GPU if device.type == "cuda" else CPU
    cases = cases[:2] if options.quick else [case for case in cases if options.only in describe(case)]
    lines, worst = [], 0.0
    for case in cases:
        recipe = recipe_of(case)
        layout = Layout(*case.get("layout", []))
        plan = memory_plan(recipe, case["precision"], layout, recipe.train.compile, device.type)
        command = [sys.executable, "-m", "benchmarks.memory", "--device", device.type, "--case", json.dumps(case)]
        if layout.size > 1:
            command[1:1] = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(layout.size)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1], check=True)
        measured = int(done.stdout.split()[-1])
        worst = max(worst, abs(plan.peak / measured - 1))
        lines.append(f"{describe(case)}: {plan.peak / 1e6:.1f} of {measured / 1e6:.1f} MB, in the {plan.phase}")
        if not options.json:
            print(f"{lines[-1]} ({plan.peak / measured - 1:+.1%})", flush=True)
    Result(
        name="memory",
        machine=machine(),
        ours=worst,
        peers={},
        unit="largest difference of plan and measured peak",
        ratio_to_best_peer=None,
        share_of_limit=worst / 0.10,
        limit=0.10,
        notes="; ".join(lines),
    ).show(options.json)


def describe(case: Case) -> str:
    """Return a case in words."""
    extra = [f"{key} {value}" for key, value in case.items() if key not in ("preset", "rows", "length", "precision")]
    return ", ".join([f"{case['preset']} {case['rows']} x {case.get('length', 512)} {case['precision']}", *extra])


def recipe_of(case: Case) -> Recipe:
    """Return a case's recipe: one step is ``batches`` micro-batches."""
    layout = Layout(*case.get("layout", []))
    length, keys = case.get("length", 512), ("compile", "activation_memory_budget", "attention", "optimizer")
    return recipe_from_dict(
        {
            "model": {"preset": case["preset"], "vocab_size": case.get("vocab_size", 8192)},
            "data": {"sequence_length": length},
            "train": {
                "micro_batch_size": case["rows"],
                "batch_tokens": case["rows"] * length * case.get("batches", 1) * layout.data,
                "async_checkpoint": False,
                "norms_every": 0,
                **{key: case[key] for key in keys if key in case},
            },
            "parallel": {
                "data_parallel_replicate": layout.replicate,
                "data_parallel_shard": layout.shard,
                "context_parallel": layout.context,
                "tensor_parallel": layout.tensor,
            },
        }
    )


def measure(recipe: Recipe, precision: str, device: torch.device, world: World) -> int:
    """Return the peak bytes of this rank's tensors in two steps, the model's weights included."""
    set_determinism(recipe.train.deterministic, device)
    random = np.random.default_rng(0)
    length = recipe.data.sequence_length
    rows = recipe.batch_rows // world.data[1]
    tokens = random.integers(0, recipe.model.vocab_size, (rows, length + 1))
    documents = np.broadcast_to(np.arange(length) // 100, (rows, length))
    batch = Batch(tokens[:, :-1], tokens[:, 1:], np.ascontiguousarray(documents), [])
    with torch.device("meta"):
        model = Xmodel2(recipe.model)
    step = TrainStep(model, recipe, precision, device, world)

    def steps() -> None:
        draw_weights(model, device, recipe.seed)
        optimizer = build_optimizer(model.named_parameters(), recipe.model, recipe.train)
        for _ in range(2):
            _, norm = step.gradients(batch, float(batch.targets.size))
            step.apply(optimizer, norm)

    if device.type == "cuda":
        steps()
        return torch.cuda.max_memory_allocated(device)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        steps()
    assert profiler.profiler is not None
    assert profiler.profiler.kineto_results is not None
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    changes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return int(np.cumsum(changes).max())


if __name__ == "__main__":
    main()
