"""Muon beside AdamW: held-out loss after equal tokens, each at its own best of a few rates; and Muon's best rate over width.

    python -m benchmarks.optimizer [--quick] [--json] [--data DIR] [--preset pico] [--steps 100] [--seeds 2]

Every run is `xmodel2 train` on real text (the starter corpus, unless --data names prepared shards), both stages, fp32, eager.
Rates are tried with the first seed, by factors of 2 until the best lies between two others, and the best one with the others
too. `ours` is Muon's mean over seeds, in nats a token; its ratio is below 1 where Muon is better. The embedding and the norms
learn by AdamW at its default rate in both. Widths are those of pico, and only tried for it.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.harness import Result, argument_parser, interleaved, machine
from xmodel2.data.prepare import prepare
from xmodel2.data.shards import open_shards
from xmodel2.data.starter import write_starter_corpus
from xmodel2.model import Xmodel2, tensor_program
from xmodel2.recipe import Recipe, recipe_from_dict
from xmodel2.reproduction.peer_rates import at_edge, best_rate, next_rate
from xmodel2.train import read_metrics, train
from xmodel2.train.optimizer import build_optimizer

SEQUENCE, BATCH = 128, 1024
BASE_RATE = 0.006
RATES: dict[str, tuple[float, ...]] = {"adamw": (0.006, 0.012, 0.024), "muon": (0.02, 0.04, 0.08)}
WIDTHS = (128, 256)
PICO: dict[str, Any] = {"preset": "pico"}
SMALL: dict[str, Any] = {
    **PICO,
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}


def main() -> None:
    """Train, compare, print."""
    parser = argument_parser(__doc__, "two layers 64 wide, two rates, one seed, no widths")
    parser.add_argument("--data", type=Path, help="prepared shards with sources docs, code and web")
    parser.add_argument("--preset", default="pico")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    size, rates, seeds, steps = {"preset": options.preset}, RATES, options.seeds, options.steps
    if options.quick:
        size, rates, seeds, steps = SMALL, {name: found[:2] for name, found in RATES.items()}, 1, 40
    with tempfile.TemporaryDirectory() as folder:
        data = options.data or _corpus(Path(folder), options.quick)
        losses: dict[str, list[float]] = {}
        for name, tried in rates.items():
            first = _tried(partial(_loss, data, size, name, seed=1, steps=steps), tried, 0 if options.quick else 4)
            best = best_rate(first)
            rest = [_loss(data, size, name, best, seed, steps) for seed in range(2, seeds + 1)]
            losses[f"{name} at {best}"] = [first[best], *rest]
        widths = {} if options.quick or size != PICO else {width: _best_rate(data, width, steps) for width in WIDTHS}
        times = _update_times(_recipe(data, size, "adamw", 0.01, 1, steps))
    (adamw, adamw_losses), (muon, muon_losses) = losses.items()
    ours, peer = statistics.mean(muon_losses), statistics.mean(adamw_losses)
    Result(
        name="optimizer",
        machine=machine(),
        ours=ours,
        peers={adamw: peer},
        unit="held-out nats a token",
        ratio_to_best_peer=ours / peer,
        share_of_limit=None,
        limit=None,
        notes=f"{options.preset}; {muon}; {steps} steps of {BATCH} tokens; by seed: {muon_losses} and {adamw_losses}; an update"
        f" takes {times['muon']:.1f} ms with Muon and {times['adamw']:.1f} ms with AdamW; Muon's best rate by width: {widths}",
    ).show(options.json)


def _corpus(folder: Path, quick: bool) -> Path:
    max_bytes, vocab_size = (150_000, 512) if quick else (2_000_000, 2048)
    write_starter_corpus(
        folder / "corpus", max_bytes=max_bytes, examples=500, heldout_examples=50, vocab_size=vocab_size
    )
    prepare(folder / "corpus" / "sources.toml", folder / "data")
    return folder / "data"


def _recipe(data: Path, size: dict[str, Any], optimizer: str, rate: float, seed: int, steps: int) -> Recipe:
    key = "muon_learning_rate" if optimizer == "muon" else "learning_rate"
    vocab_size = open_shards(data, verify=False).vocab_size
    return recipe_from_dict(
        {
            "seed": seed,
            "model": {"dim_model_base": 64, "max_position_embeddings": SEQUENCE, "vocab_size": vocab_size, **size},
            "data": {"dir": str(data), "sequence_length": SEQUENCE, "verify_checksums": False},
            "stages": {
                "stable": {"tokens": 3 * steps // 4 * BATCH, "mixture": {"docs": 0.4, "code": 0.4, "web": 0.2}},
                "decay": {"tokens": steps // 4 * BATCH, "sft_share": 0.0},
            },
            "train": {
                "optimizer": optimizer,
                "learning_rate": BASE_RATE,
                key: rate,
                "warmup_steps": steps // 10,
                "decay_half_life_steps": max(1, steps // 16),
                "batch_tokens": BATCH,
                "micro_batch_size": BATCH // SEQUENCE,
                "precision": "fp32",
                "compile": False,
                "device": "cpu",
                "checkpoint_every": steps,
                "heldout_every": 0,
                "norms_every": 0,
                "trackers": [],
            },
        }
    )


def _tried(loss: Callable[..., float], rates: Sequence[float], more: int) -> dict[float, float]:
    """Return the loss at each rate, and at up to ``more`` others beyond those at whose edge the best is."""
    losses = {rate: loss(rate=rate) for rate in rates}
    for _ in range(more):
        if not at_edge(losses):
            break
        rate = next_rate(losses)
        losses[rate] = loss(rate=rate)
    return losses


def _loss(data: Path, size: dict[str, Any], optimizer: str, rate: float, seed: int, steps: int) -> float:
    """Return the held-out loss at the end, the mean over sources."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as run_dir:
        if not train(_recipe(data, size, optimizer, rate, seed, steps), Path(run_dir) / "run").finished:
            raise SystemExit("optimizer: stopped before the end")
        lines = read_metrics(Path(run_dir) / "run")
    heldout = [line["heldout"] for line in lines if line.get("kind") == "heldout"][-1]
    loss = statistics.mean(found["loss"] for name, found in heldout.items() if name != "reasoning")
    seconds = statistics.median(line["seconds"] for line in lines if "seconds" in line)
    width = size.get("hidden_size", size.get("preset"))
    print(
        f"{optimizer} {rate} width {width} seed {seed}: {loss:.4f} nats, {seconds * 1000:.0f} ms a step,"
        f" {time.perf_counter() - started:.0f} s",
        file=sys.stderr,
        flush=True,
    )
    return loss


def _best_rate(data: Path, width: int, steps: int) -> dict[str, Any]:
    """Return Muon's best rate and the loss at each, four layers of a width."""
    size = {
        "hidden_size": width,
        "intermediate_size": 5 * width // 2,
        "num_hidden_layers": 4,
        "num_attention_heads": width // 32,
        "num_key_value_heads": 1,
    }
    losses = _tried(partial(_loss, data, size, "muon", seed=1, steps=steps), RATES["muon"], 4)
    return {"best": best_rate(losses), "losses": losses}


def _update_times(recipe: Recipe) -> dict[str, float]:
    """Return milliseconds of one update, gradients given, of each optimizer."""

    def update(optimizer: str) -> Callable[[], float]:
        model = Xmodel2(recipe.model)
        tensor_program.initialise(model, 0)
        train = recipe_from_dict({"train": {"optimizer": optimizer}}).train
        built = build_optimizer(model.named_parameters(), recipe.model, train)
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter)

        def run() -> float:
            started = time.perf_counter()
            built.step()
            return (time.perf_counter() - started) * 1000

        run()
        return run

    return interleaved({name: update(name) for name in RATES}, 9)


if __name__ == "__main__":
    main()
