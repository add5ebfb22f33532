"""A run killed with SIGKILL at random moments and resumed, beside the same run never killed.

    python -m benchmarks.resume [--quick] [--json] [--kills 3] [--seed N]

Both are `xmodel2 train` in processes of their own, and half of the kills fall while a checkpoint is being written. `ours` is the
largest difference between the final weights and moments of the two, which must be 0; the notes tell where it was killed and the
final losses. After each kill every published checkpoint must be whole, and at the end nothing half-written may be left. Exits 1
if anything is otherwise. More kills make a longer run.
"""

import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from benchmarks.harness import Result, argument_parser, machine
from xmodel2.data.synthetic import write_random_shards
from xmodel2.files import write_text_atomic
from xmodel2.recipe import Recipe, recipe_from_dict, recipe_to_toml, replace
from xmodel2.train import read_metrics
from xmodel2.train.checkpoint import check_files, checkpoint_steps
from xmodel2.train.device import pick_device, pick_precision
from xmodel2.train.metrics import METRICS_FILE


def main() -> None:
    """Train, kill, resume, compare."""
    parser = argument_parser(__doc__, "a smaller model, eager")
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--seed", type=int, default=None, help="of the moments; default: another each time")
    options = parser.parse_args()
    moments = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_random_shards(root / "data", vocab_size=512, seed=0, documents=2000, longest=400)
        recipe = _recipe(root / "data", options.quick, options.kills)
        write_text_atomic(root / "recipe.toml", recipe_to_toml(recipe))
        if _train(root, "whole").wait():
            raise SystemExit("resume: the run that is never killed failed")
        killed, writing = _killed(root, recipe, options.kills, moments)
        # Empty files that are locked while somebody works in a folder or adds a line stay.
        if left := sorted(str(path) for path in (root / "parts").rglob(".*") if not path.name.endswith(".lock")):
            raise SystemExit(f"resume: left half-written: {', '.join(left)}")
        difference = max(_differences(root, recipe))
        whole, parts = (_results(root / name) for name in ("whole", "parts"))
    Result(
        name="resume",
        machine=machine(),
        ours=difference,
        peers={},
        unit="largest difference of final weights and moments",
        ratio_to_best_peer=None,
        share_of_limit=None,
        limit=0.0,
        notes=f"{recipe.total_steps} steps, checkpoint every {recipe.train.checkpoint_every}, killed {len(killed)} times, {writing}"
        f" of them while a checkpoint was being written, after steps {killed};"
        f" final losses {whole[0][-1]!r} and {parts[0][-1]!r}; all {len(whole[0])} losses and {len(whole[1])} held-out"
        f" measurements {'equal' if whole == parts else 'DIFFERENT'}",
    ).show(options.json)
    sys.exit(0 if difference == 0 and whole == parts else 1)


def _recipe(data: Path, quick: bool, kills: int) -> Recipe:
    longer = max(1, round(kills / 15))
    size = {"preset": "pico", "num_hidden_layers": 1} if quick else {"preset": "pico"}
    settings: dict[str, Any] = {
        "name": "resume",
        "model": {**size, "vocab_size": 512},
        "data": {"dir": str(data), "sequence_length": 128},
        "stages": {
            "stable": {"tokens": longer * 70 * 1024, "mixture": {"text": 1.0}},
            "decay": {"tokens": longer * 50 * 1024, "sft_mixture": {"sft": 1.0}},
        },
        "train": {
            "batch_tokens": 1024,
            "micro_batch_size": 4,
            "warmup_steps": 10,
            "decay_half_life_steps": 20,
            "checkpoint_every": 7,
            "heldout_every": 0,
            "heldout_rows": 4,
            "compile": not quick,
        },
    }
    recipe = recipe_from_dict(settings)
    precision, _ = pick_precision("auto", pick_device("auto"), 4 * 128, recipe.model)
    return replace(recipe, {"train.precision": precision})


def _train(root: Path, name: str) -> subprocess.Popen[bytes]:
    command = ["train", str(root / "recipe.toml"), "--out", str(root / name), "--resume"]
    return subprocess.Popen([sys.executable, "-m", "xmodel2.cli", *command], stderr=subprocess.DEVNULL)


def _killed(root: Path, recipe: Recipe, kills: int, moments: random.Random) -> tuple[list[int], int]:
    """Run to the end with ``kills`` kills on the way; return the steps they came after, and how many hit a checkpoint's writing."""
    where: list[int] = []
    writing = 0
    while True:
        process = _train(root, "parts")
        if len(where) == kills:
            if process.wait():
                raise SystemExit("resume: the resumed run failed")
            return where, writing
        left = recipe.total_steps - _last_step(root)
        target = _last_step(root) + moments.randint(1, max(1, left // (kills - len(where) + 1)))
        while process.poll() is None and _last_step(root) < target:
            time.sleep(0.005)
        if moments.random() < 0.5:
            while process.poll() is None and not _being_written(root):
                time.sleep(0.0005)
        else:
            time.sleep(moments.uniform(0, 0.1))
        if process.poll() is not None:
            return where, writing
        process.kill()
        process.wait()
        where.append(_last_step(root))
        writing += _being_written(root)
        for step in checkpoint_steps(root / "parts"):
            check_files(root / "parts" / "checkpoints" / f"step-{step}")


def _being_written(root: Path) -> bool:
    return any((root / "parts" / "checkpoints").glob(".step-*"))


def _last_step(root: Path) -> int:
    path = root / "parts" / METRICS_FILE
    return max((m["step"] for m in read_metrics(root / "parts")), default=0) if path.exists() else 0


def _results(run_dir: Path) -> tuple[list[float], list[dict[str, Any]]]:
    lines = read_metrics(run_dir)
    return [line["loss"] for line in lines if "loss" in line], [line["heldout"] for line in lines if "heldout" in line]


def _differences(root: Path, recipe: Recipe) -> list[float]:
    found = []
    for file in ("model.safetensors", "optimizer.safetensors"):
        a, b = (load_file(root / n / "checkpoints" / f"step-{recipe.total_steps}" / file) for n in ("whole", "parts"))
        assert a.keys() == b.keys()
        found += [float((a[key].float() - b[key].float()).abs().max()) for key in a]
    return found


if __name__ == "__main__":
    main()
