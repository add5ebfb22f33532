"""Answers of a chat in tokens/s: our default serving path, our own generation, and `transformers`, on the same exported model.

    python -m benchmarks.chat_speed [--quick] [--json] [--models nano micro small DIR] [--batches 1 8 64]
    python -m benchmarks.chat_speed --device cuda --models xl --vocab-size 65280 --batches 1 64

A model is a preset (random weights, a vocabulary of 8,192) or a native directory. Every arm answers the same questions
greedily with --new-tokens tokens, whatever would end an answer (of vLLM: if nothing does), each round others, so that no
cache knows them; the time is that of the whole, prompts included. Arms: `serve` is what chat and serve run by default,
llama.cpp with 16 slots behind our client: one question is streamed, several are asked by as many threads for whole answers
(--kinds names weights; streams of many slots wake each other at every token in llama.cpp's server, which costs up to half);
`generate` our own model; `eval` our evaluation's continuous batching; `transformers` its `generate` with a dynamic cache, with
a static one, and compiled too (--no-compile leaves that out). ratio_to_best_peer is the worst of all models and batches, over
`transformers` and `generate`. The limit is that of memory: bytes copied a second over the bytes of weights in 16 bits, which
every step of one stream reads (a model may fit in a processor's cache and pass it). On a GPU there is no llama.cpp here, ours
is `generate` in bf16, and vLLM, our default there, is one more arm where it is installed.
"""

import argparse
import importlib.util
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.evaluation_peers import model_directory
from benchmarks.harness import Result, argument_parser, machine
from xmodel2.eval.backend import Backend, Prompt
from xmodel2.eval.engine import Engine
from xmodel2.eval.model_options import ModelOptions
from xmodel2.eval.open_model import open_backend
from xmodel2.model.convert import no_progress_bar
from xmodel2.model.count import parameter_count
from xmodel2.model.generate import generate
from xmodel2.recipe import PRESETS
from xmodel2.release.chatting.streams import Sampling
from xmodel2.release.chatting.token_streams import as_text, llama_sampling
from xmodel2.release.llama_server import LlamaServer
from xmodel2.release.served import served_model
from xmodel2.release.served_slots import MOST_SLOTS
from xmodel2.release.serving.options import ServeOptions
from xmodel2.release.trained import open_trained
from xmodel2.tokenizer import Message, Tokenizer, load_tokenizer

Arm = Callable[[list[list[int]]], object]
"""Continues prompts by as many tokens as the options say."""
_SUBJECTS = ("a ship", "the sum of two numbers", "rain", "a list in Python", "an old clock", "tea", "winter", "maps")


def questions(count: int, seed: int) -> list[list[Message]]:
    """Return chats of one question each; no two begin alike, whatever the seed."""
    return [
        [{"role": "user", "content": f"{seed * count + n}: tell me about {_SUBJECTS[n % len(_SUBJECTS)]}, in short."}]
        for n in range(count)
    ]


@dataclass
class Peers:
    """The arms of one model in one directory."""

    directory: Path
    options: argparse.Namespace
    batch: int

    def __post_init__(self) -> None:
        self.tokenizer: Tokenizer = load_tokenizer(self.directory)
        self._model = open_trained(self.directory).load().to(self.options.device, self._dtype)

    @property
    def _dtype(self) -> torch.dtype:
        return torch.float32 if self.options.device == "cpu" else torch.bfloat16

    def arms(self, stack: ExitStack) -> Iterator[tuple[str, Arm]]:
        """Yield name and arm, ours first; what they hold is let go of with ``stack``."""
        if self.options.device == "cpu":
            for kind in self.options.kinds:
                yield "serve" if kind == self.options.kinds[0] else f"serve {kind}", self._served(stack, kind)
        yield "generate", lambda prompts: generate(self._model, prompts, self.options.new_tokens, [])
        dtype: Any = str(self._dtype).removeprefix("torch.")
        engine = open_backend(str(self.directory), ModelOptions(device=self.options.device, dtype=dtype))
        assert isinstance(engine, Engine)
        engine.text.stop_ids.clear()
        yield "eval", partial(self._evaluated, engine)
        if self.options.device != "cpu" and importlib.util.find_spec("vllm"):
            vllm = open_backend(str(self.directory), ModelOptions(backend="vllm", dtype=dtype))
            yield "vllm", partial(self._evaluated, vllm)
        yield from self._transformers()

    def _served(self, stack: ExitStack, kind: str) -> Arm:
        served = served_model(self.directory, kind)
        context = min(served.context, 512)
        server = LlamaServer(
            served.gguf, context=context, slots=min(self.batch, MOST_SLOTS), threads=self.options.threads
        )
        stack.callback(server.close)
        pool = stack.enter_context(ThreadPoolExecutor(self.batch))
        greedy = llama_sampling(Sampling(), context) | {"n_predict": self.options.new_tokens, "ignore_eos": True}

        def ask(prompt: list[int]) -> None:
            body = {"prompt": prompt, "return_tokens": True, **greedy}
            if self.batch > 1:
                server.post("/completion", body)
                return
            events = server.stream("/completion", body)
            for _ in as_text((token for event in events for token in event["tokens"]), self.tokenizer):
                pass

        return lambda prompts: list(pool.map(ask, prompts))

    def _evaluated(self, backend: Backend, prompts: list[list[int]]) -> None:
        texts = [Prompt(self.tokenizer.decode(ids), (), self.options.new_tokens) for ids in prompts]
        for _ in backend.generate(texts):
            pass

    def _transformers(self) -> Iterator[tuple[str, Arm]]:
        from transformers import AutoModelForCausalLM

        with no_progress_bar():
            model = AutoModelForCausalLM.from_pretrained(self.directory, dtype=self._dtype).to(self.options.device)
        model.eval().generation_config.eos_token_id = None
        yield "transformers", partial(self._their_generate, model, {})
        static = {"cache_implementation": "static"}
        yield "transformers static", partial(self._their_generate, model, static | {"disable_compile": True})
        if self.options.compile:
            from transformers import CompileConfig

            config: Any = CompileConfig(
                mode="default" if self.options.device == "cpu" else "reduce-overhead", dynamic=False
            )
            if self.options.device == "cpu":
                config._compile_all_devices = True  # else it compiles on GPUs only
            yield "transformers compiled", partial(self._their_generate, model, static | {"compile_config": config})

    def _their_generate(self, model: Any, settings: dict[str, Any], prompts: list[list[int]]) -> None:
        longest, pad = max(map(len, prompts)), self.tokenizer.pad_id
        ids = torch.tensor([[pad] * (longest - len(row)) + row for row in prompts], device=model.device)
        model.generate(
            ids,
            attention_mask=(ids != pad).long(),
            max_new_tokens=self.options.new_tokens,
            do_sample=False,
            pad_token_id=pad,
            **settings,
        )


