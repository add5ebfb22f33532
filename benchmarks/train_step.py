"""Training tokens/s of a preset beside the same architecture in `transformers` (GraniteForCausalLM, plain loop).

    python -m benchmarks.train_step [--quick] [--json] [--preset nano]

Both do forward, backward, clipping and a fused AdamW update on the same shapes and the same random tokens, in bf16 autocast
over fp32 weights; the peer runs eager and compiled and its better one counts. `--quick` shrinks layers, not widths.
"""

import time
from collections.abc import Callable

import torch
from transformers import GraniteConfig, GraniteForCausalLM

from benchmarks.harness import Result, argument_parser, interleaved, machine
from xmodel2.data.loader import Batch
from xmodel2.model import Xmodel2, tensor_program
from xmodel2.model.convert import granite_config
from xmodel2.model.count import flops_per_token
from xmodel2.recipe import Recipe, recipe_from_dict
from xmodel2.train.device import DTYPES, matmul_rate, pick_device, pick_precision
from xmodel2.train.optimizer import build_optimizer
from xmodel2.train.step import TrainStep


def main() -> None:
    """Measure and print."""
    parser = argument_parser(__doc__, "two layers, fewer repeats")
    parser.add_argument("--preset", default="nano")
    parser.add_argument("--vocab-size", type=int, default=8192)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--sequence-length", type=int, default=256)
    options = parser.parse_args()

    size = {"preset": options.preset, "vocab_size": options.vocab_size}
    if options.quick:
        size["num_hidden_layers"] = 2
    recipe = recipe_from_dict(
        {
            "model": size,
            "data": {"sequence_length": options.sequence_length, "mask_documents": False},
            "train": {"micro_batch_size": options.rows, "batch_tokens": options.rows * options.sequence_length},
        }
    )
    device = pick_device("auto")
    tokens = options.rows * options.sequence_length
    precision, _ = pick_precision("auto", device, tokens, recipe.model)
    runs = {
        "ours": _ours(recipe, precision, device),
        "transformers eager": _peer(recipe, precision, device, compiled=False),
        "transformers compiled": _peer(recipe, precision, device, compiled=True),
    }
    for run in runs.values():
        run(), run()
    steps = 2 if options.quick else 6
    speeds = interleaved({name: _timed(run, steps, tokens) for name, run in runs.items()}, 5 if options.quick else 9)
    ours = speeds.pop("ours")
    peak = matmul_rate(device, precision, tokens, recipe.model, seconds=1.0)
    limit = peak / flops_per_token(recipe.model, options.sequence_length)
    Result(
        name="train_step",
        machine=machine(),
        ours=ours,
        peers=speeds,
        unit="tokens/s",
        ratio_to_best_peer=ours / max(speeds.values()),
        share_of_limit=ours / limit,
        limit=limit,
        notes=f"{options.preset}, {recipe.model.num_hidden_layers} layers, vocabulary {options.vocab_size}, "
        f"{options.rows} x {options.sequence_length} tokens, {precision}; limit = measured GEMM {peak / 1e9:.0f} GFLOP/s "
        "over forward+backward FLOPs a token (causal attention)",
    ).show(options.json)


def _timed(run: Callable[[], None], steps: int, tokens: int) -> Callable[[], float]:
    def speed() -> float:
        started = time.perf_counter()
        for _ in range(steps):
            run()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return steps * tokens / (time.perf_counter() - started)

    return speed


def _tokens(recipe: Recipe) -> torch.Tensor:
    rows, length = recipe.train.micro_batch_size, recipe.data.sequence_length + 1
    return torch.randint(recipe.model.vocab_size, (rows, length), generator=torch.Generator().manual_seed(0))


def _ours(recipe: Recipe, precision: str, device: torch.device) -> Callable[[], None]:
    model = Xmodel2(recipe.model)
    tensor_program.initialise(model, 0)
    model.to(device).train()
    optimizer = build_optimizer(model.named_parameters(), recipe.model, recipe.train)
    step = TrainStep(model, optimizer, recipe, precision)
    tokens = _tokens(recipe).numpy()
    inputs, targets = tokens[:, :-1].copy(), tokens[:, 1:].copy()
    batch = Batch(
        inputs=inputs, targets=targets, document_ids=(inputs * 0).astype("int32"), sources=["x"] * len(inputs)
    )

    def run() -> None:
        step(batch)

    return run


def _peer(recipe: Recipe, precision: str, device: torch.device, compiled: bool) -> Callable[[], None]:
    config = GraniteConfig(**granite_config(recipe.model), use_cache=False)
    model: torch.nn.Module = GraniteForCausalLM(config)
    model.to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    tokens = _tokens(recipe).to(device)
    forward = torch.compile(model, dynamic=False) if compiled else model

    def run() -> None:
        with torch.autocast(device.type, dtype=DTYPES[precision], enabled=precision != "fp32"):
            logits = forward(tokens[:, :-1]).logits
        loss = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()

    return run


if __name__ == "__main__":
    main()
