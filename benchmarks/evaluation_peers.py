"""What the two benchmarks of evaluation share: a model directory, questions, and lm-evaluation-harness's own model class.

preset + embedded text -> model_directory    -> a Granite of random weights with a tokenizer
task names + rows             -> questions          -> the harness's requests by task, made once for everyone
the directory                 -> PlainHarness       -> `lm_eval --model hf`, at any batch size
                              -> peak_memory        -> bytes that answering adds, in a process of its own
"""

import argparse
import json
import logging
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from benchmarks.evaluation_rows import write_rows
from benchmarks.harness import interleaved
from xmodel2.data.embedded import embedded_corpus
from xmodel2.errors import XmodelError
from xmodel2.eval.backend import Backend, Prompt
from xmodel2.eval.definitions import build_tasks
from xmodel2.eval.engine import Engine
from xmodel2.eval.mirror import Mirror
from xmodel2.eval.model_options import ModelOptions
from xmodel2.eval.open_model import open_backend
from xmodel2.eval.prefix_tree import common_length
from xmodel2.model import Xmodel2
from xmodel2.model.convert import as_granite
from xmodel2.recipe import recipe_from_dict
from xmodel2.tokenizer import train_unigram
from xmodel2.train.device import DTYPES, matmul_rate

Questions = dict[str, list[Instance]]
"""Requests by task."""
Arm = Callable[[list[Instance]], list[Any]]
"""Answers requests, in their order."""
REAL_ROWS = Path("../shared/data/eval")
_PIECES = 8192
"""The tokenizer's; a larger vocabulary leaves the rest of the head without text, at the same cost."""
_DOCUMENTS = 8
"""Of a part of a task, at least."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what both benchmarks take."""
    parser.add_argument("--model", type=Path, help="directory in Hugging Face layout; default: one of random weights")
    parser.add_argument("--preset", default="nano")
    parser.add_argument("--vocab-size", type=int, default=_PIECES)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--data-dir", type=Path, default=REAL_ROWS, help="benchmark rows; without, rows are made up")
    parser.add_argument("--limit", type=int, help="documents of a task")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--peer", choices=("vllm",), help="one more peer, where it is installed")
    parser.add_argument("--skip-memory", action="store_true")


def model_directory(folder: Path, options: argparse.Namespace) -> Path:
    """Return the model that is asked for, or write one of random weights as `export` does."""
    if options.model:
        return Path(options.model)
    train_unigram(embedded_corpus(300_000), _PIECES, folder, max_bytes=1_000_000)
    torch.manual_seed(0)
    settings = recipe_from_dict({"model": {"preset": options.preset, "vocab_size": options.vocab_size}}).model
    granite = as_granite(Xmodel2(settings), settings)
    granite.generation_config.eos_token_id = 2
    # As drawn, it repeats its input with certainty and anything else costs tens of nats, beyond what fp32 can add up to 1e-3.
    granite.model.norm.weight.data.mul_(0.1)
    granite.to(getattr(torch, options.dtype)).save_pretrained(folder)
    return folder


def open_ours(directory: Path, options: argparse.Namespace) -> Engine:
    """Return our engine on a model."""
    opened = open_backend(str(directory), ModelOptions(device=options.device, dtype=options.dtype))
    assert isinstance(opened, Engine)
    return opened


def open_vllm(directory: Path, options: argparse.Namespace) -> Backend:
    """Return vLLM on a model; end with what is missing where it does not start."""
    try:
        return open_backend(str(directory), ModelOptions(backend="vllm", dtype=options.dtype))
    except XmodelError as error:
        raise SystemExit(str(error)) from None


