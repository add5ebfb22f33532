"""`xmodel2 serve` under load: errors, mixed-up answers, latencies and memory, beside the bare engine and `transformers serve`.

    python -m benchmarks.serve [--quick] [--json] [--model DIR] [--streams 64] [--seconds 60] [--new-tokens 48]

Streams ask chats at temperature 0 all the time, one after the other, each a prompt whose answer is known from asking it alone
before. An answer is mixed up if it begins more like the answer of another prompt than like its own; where two tokens are
level to rounding, a batch may decide otherwise than a prompt alone, which is counted apart. All events of a stream must have
one id. Then ours and its peers run in turn for a few seconds each, with the same prompts and settings: the bare engine (the
same llama.cpp server, asked in token ids, without our gateway) says what the gateway costs. Load generator, gateway and
engine share the machine. Without --model, a random-weight nano model is served. Exits 1 for any error or mix-up.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.harness import Result, argument_parser, machine
from xmodel2.errors import XmodelError
from xmodel2.release.serving.asking import ask, open_session
from xmodel2.release.serving.child import Elsewhere, Running
from xmodel2.release.serving.engines import Engine, choose
from xmodel2.release.serving.options import ServeOptions
from xmodel2.release.serving.requests import Asked
from xmodel2.release.serving.ways import OpenAIWay, Piece


@dataclass
class Load:
    """What streams saw."""

    answers: list[tuple[str, str]] = field(default_factory=list)
    """Prompt and answer."""
    errors: list[str] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    between: list[float] = field(default_factory=list)
    tokens: int = 0
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Tokens generated a second."""
        return self.tokens / self.seconds


class OneId(OpenAIWay):
    """Our server's language; the events of a stream have one id."""

    def __init__(self, model: str) -> None:
        super().__init__(model, None, {"stream_options": {"include_usage": True}})
        self._id: str | None = None

    def read(self, event: dict[str, Any]) -> Piece:
        if event["id"] != (self._id or event["id"]):
            raise ValueError("events of two answers in one stream")
        self._id = event["id"]
        return super().read(event)


async def load(
    engine: Engine, running: Running, prompts: list[str], streams: int, seconds: float, new_tokens: int
) -> Load:
    """Ask in ``streams`` at once for ``seconds`` (0: every prompt once); answers begun in time are finished and counted."""
    seen, began, turns = Load(), time.monotonic(), itertools.count()

    async def stream() -> None:
        while (turn := next(turns)) < len(prompts) if not seconds else time.monotonic() - began < seconds:
            await one(prompts[(turn if not seconds else next(turns)) % len(prompts)])

    async def one(prompt: str) -> None:
        own = replace(engine, way=OneId(engine.model)) if engine.kind == "ours" else engine
        asked = Asked(None, [{"role": "user", "content": prompt}], "", {"temperature": 0.0, "max_tokens": new_tokens})
        sent = last = time.monotonic()
        text, tokens, finished = "", 0, False
        try:
            async with contextlib.aclosing(ask(session, own, running, own.way.prepare(asked))) as pieces:
                async for piece in pieces:
                    now = time.monotonic()
                    if piece.text:
                        (seen.between if text else seen.first).append(now - (last if text else sent))
                        last = now
                    text += piece.text
                    tokens += piece.tokens
                    tokens = piece.all_tokens or tokens
                    finished = finished or piece.finish is not None
            if not finished:
                raise ValueError("an answer without an end")
            seen.answers.append((prompt, text))
            seen.tokens += tokens
        except Exception as error:
            seen.errors.append(f"{type(error).__name__}: {error}")

    async with open_session() as session:
        await asyncio.gather(*(stream() for _ in range(streams)))
    seen.seconds = time.monotonic() - began
    return seen


