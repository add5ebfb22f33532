"""What test_ranks.py starts: 2 and 4 ranks train one recipe under each layout, named KEY=N,KEY=N, into a folder of that name."""

import json
import multiprocessing
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.plain_kernels import kernels_everywhere
from xmodel2.model import gpu_kernels
from xmodel2.recipe import load_recipe, replace
from xmodel2.train import train
from xmodel2.train.evaluation import Alive, Snapshot
from xmodel2.train.step import LossModule, MicroBatch


def main(root: Path, layouts: dict[str, list[str]]) -> None:
    """Fork each number of ranks for its layouts: they import once. Raises SystemExit if one fails."""
    torch.use_deterministic_algorithms(True)  # imports the compiler
    context = multiprocessing.get_context("fork")
    for ranks, names in layouts.items():
        arguments = [(root, names, rank, int(ranks)) for rank in range(int(ranks))]
        processes = [context.Process(target=train_layouts, args=each) for each in arguments]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        if any(process.exitcode for process in processes):
            sys.exit(1)


def train_layouts(root: Path, layouts: list[str], rank: int, ranks: int) -> None:
    """Train into ROOT/LAYOUT; the process group is made once for all. The first word of a layout may ask for more."""
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks)}
    store = f"file://{root}/store-{ranks}"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=ranks, timeout=timedelta(seconds=120))
    for layout in layouts:
        keys = [f"parallel.{key}" for key in layout.split(",") if "=" in key]
        recipe, stop = load_recipe(root / "recipe.toml", keys), None
        if layout.startswith("stopped"):
            stop = 5
        if layout.startswith("bf16"):  # its stages end with a held-out loss, then a checkpoint
            recipe = replace(recipe, {"train.precision": "bf16"})
        if layout.startswith("recomputed"):
            recipe = replace(recipe, {"train.compile": True, "train.activation_memory_budget": 0.3})
        if layout.startswith("compiled"):
            recipe = replace(recipe, {"train.compile": True})
        # As on a GPU: what lies between the products by operators of our own.
        kernels = kernels_everywhere() if "kernels" in layout else nullcontext()
        with kernels, poisoned() if layout.startswith("poisoned") else nullcontext(), gains_seen() as seen:
            train(recipe, root / layout, stop_after=stop, evaluate=keep_weights)
        if rank == 0:
            (root / layout / "gains.json").write_text(json.dumps(sorted(map(str, seen))))
    dist.destroy_process_group()


def keep_weights(snapshot: Snapshot, alive: Alive) -> dict[str, float]:
    """Write what an evaluation gets on rank 0."""
    alive("nothing")
    save_file(snapshot.tensors, snapshot.run_dir / f"whole-{snapshot.step}.safetensors")
    return {"ranks": dist.get_world_size()}


@contextmanager
def gains_seen() -> Iterator[set[torch.dtype]]:
    """Yield the precisions in which norms get their gains."""
    normed, seen = gpu_kernels.normed, set[torch.dtype]()

    def watched(x: torch.Tensor, weight: torch.Tensor, eps: float) -> tuple[torch.Tensor, torch.Tensor]:
        if not torch.compiler.is_compiling():
            seen.add(weight.dtype)
        return normed(x, weight, eps)

    gpu_kernels.normed = watched
    try:
        yield seen
    finally:
        gpu_kernels.normed = normed


@contextmanager
def poisoned() -> Iterator[None]:
    """Make the loss NaN on one rank in the second to fourth step, once each: the run goes back to its beginning."""
    forward, calls = LossModule.forward, 0

    def bad(self: LossModule, batch: MicroBatch) -> torch.Tensor:
        nonlocal calls
        calls += torch.is_grad_enabled()
        each = 8 // dist.get_world_size()
        poison = dist.get_rank() == 0 and each < calls <= 4 * each
        return forward(self, batch) * (float("nan") if poison else 1.0)

    LossModule.forward = bad  # type: ignore[method-assign]
    try:
        yield
    finally:
        LossModule.forward = forward  # type: ignore[method-assign]


if __name__ == "__main__":
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
