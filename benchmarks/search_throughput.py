"""Trials an hour: trials of one search in one process, in turn and together, beside a process for each.

    python -m benchmarks.search_throughput [--quick] [--json] [--trials 8] [--steps 100] [--width 64] [--device cpu]
    python -m benchmarks.search_throughput --device cuda --trials 64 --process-trials 2 --arms together --repeats 1

Every arrangement trains the same recipes (rates and multipliers drawn from Table 5) on the same random tokens, held-out loss
included, and is timed from the start of its first process to the end of its last, compilation included. `processes` runs
`xmodel2 train` once a trial, one after another; `in turn` trains one after the other in one process, where all share compiled
code; `two workers` is that twice at a time, with half the threads each; `together` stacks the models (search/fleet.py).
A process for each can be timed on fewer trials (--process-trials), after one that is not counted: as in a long search, the
compiler's cache on disk is warm for it; the other arrangements compile anew.
"""

import argparse
import os
import random
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.harness import Result, argument_parser, interleaved, machine
from xmodel2.cores import usable_cores
from xmodel2.data.synthetic import write_random_shards
from xmodel2.recipe import Recipe, load_recipe, recipe_from_dict, recipe_to_toml, replace
from xmodel2.search.trials import train_trials

VOCAB_SIZE, SEQUENCE, ROWS = 2048, 128, 4


def main() -> None:
    """Make the trials in every arrangement; print."""
    parser = argument_parser(__doc__, "4 trials of 30 steps, once")
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--process-trials", type=int, default=0, help="of `processes`; 0: as many as the others make")
    parser.add_argument("--arms", nargs="+", default=["in turn", "two workers", "together"], help="beside `processes`")
    parser.add_argument("--arm", choices=("in turn", "together"), help=argparse.SUPPRESS)
    parser.add_argument("--recipes", type=Path, nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.arm:
        _train(options.arm, [load_recipe(path) for path in options.recipes])
        return
    if options.quick:
        options.trials, options.steps, options.repeats = 4, 30, 1
    with tempfile.TemporaryDirectory() as folder:
        files = _write_recipes(Path(folder), options)
        fewer = files[: options.process_trials or None]
        if options.process_trials:
            _timed("processes", [files[:1]])
        work = {
            "processes": ("processes", [fewer]),
            "in turn": ("in turn", [files]),
            "two workers": ("in turn", [files[::2], files[1::2]]),
            "together": ("together", [files]),
        }
        runs: dict[str, Callable[[], float]] = {
            name: partial(_timed, *how) for name, how in work.items() if name in ("processes", *options.arms)
        }
        seconds = interleaved(runs, options.repeats)
        counts = {name: len(fewer if name == "processes" else files) for name in runs}
        rates = {name: 3600 * counts[name] / taken for name, taken in seconds.items()}
    peer = rates.pop("processes")
    best = max(rates, key=lambda name: rates[name])
    Result(
        name="search_throughput",
        machine=machine(),
        ours=rates[best],
        peers={"processes": peer},
        unit="trials an hour",
        ratio_to_best_peer=rates[best] / peer,
        share_of_limit=None,
        limit=None,
        notes=f"best: {best}; { ({name: round(rate / peer, 2) for name, rate in rates.items()}) } times as many as processes;"
        f" {options.trials} trials of {options.steps} steps of {ROWS * SEQUENCE} tokens, 4 layers {options.width} wide",
    ).show(options.json)


def _write_recipes(folder: Path, options: argparse.Namespace) -> list[Path]:
    write_random_shards(folder / "data", vocab_size=VOCAB_SIZE, seed=0)
    drawn, files = random.Random(0), []
    for number in range(options.trials):
        values: dict[str, Any] = {
            "name": f"trial-{number}",
            "model.scale_emb": float(drawn.randint(2, 20)),
            "model.scale_depth": round(drawn.uniform(1, 5), 1),
            "train.learning_rate": drawn.randint(1, 20) / 1000,
        }
        files.append(folder / f"trial-{number}.toml")
        files[-1].write_text(recipe_to_toml(replace(_recipe(folder / "data", options), values)))
    return files


def _recipe(data: Path, options: argparse.Namespace) -> Recipe:
    heads = max(1, options.width // 32)
    tokens = options.steps * ROWS * SEQUENCE
    return recipe_from_dict(
        {
            "model": {
                "hidden_size": options.width,
                "intermediate_size": 5 * options.width // 2,
                "num_hidden_layers": 4,
                "num_attention_heads": heads,
                "num_key_value_heads": heads,
                "vocab_size": VOCAB_SIZE,
                "max_position_embeddings": SEQUENCE,
            },
            "data": {"dir": str(data), "sequence_length": SEQUENCE},
            "stages": {
                "stable": {"tokens": tokens, "mixture": {"text": 1.0}},
                "decay": {"tokens": 0, "sft_share": 0.0},
            },
            "train": {
                "warmup_steps": options.steps // 10,
                "batch_tokens": ROWS * SEQUENCE,
                "micro_batch_size": ROWS,
                "checkpoint_every": 10 * options.steps,
                "heldout_every": 0,
                "heldout_rows": 16,
                "norms_every": 0,
                "trackers": [],
                "device": options.device,
            },
        }
    )


def _commands(arm: str, files: list[Path]) -> list[list[str]]:
    """Return the commands of one worker, to be run one after another."""
    if arm == "processes":
        return [
            [
                sys.executable,
                "-m",
                "xmodel2.cli",
                "train",
                str(file),
                "--out",
                str(Path(tempfile.mkdtemp(dir=file.parent)) / "run"),
            ]
            for file in files
        ]
    module = [sys.executable, "-m", "benchmarks.search_throughput", "--arm", arm, "--recipes"]
    return [[*module, *map(str, files)]]


def _timed(arm: str, shares: list[list[Path]]) -> float:
    """Return the seconds that workers take side by side, each with its share of the recipes."""
    workers = [_commands(arm, files) for files in shares]
    threads = max(1, usable_cores() // len(workers))
    environment = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads))}
    begin = time.perf_counter()
    running = [subprocess.Popen(["sh", "-c", _script(commands)], env=environment) for commands in workers]
    codes = [process.wait() for process in running]
    if any(codes):
        raise SystemExit("search_throughput: a trial failed")
    return time.perf_counter() - begin


def _script(commands: list[list[str]]) -> str:
    return " && ".join(shlex.join(command) + " >/dev/null" for command in commands)


def _train(arm: str, recipes: list[Recipe]) -> None:
    with tempfile.TemporaryDirectory() as out:
        groups = [recipes] if arm == "together" else [[recipe] for recipe in recipes]
        for group in groups:
            train_trials(group, Path(out))


if __name__ == "__main__":
    main()
