"""Training tokens/s of a preset beside `transformers` Granite (compiled), Hugging Face's `Trainer`, and litgpt on equal shapes.

    python -m benchmarks.train_step [--quick] [--json] [--preset nano] [--breakdown]

All do forward, backward, clipping and a fused AdamW update on the same random tokens, in the same precision, rows of one
document; `ours, packed` is our step on rows of several documents that do not see each other, which the peers can't do.
On a CPU each is a process of its own, as users start it, and they take turns: ours sets the C library's allocator for itself.
litgpt is left out if it is not installed (`pip install --no-deps litgpt lightning lightning-utilities jsonargparse
pytorch-lightning torchmetrics` is enough here). The ceiling is a matrix product measured in the same rounds.
On a GPU all take turns, each with its memory to itself, and peers are compiled by block, as ours is; `Trainer` is left out there.
`--breakdown` says where the time of our step goes; `--inductor KEY=JSON` tries a setting of the compiler's on ours.
`--quick` shrinks layers, not widths, and leaves out all peers but one.
"""

import argparse
import gc
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from importlib.util import find_spec
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch
from torch import nn
from torch._inductor import config as inductor_config
from transformers import GraniteConfig, GraniteForCausalLM

from benchmarks.harness import Result, argument_parser, machine
from xmodel2.data.loader import Batch
from xmodel2.model import Xmodel2
from xmodel2.model.convert import granite_config
from xmodel2.model.count import flops_per_token
from xmodel2.recipe import Recipe, load_recipe, replace
from xmodel2.recipe.load import tree_to_toml
from xmodel2.train.allocator import keep_freed_memory
from xmodel2.train.device import DTYPES, matmul_rate, nominal_flops, pick_device, pick_precision, set_determinism
from xmodel2.train.optimizer import build_optimizer
from xmodel2.train.sharding import draw_weights
from xmodel2.train.step import TrainStep

Run = Callable[[], float]
"""Makes some steps and returns tokens/s."""


def main() -> None:
    """Measure and print."""
    parser = argument_parser(__doc__, "two layers, fewer repeats, one peer")
    parser.add_argument("--preset", default="nano")
    parser.add_argument("--vocab-size", type=int, default=8192)
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--sequence-length", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--set", dest="changes", action="append", default=[], help="train.KEY=VALUE of our recipe")
    parser.add_argument(
        "--inductor", action="append", default=[], metavar="KEY=JSON", help="of torch._inductor.config, for ours alone"
    )
    parser.add_argument("--arms", nargs="*", help="peers to measure, by name (default: all)")
    parser.add_argument(
        "--longest", type=int, default=400, help="of the packed documents, which are drawn from 40 positions up"
    )
    parser.add_argument("--layers", type=int, default=0, help="instead of the preset's")
    parser.add_argument("--breakdown", action="store_true", help="where the time of our step goes, and nothing else")
    options = parser.parse_args()
    size = {"preset": options.preset, "vocab_size": options.vocab_size}
    if options.quick or options.layers:
        size["num_hidden_layers"] = options.layers or 2
    options.repeats = 5 if options.quick else options.repeats
    tokens = options.rows * options.sequence_length
    settings = {
        "model": size,
        "data": {"sequence_length": options.sequence_length},
        "train": {"micro_batch_size": options.rows, "batch_tokens": tokens},
    }
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(tree_to_toml(settings))
        file.flush()
        recipe = load_recipe(file.name, [f"train.{text.removeprefix('train.')}" for text in options.changes])
    device = pick_device("auto")
    set_determinism(recipe.train.deterministic, device)
    if options.breakdown:
        keep_freed_memory(device)  # before the first tensor
    precision, _ = pick_precision(recipe.train.precision, device, tokens, recipe.model)
    if options.breakdown:
        return print(Ours(recipe, precision, device, inductor=options.inductor).breakdown())
    if device.type == "cuda":
        values, notes = _in_turn(_arms(recipe, precision, device, options), options.repeats)
    else:
        values, notes = _taking_turns(recipe, precision, options), ""
    median = {name: statistics.median(found) for name, found in values.items()}
    peak, speed, packed = median.pop("gemm"), median.pop("ours"), median.pop("ours, packed")
    best = max(median, key=lambda name: median[name], default="ours")
    ratios = [a / b for a, b in zip(values["ours"], values[best], strict=True)]
    limit = peak / flops_per_token(recipe.model, options.sequence_length)
    nominal = nominal_flops(device, precision)
    whole = flops_per_token(recipe.model, options.sequence_length, causal=False)
    usual = f"; MFU with full attention over the data sheet's rate {speed * whole / nominal:.1%}" if nominal else ""
    Result(
        name="train_step",
        machine=machine(),
        ours=speed,
        peers=median,
        unit="tokens/s",
        ratio_to_best_peer=statistics.median(ratios),
        share_of_limit=speed / limit,
        limit=limit,
        notes=f"{options.preset}, {recipe.model.num_hidden_layers} layers, vocabulary {options.vocab_size}, {options.rows} x"
        f" {options.sequence_length} tokens, {precision}, deterministic {recipe.train.deterministic}; packed documents"
        f" {packed:.0f} tokens/s; limit = GEMM of the same rounds, {peak / 1e9:.0f} GFLOP/s (best"
        f" {max(values['gemm']) / 1e9:.0f}), over forward+backward FLOPs a token with causal attention{usual}{notes}",
    ).show(options.json)


