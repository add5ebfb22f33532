"""What a checkpoint costs the loop, and how soon a resumed run makes its first step: nano, in units of its training step.

    python -m benchmarks.checkpoint [--quick] [--json] [--preset nano]

`ours` is how much longer some steps take if an asynchronous save begins before them, its writing beside them included. Must be
below 1. The peers are the same with `train.async_checkpoint = false`, and PyTorch's `async_save` into safetensors, which neither
hashes nor publishes. The notes give the longest time that a plain Python loop stands still beside the writing of each, and the
seconds from the start of `xmodel2 train --resume` to the end of its first step, which must be below 10: with the compiler's
cache of the run before, and (not --quick) without.
"""

import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch.distributed.checkpoint as dcp

from benchmarks.harness import Result, argument_parser, interleaved, machine
from xmodel2.data.loader import IGNORED
from xmodel2.data.shards import open_shards
from xmodel2.data.synthetic import write_random_shards
from xmodel2.files import write_text_atomic
from xmodel2.recipe import Recipe, recipe_from_dict, recipe_to_toml, replace
from xmodel2.train.build import build_step
from xmodel2.train.checkpoint_writer import CheckpointWriter
from xmodel2.train.device import pick_device, pick_precision
from xmodel2.train.metrics import METRICS_FILE, read_metrics
from xmodel2.train.run import make_loader

SAVES = ("async", "sync", "dcp")


def main() -> None:
    """Measure and print."""
    parser = argument_parser(__doc__, "a batch of an eighth, eager, fewer repeats, one resume")
    parser.add_argument("--preset", default="nano")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", message="torch.distributed is disabled")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_random_shards(root / "data", vocab_size=8192, seed=0, documents=4000, longest=800)
        recipe = _recipe(root / "data", options.preset, options.quick)
        loop = _Loop(recipe, root / "stall")
        count = 2 if options.quick else 4
        runs: dict[str, Callable[[], float]] = {kind: partial(loop.seconds, kind, count) for kind in ("none", *SAVES)}
        seconds = interleaved(runs, 3 if options.quick else 9)
        still = {kind: loop.longest_stop(kind) for kind in ("async", "dcp")}
        resumes = _resumes(root, recipe, options.quick)
    step = seconds["none"] / count
    stall = {kind: (seconds[kind] - seconds["none"]) / step for kind in SAVES}
    Result(
        name="checkpoint",
        machine=machine(),
        ours=stall["async"],
        peers={"on the spot": stall["sync"], "torch async_save": stall["dcp"]},
        unit="steps that a save costs",
        ratio_to_best_peer=None,
        share_of_limit=None,
        limit=1.0,
        notes=f"a step takes {step:.2f} s, a checkpoint {loop.size / 1e6:.0f} MB; the call of save returns after"
        f" {statistics.median(loop.calls) / step:.2f} steps. A Python loop stands still for {still['async']:.2f} s beside it,"
        f" {still['dcp']:.2f} s beside async_save. {resumes}",
    ).show(options.json)


def _recipe(data: Path, preset: str, quick: bool) -> Recipe:
    settings: dict[str, Any] = {
        "name": "checkpoint",
        "model": {"preset": preset, "vocab_size": 8192},
        "data": {"dir": str(data), "sequence_length": 256},
        "stages": {"stable": {"tokens": 10_000_000, "mixture": {"text": 1.0}}, "decay": {"tokens": 0}},
        "train": {
            "batch_tokens": 1024 if quick else 8192,
            "micro_batch_size": 4 if quick else 8,
            "warmup_steps": 10,
            "checkpoint_every": 1_000_000,
            "heldout_every": 0,
            "compile": not quick,
            "precision": "bf16",
        },
    }
    recipe = recipe_from_dict(settings)
    rows = recipe.train.micro_batch_size * recipe.data.sequence_length
    precision, _ = pick_precision("auto", pick_device("auto"), rows, recipe.model)
    return replace(recipe, {"train.precision": precision})


