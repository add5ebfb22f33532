"""Episodes/s of the agent benchmarks with a model: all at once in slots that keep their keys, beside one at a time.

    python -m benchmarks.agent_episodes [--quick] [--json] [--tasks hotpotqa fever] [--agents-dir DIR]
    python -m benchmarks.agent_episodes --device cuda --preset xl --vocab-size 65280 --dtype bfloat16 --limit 64

The peer is `lm_eval --model hf`, asked each turn's whole prompt as ReAct's notebooks ask their model: one episode after another,
and all that are open together in batches. A model of random weights seldom stops, so that every answer takes all of its tokens,
and says nothing that an environment understands: every episode takes all its steps. What takes one at a time plays the first
`--alone` episodes, since its rate does not depend on their number. Transcripts are compared: exits 1 if more than one step in
fifty differs in fp32 from those of one at a time: where two tokens are level to rounding, either is greedy.
"""

import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import zip_longest
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
    parser = argument_parser(__doc__, "8 episodes of FEVER, 2 one at a time, no peer")
    add_arguments(parser)
    parser.add_argument("--tasks", nargs="+", default=["fever", "hotpotqa"])
    parser.add_argument("--agents-dir", type=Path, help="real data; default: made-up worlds")
    parser.add_argument("--alone", type=int, default=4, help="episodes of what takes one at a time")
    parser.add_argument("--batch", type=int, default=16, help="batch size of the peer that is asked together")
    options = parser.parse_args()
    options.limit = options.limit or 32
    if options.quick:
        options.limit, options.alone, options.tasks, options.repeats = 8, 2, ["fever"], 1
    with tempfile.TemporaryDirectory() as folder:
        directory = model_directory(Path(folder), options)
        ours, plain = open_ours(directory, options), PlainHarness(directory, options)
        alone = open_ours(directory, options)
        alone._slots = 1
        arms: dict[str, Any] = {"ours": ours, "ours, one at a time": alone}
        if not options.quick:
            arms |= {"lm_eval, one at a time": Peer(plain, ours, 1)}
            arms |= {f"lm_eval, batch {options.batch}": Peer(plain, ours, options.batch)}
        limits = {arm: options.alone if "one at a time" in arm else options.limit for arm in arms}
        worlds = {name: open_benchmark(name, AgentOptions(agents_dir=options.agents_dir)) for name in options.tasks}
        pairs = [(name, arm) for name in worlds for arm in arms]
        played = dict[tuple[str, str], Episodes]()

        def run(name: str, arm: str) -> float:
            started = time.perf_counter()
            played[name, arm] = _play(worlds[name], arms[arm], limits[arm])
            return (time.perf_counter() - started) / len(played[name, arm])

        found = interleaved({f"{name} {arm}": partial(run, name, arm) for name, arm in pairs}, options.repeats)
        seconds = {(name, arm): found[f"{name} {arm}"] for name, arm in pairs}
    rates = {arm: len(worlds) / sum(seconds[name, arm] for name in worlds) for arm in arms}
    steps = [
        pair
        for name in worlds
        for one, other in zip(played[name, "ours"], played[name, "ours, one at a time"], strict=False)
        for pair in zip_longest(one["steps"], other["steps"])
    ]
    wrong = sum(one != other for one, other in steps)
    by_task = "; ".join(
        f"{name}: {len(played[name, 'ours'])} episodes of {_mean_steps(played[name, 'ours']):.1f} steps,"
        f" {1 / seconds[name, 'ours']:.3f} a second ("
        + ", ".join(f"{seconds[name, arm] / seconds[name, 'ours']:.2f} times {arm}" for arm in arms if arm != "ours")
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


def _mean_steps(episodes: Episodes) -> float:
    return sum(len(episode["steps"]) for episode in episodes) / len(episodes)


if __name__ == "__main__":
    main()