Arms = dict[str, Callable[[], Run]]
"""Makers of runs, so that on a GPU one is let go of before the next takes its memory."""


def _arms(recipe: Recipe, precision: str, device: torch.device, options: argparse.Namespace) -> Arms:
    dtype, tokens = DTYPES[precision], recipe.train.batch_tokens

    def ours(packed: bool) -> Run:
        step = Ours(recipe, precision, device, options.longest, options.inductor)
        return _timed(lambda: step(packed), tokens)

    arms: Arms = {
        "ours": lambda: ours(packed=False),
        "ours, packed": lambda: ours(packed=True),
        "gemm": lambda: lambda: matmul_rate(device, precision, tokens, recipe.model, seconds=0.5),
        "transformers compiled": lambda: _timed(_granite(recipe, dtype, device), tokens),
    }
    if not options.quick and device.type == "cpu":
        arms["transformers Trainer"] = lambda: _trainer(recipe, precision, device)
    if not options.quick and find_spec("litgpt"):
        arms["litgpt compiled"] = lambda: _timed(_litgpt(recipe, dtype, device), tokens)
    if options.arms is not None:
        arms = {name: arm for name, arm in arms.items() if name in ("ours", "ours, packed", "gemm", *options.arms)}
    return arms


def _taking_turns(recipe: Recipe, precision: str, options: argparse.Namespace) -> dict[str, list[float]]:
    """Measure each arm in a process of its own, one after another in every round."""
    context, ends = get_context("spawn"), {}
    for name in _arms(recipe, precision, torch.device("cpu"), options):
        ends[name], child = context.Pipe()
        context.Process(target=_serve, args=(child, name, recipe, precision, options), daemon=True).start()
        child.close()  # so that an arm that dies is an error here, and not waited for
        ends[name].recv()  # made, before the next is
    values: dict[str, list[float]] = {name: [] for name in ends}
    for number in range(2 + options.repeats):
        for name, end in ends.items():
            end.send(None)
            value = end.recv()
            if number > 1:  # compiled, and caches warm
                values[name].append(value)
    return values


def _serve(end: Connection, name: str, recipe: Recipe, precision: str, options: argparse.Namespace) -> None:
    run = _arms(recipe, precision, torch.device("cpu"), options)[name]()
    end.send(None)
    with suppress(EOFError):  # all is measured
        while True:
            end.recv()
            end.send(run())


def _in_turn(arms: Arms, repeats: int) -> tuple[dict[str, list[float]], str]:
    """Measure one arm after another, each with the GPU's memory to itself; the GPU is nobody else's."""
    values: dict[str, list[float]] = {}
    notes = ""
    for name, make in arms.items():
        torch.cuda.reset_peak_memory_stats()
        began = time.perf_counter()
        run = make()
        run()
        ready = time.perf_counter() - began
        run()
        values[name] = [run() for _ in range(repeats)]
        peak = torch.cuda.max_memory_allocated() / 1e9
        notes += f"; {name}: {statistics.median(values[name]):.6g}, ready after {ready:.0f} s, peak {peak:.1f} GB"
        print(notes.rpartition("; ")[2], flush=True)
        del run
        gc.collect()
        torch.cuda.empty_cache()
    return values, notes


def _timed(step: Callable[[], Any], tokens: int, steps: int = 3) -> Run:
    def speed() -> float:
        started = time.perf_counter()
        for _ in range(steps):
            step()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return steps * tokens / (time.perf_counter() - started)

    return speed


def _tokens(recipe: Recipe) -> torch.Tensor:
    rows, length = recipe.train.micro_batch_size, recipe.data.sequence_length + 1
    return torch.randint(recipe.model.vocab_size, (rows, length), generator=torch.Generator().manual_seed(0))


