"""Tokens/s of the whole `xmodel2 train` beside those of its bare step: what everything around the step costs.

    python -m benchmarks.loop [--quick] [--json] [--preset nano] [--rows 8] [--steps 60] [--set KEY=VALUE]

`ours` is the command, in a process of its own, by the times that its TensorBoard has of its steps: data, guard, norms, progress and
metrics are in it; checkpoints and held-out measurements are not, they come at the end. The limit is a process that makes
steps, and nothing else, of the same recipe with batches of the same loader that lie ready. They take turns. Microseconds that a
step of the command takes longer stand in the notes: they are the same whatever the model.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from benchmarks.harness import Result, argument_parser, machine
from xmodel2.data.synthetic import write_random_shards
from xmodel2.files import write_text_atomic
from xmodel2.recipe import Recipe, load_recipe, recipe_from_dict, recipe_to_toml, replace
from xmodel2.train import Steps, read_metrics
from xmodel2.train.device import pick_device, pick_precision

WARM = 10
"""Steps that are not counted, of both."""


def main() -> None:
    """Measure and print."""
    parser = argument_parser(__doc__, "one layer of pico, fewer steps")
    parser.add_argument("--preset", default="nano")
    parser.add_argument("--vocab-size", type=int, default=8192)
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--sequence-length", type=int, default=512)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--set", dest="changes", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        recipe = _recipe(root, options)
        write_random_shards(root / "data", recipe.model.vocab_size, seed=0, documents=4000, longest=400)
        whole, bare = [], []
        for number in range(options.repeats):
            whole.append(_whole(root, root / f"run-{number}", recipe, options.steps))
            bare.append(_bare(recipe, options.steps))
        waits = [line["loader_wait"] for line in read_metrics(root / "run-0") if "loader_wait" in line]
    train = recipe.train
    ours, limit = train.batch_tokens / statistics.median(whole), train.batch_tokens / statistics.median(bare)
    more = statistics.median(a - b for a, b in zip(whole, bare, strict=True))
    Result(
        name="loop",
        machine=machine(),
        ours=ours,
        peers={},
        unit="tokens/s",
        ratio_to_best_peer=None,
        share_of_limit=ours / limit,
        limit=limit,
        notes=f"{recipe.model.preset}, {recipe.model.num_hidden_layers} layers, {train.micro_batch_size} x"
        f" {recipe.data.sequence_length} tokens, {train.precision},"
        f" {train.compile_mode if train.compile else 'eager'}; a step of the command takes {more * 1e6:.0f} us longer than"
        f" the bare one's {statistics.median(bare) * 1e6:.0f}; data is waited for {statistics.median(waits) * 1e6:.0f} us",
    ).show(options.json)


def _recipe(root: Path, options: argparse.Namespace) -> Recipe:
    size = {"preset": "pico", "num_hidden_layers": 1} if options.quick else {"preset": options.preset}
    rows, length = (1, 128) if options.quick else (options.rows, options.sequence_length)
    tokens = rows * length
    settings = {
        "name": "loop",
        "model": {**size, "vocab_size": 512 if options.quick else options.vocab_size},
        "data": {"dir": str(root / "data"), "sequence_length": length},
        "stages": {
            "stable": {"tokens": (WARM + options.steps) * tokens, "mixture": {"text": 1.0}},
            "decay": {"tokens": tokens, "sft_mixture": {"sft": 1.0}},
        },
        "train": {
            "batch_tokens": tokens,
            "micro_batch_size": rows,
            "warmup_steps": 1,
            "checkpoint_every": 10**9,
            "heldout_every": 0,
            "heldout_rows": 1,
        },
    }
    path = root / "recipe.toml"
    write_text_atomic(path, recipe_to_toml(recipe_from_dict(settings)))
    recipe = load_recipe(path, options.changes)
    if recipe.train.precision == "auto":
        precision, _ = pick_precision("auto", pick_device(recipe.train.device), tokens, recipe.model)
        recipe = replace(recipe, {"train.precision": precision})
    write_text_atomic(path, recipe_to_toml(recipe))
    return recipe


def _whole(root: Path, run_dir: Path, recipe: Recipe, steps: int) -> float:
    """Return the seconds of a step of the command, by the times that TensorBoard has of its steps."""
    command = ["train", str(root / "recipe.toml"), "--out", str(run_dir)]
    done = subprocess.run([sys.executable, "-m", "xmodel2.cli", *command], stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"loop: the run failed: {done.stderr}")
    found = EventAccumulator(str(run_dir / "tensorboard"))
    found.Reload()
    times = {event.step: event.wall_time for event in found.Scalars("loss")}
    seconds: float = times[WARM + steps] - times[WARM]
    return seconds / steps


def _bare(recipe: Recipe, steps: int) -> float:
    """Return the seconds of a step of a process that does nothing else."""
    context = get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_steps, args=(theirs, recipe, steps))
    process.start()
    theirs.close()  # so that a process that dies is an error here, and not waited for
    seconds: float = ours.recv()
    process.join()
    return seconds


def _steps(end: Connection, recipe: Recipe, steps: int) -> None:
    update = Steps(recipe)
    batches = [update.batch(number) for number in range(1, WARM + 1)]
    began = 0.0
    for number in range(WARM + steps):
        if number == WARM:
            began = time.perf_counter()
        update(number + 1, batches[number % WARM])
    if update.recipe.train.device == "cuda":
        torch.cuda.synchronize()
    end.send((time.perf_counter() - began) / steps)


if __name__ == "__main__":
    main()