@contextmanager
def our_server(model: Path, options: argparse.Namespace) -> Iterator[tuple[Engine, Running]]:
    """Yield `xmodel2 serve` as a process."""
    command = [sys.executable, "-m", "xmodel2.cli", "serve", str(model), "--port", "0", "--json", "--quiet"]
    command += ["--engine", "llama", "--slots", str(options.streams), "--threads", str(options.threads)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            line = process.stdout.readline()
            if not line:
                sys.exit("xmodel2 serve did not start")
            told = json.loads(line)
            engine = Engine("ours", told["model"], OneId(told["model"]), lambda: running, options.streams, None)
            running = Elsewhere(told["url"], "")
            yield engine, running
        finally:
            process.terminate()


@contextmanager
def peer(kind: str, model: Path, options: argparse.Namespace) -> Iterator[tuple[Engine, Running]]:
    """Yield an engine without our gateway."""
    engine = choose(model, ServeOptions(engine=kind, slots=options.streams, threads=options.threads))
    running = engine.start()
    try:
        yield engine, running
    finally:
        running.close()


def memory(url: str) -> dict[str, float]:
    """Return the resident MiB that the metrics tell, by process."""
    with urllib.request.urlopen(url + "/metrics") as answer:
        lines = answer.read().decode().splitlines()
    found = (line for line in lines if line.startswith("xmodel2_memory_bytes{"))
    return {line.split('"')[1]: float(line.split()[-1]) / 2**20 for line in found}


def distinct(alone: Load, number: int) -> dict[str, str]:
    """Return prompts whose answers no other prompt has, at most ``number``."""
    answers = dict(alone.answers)
    texts = list(answers.values())
    return dict(itertools.islice(((p, a) for p, a in answers.items() if texts.count(a) == 1), number))


def mixed_up(seen: Load, expected: dict[str, str]) -> tuple[int, int]:
    """Return how many answers are more like another prompt's than like their own, and how many else differ."""
    swapped = other = 0
    for prompt, answer in seen.answers:
        if answer == expected[prompt]:
            continue
        shared = {p: shared_length(answer, text) for p, text in expected.items()}
        if max(shared.values()) > shared[prompt] or not shared[prompt]:
            swapped += 1
        else:
            other += 1
    return swapped, other


def shared_length(a: str, b: str) -> int:
    """Return how many letters two texts begin with in common."""
    return next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def quantiles(values: list[float]) -> str:
    """Return the median and the 99th percentile in ms."""
    cuts = statistics.quantiles(values, n=100)
    return f"{1000 * cuts[49]:.1f}/{1000 * cuts[98]:.1f} ms"


def questions(number: int) -> list[str]:
    """Return short questions."""
    animals = [
        "cats",
        "ants",
        "cows",
        "crabs",
        "spiders",
        "ducks",
        "bees",
        "dogs",
        "horses",
        "flies",
        "shrimps",
        "wasps",
    ]
    pairs = list(itertools.permutations(animals, 2))
    form = "How many legs are there in total if you have {} {} and {} {}?"
    return [
        form.format(n % 7 + 2, a, n % 5 + 2, b)
        for n, (a, b) in enumerate(itertools.islice(itertools.cycle(pairs), number))
    ]


async def measure(
    targets: dict[str, tuple[Engine, Running]], options: argparse.Namespace
) -> tuple[str, int, dict[str, float]]:
    """Return what is noted of ours, its errors and mix-ups, and the tokens/s of each."""
    engine, running = targets["ours"]
    new, streams = options.new_tokens, options.streams
    alone = await load(engine, running, questions(2 * streams), 1, 0, new)
    expected = distinct(alone, streams)
    prompts = list(expected)
    if alone.errors or len(prompts) < 2:
        sys.exit(f"asked alone: {len(alone.errors)} errors ({alone.errors[:1]}), {len(prompts)} answers that differ")
    # `transformers serve` answers one at a time on a CPU: 64 would wait for minutes, at the same rate.
    at_once = {name: 2 if each.kind == "transformers" else streams for name, (each, _) in targets.items()}
    for name, (each, where) in targets.items():
        await load(each, where, prompts, at_once[name], options.warm, new)
    before = memory(running.url)
    seen = await load(engine, running, prompts, streams, options.seconds, new)
    after = memory(running.url)
    swapped, flipped = mixed_up(seen, expected)
    rates: dict[str, list[float]] = {name: [] for name in targets}
    gaps: dict[str, list[float]] = {name: [] for name in targets}
    for _ in range(options.rounds):
        for name, (each, where) in targets.items():
            part = await load(each, where, prompts, at_once[name], options.round_seconds, new)
            rates[name].append(part.rate)
            gaps[name] += part.first
            seen.errors += [f"{name}: {error}" for error in part.errors]
    grown = ", ".join(f"{name} {before[name]:.1f} to {after[name]:.1f} MiB" for name in before)
    firsts = ", ".join(f"{name} {quantiles(found)}" for name, found in gaps.items())
    note = (
        f"{streams} streams for {seen.seconds:.0f} s, {len(prompts)} prompts, {new} new tokens at most: {len(seen.answers):,}"
        f" answers, {seen.rate:,.0f} tokens/s, {len(seen.errors)} errors{seen.errors[:1] or ''}, {swapped} mixed up,"
        f" {flipped} differ from asking alone (ties); p50/p99 first token {quantiles(seen.first)}, between events"
        f" {quantiles(seen.between)}; memory {grown}; then {options.rounds} rounds of {options.round_seconds} s in turn,"
        f" first token: {firsts}"
    )
    return note, len(seen.errors) + swapped, {name: statistics.median(found) for name, found in rates.items()}


def main() -> None:
    """Measure and print."""
    parser = argument_parser(__doc__, "8 s, then 3 rounds of 2 s, no `transformers serve`")
    parser.add_argument("--model", type=Path, help="run or native directory (default: a random-weight nano)")
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--new-tokens", type=int, default=48)
    parser.add_argument(
        "--threads", type=int, default=1, help="of the engine; gateway and load generator need a core too"
    )
    options = parser.parse_args()
    options.warm, options.rounds, options.round_seconds = (0.5, 3, 2) if options.quick else (5, 5, 5)
    options.seconds = min(options.seconds, 8) if options.quick else options.seconds
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        model = options.model or random_model(Path(folder))
        targets = {"ours": stack.enter_context(our_server(model, options))}
        targets["the bare engine"] = stack.enter_context(peer("llama", model, options))
        if not options.quick and (model / "config.json").exists():
            with contextlib.suppress(XmodelError):
                targets["transformers serve"] = stack.enter_context(peer("transformers", model, options))
        note, wrong, rates = asyncio.run(measure(targets, options))
    ours, bare = rates.pop("ours"), rates["the bare engine"]
    Result(
        name="serve",
        machine=machine(),
        ours=ours,
        peers=rates,
        unit="tokens/s",
        ratio_to_best_peer=ours / max(rates.values()),
        share_of_limit=ours / bare,
        limit=bare,
        notes=note,
    ).show(options.json)
    sys.exit(1 if wrong else 0)


def random_model(folder: Path) -> Path:
    """Write a native directory of random weights and a tokenizer of made-up words."""
    from benchmarks.evaluation_peers import model_directory

    return model_directory(folder, argparse.Namespace(model=None, preset="nano", vocab_size=2048, dtype="float32"))


if __name__ == "__main__":
    main()