class _Loop:
    """Training steps with a save, or none, before them."""

    def __init__(self, recipe: Recipe, run_dir: Path) -> None:
        device = pick_device("auto")
        self._step, self._optimizer = build_step(recipe, recipe.train.precision, device)
        loader = make_loader(recipe, open_shards(recipe.data.dir))
        self._batches = [loader.batch(number) for number in range(4)]
        writers = {
            kind: CheckpointWriter(
                run_dir / kind,
                replace(recipe, {"train.async_checkpoint": kind == "async", "train.keep_checkpoints": 1}),
                self._step.model,
                self._optimizer,
            )
            for kind in ("async", "sync")
        }
        self._ours = {kind: partial(_save, writer) for kind, writer in writers.items()}
        self._model, self._run_dir = self._step.model, run_dir
        self.calls: list[float] = []
        """Seconds until an asynchronous `save` returned."""
        for kind in SAVES:  # compiles, and gets the buffers
            self.seconds(kind, 1)
        self.calls.clear()
        self.size = sum(file.stat().st_size for file in (run_dir / "sync").rglob("*.safetensors"))

    def seconds(self, kind: str, steps: int) -> float:
        """Return the seconds of a save of a kind and the steps after it, until both are done."""
        started = time.perf_counter()
        wait = self._begin(kind)
        if kind == "async":
            self.calls.append(time.perf_counter() - started)
        for number in range(steps):
            batch = self._batches[number % len(self._batches)]
            _, norm = self._step.gradients(batch, float((batch.targets != IGNORED).sum()))
            self._step.apply(self._optimizer, norm)
        wait()
        return time.perf_counter() - started

    def longest_stop(self, kind: str) -> float:
        """Return the longest time, in seconds, between two rounds of an empty Python loop while a save is written."""
        waiting = threading.Thread(target=self._begin(kind))
        waiting.start()
        longest, last = 0.0, time.perf_counter()
        while waiting.is_alive():
            now = time.perf_counter()
            longest, last = max(longest, now - last), now
        return longest

    def _begin(self, kind: str) -> Callable[[], object]:
        """Begin a save; return what waits for its end."""
        if kind == "none":
            return lambda: None
        return self._ours[kind]() if kind in self._ours else self._begin_dcp()

    def _begin_dcp(self) -> Callable[[], object]:
        named = dict(self._model.named_parameters())
        tensors: dict[str, Any] = {name: p.detach() for name, p in named.items()}
        for name, p in named.items():
            tensors |= {f"{name}/{key}": value for key, value in self._optimizer.state[p].items()}
        writer = dcp.HuggingFaceStorageWriter(str(self._run_dir / "dcp"), save_distributed=True)
        return dcp.async_save(tensors, storage_writer=writer, no_dist=True).result  # type: ignore[union-attr]


def _save(writer: CheckpointWriter) -> Callable[[], None]:
    writer.save(time.time_ns(), {})
    return writer.wait


def _resumes(root: Path, recipe: Recipe, quick: bool) -> str:
    write_text_atomic(root / "recipe.toml", recipe_to_toml(recipe))
    _first_step(root, "first")
    warm = statistics.median(_first_step(root, "first") for _ in range(1 if quick else 3))
    text = f"Start of the process to its first step, resumed: {warm:.1f} s"
    return text if quick else f"{text}; without the compiler's cache {_first_step(root, 'second'):.1f} s"


def _first_step(root: Path, cache: str) -> float:
    """Start or resume the run, and return the seconds to its first step; it is then stopped, saved."""
    run_dir = root / "resumed"
    command = ["train", str(root / "recipe.toml"), "--out", str(run_dir), "--resume"]
    environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(root / cache)}
    before = _last_step(run_dir)
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "xmodel2.cli", *command], stderr=subprocess.DEVNULL, env=environment
    )
    while process.poll() is None and _last_step(run_dir) == before:
        time.sleep(0.02)
    seconds = time.perf_counter() - started
    process.send_signal(signal.SIGTERM)
    if process.wait() != 130 or _last_step(run_dir) == before:
        raise SystemExit("checkpoint: the run that is resumed failed")
    return seconds


def _last_step(run_dir: Path) -> int:
    path = run_dir / METRICS_FILE
    return max((line["step"] for line in read_metrics(run_dir)), default=0) if path.exists() else 0


if __name__ == "__main__":
    main()