class Ours:
    """Our step, on rows of one document or of several."""

    def __init__(
        self,
        recipe: Recipe,
        precision: str,
        device: torch.device,
        longest: int = 400,
        inductor: Sequence[str] = (),
    ) -> None:
        pairs = (text.partition("=") for text in inductor)
        self.inductor = {key: json.loads(value) for key, _, value in pairs}
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        if not keep_freed_memory(device) and device.type == "cpu":  # as `xmodel2 train` does
            print("ours: memory that steps free is not kept here (xmodel2/train/allocator.py)", flush=True)
        self.deterministic = recipe.train.deterministic
        with torch.device("meta"):
            model = Xmodel2(recipe.model)
        self.steps = {
            packed: TrainStep(model, replace(recipe, {"data.mask_documents": packed}), precision, device)
            for packed in (False, True)
        }
        draw_weights(model, device, 0)
        self.optimizer = build_optimizer(model.train().named_parameters(), recipe.model, recipe.train)
        tokens = _tokens(recipe).numpy()
        inputs, targets = tokens[:, :-1].copy(), tokens[:, 1:].copy()
        lengths = np.random.default_rng(0).integers(40, longest, size=inputs.shape)
        documents = np.stack([np.repeat(np.arange(len(row)), row)[: len(row)] for row in lengths]).astype(np.int32)
        self.batch = Batch(inputs=inputs, targets=targets, document_ids=documents, sources=["x"] * len(inputs))

    def __call__(self, packed: bool) -> None:
        """Make one step."""
        step = self.steps[packed]
        torch.use_deterministic_algorithms(self.deterministic)  # not for the peers
        with inductor_config.patch(self.inductor):
            _, norm = step.gradients(self.batch, self.batch.targets.size)
        float(norm)
        step.apply(self.optimizer, norm)
        torch.use_deterministic_algorithms(False)

    def breakdown(self) -> str:
        """Return a table of the operations that a step's time goes to."""
        for _ in range(3):
            self(packed=False)
        with torch.profiler.profile(activities=list(torch.profiler.supported_activities())) as profile:
            for _ in range(3):
                self(packed=False)
        on_gpu = torch.cuda.is_available()
        if not on_gpu:
            return profile.key_averages().table(sort_by="self_cpu_time_total", row_limit=25, max_name_column_width=70)
        rows = [event for event in profile.key_averages() if event.device_type == torch.autograd.DeviceType.CUDA]
        rows.sort(key=lambda event: -event.self_device_time_total)
        whole = sum(event.self_device_time_total for event in rows)
        lines = [
            f"{event.self_device_time_total / 3e3:9.2f} ms {event.self_device_time_total / whole:6.1%} {event.count // 3:5}"
            f" x {event.key[:110]}"
            for event in rows[:45]
        ]
        return "\n".join([f"{whole / 3e3:9.2f} ms of kernels a step", *lines])


def _granite(recipe: Recipe, dtype: torch.dtype, device: torch.device) -> Callable[[], None]:
    with device:
        model = GraniteForCausalLM(GraniteConfig(**granite_config(recipe.model), use_cache=False))
    return _loop(model, model.model.layers, lambda output: output.logits, recipe, dtype, device)


def _litgpt(recipe: Recipe, dtype: torch.dtype, device: torch.device) -> Callable[[], None]:
    import litgpt

    size = recipe.model
    config = litgpt.Config(
        block_size=recipe.data.sequence_length,
        n_layer=size.num_hidden_layers,
        n_embd=size.hidden_size,
        n_head=size.num_attention_heads,
        n_query_groups=size.num_key_value_heads,
        head_size=size.head_dim,
        intermediate_size=size.intermediate_size,
        padded_vocab_size=size.vocab_size,
        rotary_percentage=1.0,
        parallel_residual=False,
        bias=False,
        norm_class_name="RMSNorm",
        mlp_class_name="LLaMAMLP",
    )
    with device:
        model = litgpt.GPT(config)
    return _loop(model, model.transformer.h, lambda logits: logits, recipe, dtype, device)


def _loop(
    model: nn.Module,
    blocks: Iterable[nn.Module],
    logits_of: Callable[[Any], torch.Tensor],
    recipe: Recipe,
    dtype: torch.dtype,
    device: torch.device,
) -> Callable[[], None]:
    """Return a plain training step of a compiled model: on a CPU as a whole, on a GPU, where that takes minutes, by block."""
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=1e-3, fused=True)
    tokens = _tokens(recipe).to(device)
    forward: Callable[[torch.Tensor], Any] = model
    if device.type == "cpu":
        forward, loss_of = torch.compile(model, dynamic=False), _mean_loss
    else:
        loss_of = torch.compile(_mean_loss, dynamic=False)
        for block in blocks:
            block.compile(dynamic=False)

    def step() -> None:
        with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
            logits = logits_of(forward(tokens[:, :-1]))
        loss = loss_of(logits, tokens[:, 1:])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()

    return step


def _mean_loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten())


def _trainer(recipe: Recipe, precision: str, device: torch.device) -> Run:
    """Return `Trainer` as its users run it, its own seconds a step without those that set it up."""
    from transformers import Trainer, TrainerCallback, TrainingArguments

    model = GraniteForCausalLM(GraniteConfig(**granite_config(recipe.model), use_cache=False))
    rows = [{"input_ids": row, "labels": row} for row in _tokens(recipe)[:, :-1]] * 5
    folder = tempfile.mkdtemp()

    class Clock(TrainerCallback):
        def __init__(self) -> None:
            self.ends: list[float] = []

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            self.ends.append(time.perf_counter())

    def speed() -> float:
        clock = Clock()
        arguments = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=recipe.train.micro_batch_size,
            max_steps=4,
            torch_compile=True,
            bf16=precision == "bf16",
            use_cpu=device.type == "cpu",
            optim="adamw_torch_fused",
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            dataloader_drop_last=True,
        )
        Trainer(model=model, args=arguments, train_dataset=rows, callbacks=[clock]).train()  # type: ignore[arg-type]
        spans = np.diff(clock.ends)
        return recipe.train.micro_batch_size * recipe.data.sequence_length * len(spans) / float(spans.sum())

    return speed


if __name__ == "__main__":
    main()