class PlainHarness:
    """A model as `lm_eval --model hf` runs it."""

    def __init__(self, directory: Path, options: argparse.Namespace) -> None:
        logging.getLogger("lm_eval").setLevel(logging.ERROR)
        self._model = HFLM(str(directory), dtype=options.dtype, device=options.device, batch_size=1)

    @property
    def model(self) -> Any:
        """The model itself."""
        return self._model.model

    def score(self, batch_size: int, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Return (log-probability, whether greedy) of each continuation."""
        self._model.batch_size_per_gpu = batch_size
        return self._model.loglikelihood(requests, disable_tqdm=True)

    def generate(self, batch_size: int, requests: list[Instance]) -> list[str]:
        """Return the text after each prompt."""
        self._model.batch_size_per_gpu = batch_size
        return self._model.generate_until(requests, disable_tqdm=True)


def score(backend: Backend, requests: Sequence[Instance]) -> list[tuple[float, bool]]:
    """Return a backend's log-probabilities in the order of the requests."""
    found = dict(backend.loglikelihood([request.args for request in requests]))
    return [found[index] for index in range(len(requests))]


def generate(backend: Backend, requests: Sequence[Instance]) -> list[str]:
    """Return a backend's texts in the order of the requests."""
    asked = [
        Prompt(request.args[0], tuple(request.args[1]["until"]), request.args[1]["max_gen_toks"])
        for request in requests
    ]
    found = dict(backend.generate(asked))
    return [found[index] for index in range(len(requests))]


def questions(names: Sequence[str], options: argparse.Namespace, folder: Path) -> Questions:
    """Return the requests of the first ``limit`` documents of each task that has rows, of a few parts if it has parts."""
    limit: int = options.limit
    data = options.data_dir
    if not data.is_dir():
        data = folder / "rows"
        write_rows(data, names)
    found: Questions = {}
    for name in names:
        try:
            built = build_tasks([name], Mirror(data))[name]
        except XmodelError as error:
            print(f"{name} is left out: {error}", file=sys.stderr)
            continue
        parts = list(built.parts.values())[: max(1, limit // _DOCUMENTS)]
        for part in parts:
            part.build_all_requests(limit=limit // len(parts), rank=0, world_size=1)
        found[name] = [request for part in parts for request in part.instances]
    return found


def documents(requests: Sequence[Instance]) -> int:
    """Return how many documents the requests are of."""
    return len({(request.task_name, request.doc_id) for request in requests})


@dataclass(frozen=True)
class Measured:
    """What arms answered, by arm and task, and in how many seconds (medians of interleaved rounds)."""

    answers: dict[str, dict[str, list[Any]]]
    seconds: dict[str, dict[str, float]]

    def rates(self, amounts: Mapping[str, float], times: Mapping[str, float]) -> dict[str, float]:
        """Return by arm how much it answers a second if each task, which holds an amount, comes so many times."""
        whole = sum(amounts[name] * times[name] for name in times)
        return {arm: whole / sum(spent[name] * times[name] for name in times) for arm, spent in self.seconds.items()}


def measure(arms: Mapping[str, Arm], asked: Questions, options: argparse.Namespace) -> Measured:
    """Let every arm answer every task once and keep what it says; then time them in turn."""

    def run(arm: str, name: str) -> float:
        started = time.perf_counter()
        arms[arm](asked[name])
        if options.device != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter() - started

    answers = {arm: {name: answer(found) for name, found in asked.items()} for arm, answer in arms.items()}
    medians = interleaved({f"{name} {arm}": partial(run, arm, name) for name in asked for arm in arms}, options.repeats)
    return Measured(answers, {arm: {name: medians[f"{name} {arm}"] for name in asked} for arm in arms})


def matrix_rate(engine: Engine, rows: int) -> float:
    """Return FLOP/s of the model's widest product with ``rows`` rows."""
    names = {dtype: name for name, dtype in DTYPES.items()}
    return matmul_rate(engine.network.device, names[engine.network.dtype], rows, engine.network.config, seconds=1.0)


def least_flops(engine: Engine, sequences: Iterable[tuple[list[int], int]]) -> float:
    """Return the FLOPs of (ids, how many of the last get logits) if nothing is computed twice: of the tree of them all."""
    tokens = attended = 0
    wanted = set[int]()
    nodes, before = list[int](), list[int]()
    for ids, logits in sorted(sequences):
        common = common_length(before, ids)
        new = len(ids) - common
        attended += sum(range(common + 1, len(ids) + 1))
        nodes = nodes[:common] + list(range(tokens, tokens + new))
        wanted.update(nodes[-logits:])
        tokens, before = tokens + new, ids
    config, model = engine.network.config, engine.network.model
    matrices = sum(p.numel() for name, p in model.named_parameters() if p.dim() == 2 and "layers." in name)
    attention = 4 * config.num_hidden_layers * config.hidden_size * attended
    return 2.0 * matrices * tokens + attention + 2.0 * config.vocab_size * config.hidden_size * len(wanted)


def peak_memory(arm: str, kind: str, directory: Path, asked: Questions, options: argparse.Namespace) -> int:
    """Return the bytes that answering needs beyond the loaded model, in a process of its own.

    ``arm`` is "ours" or a batch size of the harness, ``kind`` is loglikelihood or generate_until.
    """
    requests = [request.args for found in asked.values() for request in found]
    job = {"arm": arm, "kind": kind, "directory": str(directory), "requests": requests}
    command = [sys.executable, "-m", "benchmarks.evaluation_peers", options.device, options.dtype]
    done = subprocess.run(command, input=json.dumps(job), stdout=subprocess.PIPE, text=True, check=True)
    return int(done.stdout.splitlines()[-1])


def memory_note(kind: str, directory: Path, asked: Questions, best: str, options: argparse.Namespace) -> str:
    """Return the peak memory of ours and of the harness at batch size 1 and at its ``best``, in MiB."""
    if options.skip_memory:
        return ""
    sizes = ["ours", *dict.fromkeys(("1", best.rpartition(" ")[2]))]
    found = {size: peak_memory(size, kind, directory, asked, options) / 2**20 for size in sizes}
    theirs = ", ".join(f"lm_eval at batch {size} {mib:.0f}" for size, mib in found.items() if size != "ours")
    return f"; peak memory beyond the loaded model: ours {found['ours']:.0f} MiB, {theirs}"


def _measure_memory() -> None:
    options = argparse.Namespace(device=sys.argv[1], dtype=sys.argv[2])
    job = json.loads(sys.stdin.read())
    directory, scoring = Path(job["directory"]), job["kind"] == "loglikelihood"
    requests = [Instance(job["kind"], {}, tuple(args), number) for number, args in enumerate(job["requests"])]
    answer: Arm
    if job["arm"] == "ours":
        answer = partial(score if scoring else generate, open_ours(directory, options))
    else:
        plain = PlainHarness(directory, options)
        answer = partial(plain.score if scoring else plain.generate, int(job["arm"]))
    answer(requests[:1])  # what libraries allocate once
    before = _peak(options.device, reset=True)
    answer(requests)
    print(_peak(options.device) - before)


def _peak(device: str, reset: bool = False) -> int:
    """Return the most bytes that were held so far; with ``reset`` count from now on, from what is held now."""
    if device != "cpu":
        if reset:
            torch.cuda.reset_peak_memory_stats()
        return torch.cuda.max_memory_allocated()
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines["VmHWM"].split()[0]) * 1024


if __name__ == "__main__":
    _measure_memory()
