"""Episodes/s of the agent benchmarks with a model: all at once in slots that keep their keys, beside one at a time.

    python -m benchmarks.agent_episodes [--quick] [--json] [--tasks hotpotqa webshop] [--agents-dir DIR]
    python -m benchmarks.agent_episodes --device cuda --preset xl --vocab-size 65280 --dtype bfloat16 --limit 64

The peer is `lm_eval --model hf`, asked each turn's whole prompt as ReAct's notebooks ask their model: one episode after another,
and all that are open together in batches. A model of random weights seldom stops, so that every answer takes all of its tokens,
and says nothing that an environment understands: every episode takes all its steps. Transcripts are compared: exits 1 if more
than one step in fifty differs in fp32 from those of one at a time: where two tokens are level to rounding, either is greedy.
"""

import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lm_eval.api.instance import Instance

from benchmarks.evaluation_peers import PlainHarness, add_arguments, model_directory, open_ours
from benchmarks.harness import Result, argument_parser, interleaved, machine
from xmodel2.eval.agents.benchmarks import open_benchmark
from xmodel2.eval.agents.environment import Benchmark
from xmodel2.eval.agents.options import AgentOptions
from xmodel2.eval.agents.runner import AgentRun
from xmodel2.eval.answer_cache import AnswerCache
from xmodel2.eval.backend import Backend, Prompt
from xmodel2.eval.conversation import Reply, converse_in_waves
from xmodel2.eval.engine import Engine

Episodes = list[dict[str, Any]]


class Peer:
    """`lm_eval --model hf` as a backend of the runner."""

    def __init__(self, plain: PlainHarness, ours: Engine, width: int) -> None:
        self._plain, self._width = plain, width
        self.max_length, self.token_counts = ours.max_length, ours.token_counts

    def generate(self, prompts: Sequence[Prompt]) -> Iterator[tuple[int, str]]:
        """Answer all prompts in batches of its width."""
        settings = [{"until": list(p.until), "do_sample": False, "max_gen_toks": p.max_new_tokens} for p in prompts]
        asked = [
            Instance("generate_until", {}, (prompt.text, setting), number)
            for number, (prompt, setting) in enumerate(zip(prompts, settings, strict=True))
        ]
        return iter(enumerate(self._plain.generate(self._width, asked)))

    def converse(self, conversations: Iterator[tuple[int, Prompt]], reply: Reply) -> None:
        """Ask turn by turn."""
        converse_in_waves(self, conversations, reply, self._width)  # type: ignore[arg-type]


def main() -> None:
    """Measure and print."""
    parser = argument_parser(__doc__, "4 episodes of HotpotQA, no batches of the peer")
    add_arguments(parser)
    parser.add_argument("--tasks", nargs="+", default=["hotpotqa", "fever", "webshop"])
    parser.add_argument("--agents-dir", type=Path, help="real data; default: made-up worlds")
    parser.add_argument("--batch", type=int, default=16, help="batch size of the peer that is asked together")
    options = parser.parse_args()
    options.limit = options.limit or 32
    if options.quick:
        options.limit, options.tasks, options.repeats = 4, ["hotpotqa"], 1
    with tempfile.TemporaryDirectory() as folder:
        directory = model_directory(Path(folder), options)
        ours, plain = open_ours(directory, options), PlainHarness(directory, options)
        alone = open_ours(directory, options)
        alone._slots = 1
        arms: dict[str, Any] = {
            "ours": ours,
            "ours, one at a time": alone,
            "lm_eval, one at a time": Peer(plain, ours, 1),
        }
        if not options.quick:
            arms[f"lm_eval, batch {options.batch}"] = Peer(plain, ours, options.batch)
        worlds = {name: open_benchmark(name, AgentOptions(agents_dir=options.agents_dir)) for name in options.tasks}
        played = {
            f"{name} {arm}": _play(world, arms[arm], options.limit) for name, world in worlds.items() for arm in arms
        }
        runs: dict[str, Callable[[], float]] = {
            f"{name} {arm}": partial(_time, worlds[name], arms[arm], options.limit) for name in worlds for arm in arms
        }
        seconds = interleaved(runs, options.repeats)
    episodes = {name: len(played[f"{name} ours"]) for name in worlds}
    rates = {arm: sum(episodes.values()) / sum(seconds[f"{name} {arm}"] for name in worlds) for arm in arms}
    steps = [
        pair
        for name in worlds
        for one, other in zip(played[f"{name} ours"], played[f"{name} ours, one at a time"], strict=True)
        for pair in zip(one["steps"], other["steps"], strict=False)
    ]
    wrong = sum(one != other for one, other in steps)
    by_task = "; ".join(
        f"{name} {episodes[name]} episodes of {sum(len(item['steps']) for item in played[f'{name} ours']) / episodes[name]:.1f}"
        f" steps, {episodes[name] / seconds[f'{name} ours']:.2f} a second ("
        + ", ".join(
            f"{seconds[f'{name} {arm}'] / seconds[f'{name} ours']:.2f} times {arm}" for arm in arms if arm != "ours"
        )
        + ")"
        for name in worlds
    )
    speed = rates.pop("ours")
    Result(
        name="agent_episodes",
        machine=machine(),
        ours=speed,
        peers=rates,
        unit="episodes/s",
        ratio_to_best_peer=speed / max(rates.values()),
        share_of_limit=None,
        limit=None,
        notes=f"{options.model or options.preset}, context {ours.max_length}, vocabulary {ours.network.config.vocab_size},"
        f" {options.dtype}; {by_task}; {len(steps) - wrong} of {len(steps)} steps equal to those of one at a time",
    ).show(options.json)
    sys.exit(1 if wrong * 50 > len(steps) and options.dtype == "float32" else 0)


def _play(world: Benchmark, backend: Backend, limit: int) -> Episodes:
    with tempfile.TemporaryDirectory() as out:
        return AgentRun(world, backend, AnswerCache(Path(out)), Path(out)).play(limit)


def _time(world: Benchmark, backend: Backend, limit: int) -> float:
    started = time.perf_counter()
    _play(world, backend, limit)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
