"""What `torchrun` starts in test_ranks.py: train one recipe under each layout given, as KEY=N,KEY=N, into a folder of that name."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from xmodel2.recipe import load_recipe, replace
from xmodel2.train import train
from xmodel2.train.step import LossModule, MicroBatch


def main(root: Path, layouts: list[str]) -> None:
    """Train into ROOT/LAYOUT; the process group is made once for all. The first word of a layout may ask for more."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", timeout=timedelta(seconds=120))
    for layout in layouts:
        keys = [f"parallel.{key}" for key in layout.split(",") if "=" in key]
        recipe, stop = load_recipe(root / "recipe.toml", keys), None
        if layout.startswith("stopped"):
            stop = 5
        if layout.startswith("bf16"):  # its stages end with a held-out loss, then a checkpoint
            recipe = replace(recipe, {"train.precision": "bf16"})
        if layout.startswith("compiled"):
            recipe = replace(recipe, {"train.compile": True})
        with poisoned() if layout.startswith("poisoned") else nullcontext():
            train(recipe, root / layout, stop_after=stop)
    dist.destroy_process_group()


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
    main(Path(sys.argv[1]), sys.argv[2:])