def rates(directory: Path, options: argparse.Namespace, batch: int) -> dict[str, float]:
    """Return tokens/s of every arm, the medians of interleaved rounds after one that is not counted."""
    with ExitStack() as stack:
        peers = Peers(directory, options, batch)
        arms = dict(peers.arms(stack))
        found: dict[str, list[float]] = {name: [] for name in arms}
        for number in range(options.repeats + 1):
            prompts = [peers.tokenizer.encode_prompt(chat) for chat in questions(batch, number)]
            for name, arm in arms.items():
                began = time.perf_counter()
                arm(prompts)
                found[name].append(batch * options.new_tokens / (time.perf_counter() - began))
    return {name: statistics.median(values[1:]) for name, values in found.items()}


def copied_bytes_a_second(device: str) -> float:
    """Return the bytes read and written a second by copying 256 MiB."""
    source = torch.ones(2**26, device=device)
    target, best = torch.empty_like(source), 0.0
    for _ in range(10):
        began = time.perf_counter()
        target.copy_(source)
        if device != "cpu":
            torch.cuda.synchronize()
        best = max(best, 2 * source.nbytes / (time.perf_counter() - began))
    return best


def main() -> None:
    """Measure and print."""
    kinds = list(dict.fromkeys((ServeOptions().kind, "f16", "q8_0")))
    parser = argument_parser(__doc__, "nano, batches 1 and 8, 32 tokens, nothing compiled")
    parser.add_argument("--models", nargs="+", default=["nano", "micro", "small"], help="presets or directories")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--kinds", nargs="+", default=kinds, help="GGUF kinds; the first is `serve`")
    parser.add_argument("--threads", type=int, default=0, help="of llama.cpp and torch; 0: their own choice")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--vocab-size", type=int, default=8192)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    options = parser.parse_args()
    if options.quick:
        options.models, options.batches, options.new_tokens, options.compile = ["nano"], [1, 8], 32, False
    if options.threads:
        torch.set_num_threads(options.threads)
    measured: dict[str, dict[str, float]] = {}
    parameters: dict[str, int] = {}
    for name in options.models:
        with tempfile.TemporaryDirectory() as folder:
            directory = _directory(name, Path(folder), options)
            parameters[name] = parameter_count(open_trained(directory).settings)
            for batch in options.batches:
                measured[f"{name}, batch {batch}"] = found = rates(directory, options, batch)
                if not options.json:
                    print(f"{name}, batch {batch}: " + _row(found), flush=True)
    first = next(iter(measured.values()))
    ours = next(iter(first))
    limit = copied_bytes_a_second(options.device) / (2 * parameters[options.models[0]])
    worst, where = min((_ratio(found, ours), cell) for cell, found in measured.items())
    Result(
        name="chat_speed",
        machine=machine(),
        ours=first[ours],
        peers={name: rate for name, rate in first.items() if name != ours},
        unit="tokens/s",
        ratio_to_best_peer=worst,
        share_of_limit=first[ours] / limit if options.batches[0] == 1 else None,
        limit=limit,
        notes=f"ours is {ours}; figures of {next(iter(measured))}; worst ratio at {where}; {options.new_tokens}"
        f" tokens; " + "; ".join(f"{cell}: {_row(found)}" for cell, found in measured.items()),
    ).show(options.json)


def _ratio(found: dict[str, float], ours: str) -> float:
    peers = [rate for name, rate in found.items() if name != ours and name.startswith(("transformers", "generate"))]
    return found[ours] / max(peers)


def _row(found: dict[str, float]) -> str:
    return ", ".join(f"{name} {rate:.4g}" for name, rate in found.items())


def _directory(name: str, folder: Path, options: argparse.Namespace) -> Path:
    """Return a directory of a preset's random weights, or a link to the one that is named, so that nothing is written there."""
    if name in PRESETS:
        wanted = argparse.Namespace(model=None, preset=name, vocab_size=options.vocab_size, dtype="float32")
        return model_directory(folder, wanted)
    for file in Path(name).iterdir():
        if file.is_file():
            (folder / file.name).symlink_to(file.resolve())
    return folder


if __name__ == "__main__":
    main()
