"""What `torchrun` starts in test_ranks.py: train one recipe under each layout given, as KEY=N,KEY=N, into a folder of that name."""

import os
import sys
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from xmodel2.recipe import load_recipe
from xmodel2.train import train


def main(root: Path, layouts: list[str]) -> None:
    """Train into ROOT/LAYOUT; the process group is made once for all."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", timeout=timedelta(seconds=120))
    for layout in layouts:
        keys = [f"parallel.{key}" for key in layout.split(",") if "=" in key]
        stop = 5 if layout.startswith("stopped") else None
        train(load_recipe(root / "recipe.toml", keys), root / layout, stop_after=stop)
    dist.destroy_process_group()


if __name__ == "__main__":
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    main(Path(sys.argv[1]), sys.argv[2:])
