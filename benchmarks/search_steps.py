"""Environment steps/s of HotpotQA without a model, beside ReAct's own environment on the same actions and articles.

    python -m benchmarks.search_steps [--quick] [--json] [--original DIR] [--data DIR]

The actions are what the oracle, the random player and the rule do. With --data, a folder of agent data, the questions are real.
DIR is a checkout of ysymyth/ReAct (pip install gym beautifulsoup4): its `wikienv.py` runs as it is. In place of `requests.get` it
gets a function that writes what our store finds as a page of HTML: no network is waited for, and the pages are bare, where
Wikipedia's have a hundred times as much to parse. Both are timed with the store searched each time, and with its answers kept,
which leaves the environments alone. All observations are compared but those of searched pages of meanings, which are counted: our
store does not suggest the page itself. Where nothing is found, ReAct's takes the page that says so for an article.
"""

import html
import importlib
import random
import sys
import time
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from benchmarks.harness import Result, argument_parser, interleaved, machine
from xmodel2.eval.agents.article_store import Articles
from xmodel2.eval.agents.environment import PLAYERS, Benchmark
from xmodel2.eval.agents.hotpotqa import hotpotqa_benchmark
from xmodel2.eval.agents.options import AgentOptions

Episodes = Sequence[tuple[int, list[str]]]
"""Number of a case, and what is done in it."""


def main() -> None:
    """Measure and print."""
    parser = argument_parser(__doc__, "30 questions")
    parser.add_argument("--original", type=Path, help="checkout of ysymyth/ReAct")
    parser.add_argument("--data", type=Path, help="folder of agent data")
    options = parser.parse_args()
    hotpotqa_steps(options.original, options.data, 30 if options.quick else 100).show(options.json)


def hotpotqa_steps(original: Path | None, data: Path | None, questions: int) -> Result:
    """Return steps/s of ours and, with a checkout, of ReAct's environment."""
    benchmark = hotpotqa_benchmark(AgentOptions(agents_dir=data))
    episodes = [(number, actions) for player in PLAYERS for number, actions in _played(benchmark, player, questions)]
    steps = sum(len(actions) for _, actions in episodes)
    store: Articles = benchmark.open(benchmark.cases[0]).articles  # type: ignore[attr-defined]
    kept = _Kept(store)
    plays = {
        "ours": partial(_ours, benchmark, episodes, store),
        "ours, kept": partial(_ours, benchmark, episodes, kept),
    }
    if original:
        sys.path.insert(0, str(original))
        module: Any = importlib.import_module("wikienv")
        plays["wikienv.py"] = partial(_theirs, module, episodes, store)
        plays["wikienv.py, kept"] = partial(_theirs, module, episodes, kept)
    seen: dict[str, list[str]] = {}

    def run(name: str) -> float:
        started = time.perf_counter()
        seen[name] = plays[name]()
        return steps / (time.perf_counter() - started)

    for name in plays:
        run(name)
    rates = interleaved({name: partial(run, name) for name in plays}, 5)
    notes = [
        f"{steps:,} steps of {len(episodes)} episodes",
        benchmark.world,
        f"answers kept: {rates['ours, kept']:,.0f}",
    ]
    theirs = rates.get("wikienv.py")
    if theirs:
        actions = [action for _, actions in episodes for action in actions]
        notes[-1] += f" against {rates['wikienv.py, kept']:,.0f}"
        notes.append(_compared(actions, seen["ours"], seen["wikienv.py"]))
    return Result(
        name="search steps",
        machine=machine(),
        ours=rates["ours"],
        peers={"ReAct's wikienv.py": theirs} if theirs else {},
        unit="HotpotQA steps/s",
        ratio_to_best_peer=rates["ours"] / theirs if theirs else None,
        share_of_limit=None,
        limit=None,
        notes="; ".join(notes),
    )


def _compared(actions: Sequence[str], ours: Sequence[str], theirs: Sequence[str]) -> str:
    """Say how many observations differ, and how many of those say that nothing is found."""
    meanings = [seen.startswith(f"Could not find [{action[7:-1]}]") for action, seen in zip(actions, ours, strict=True)]
    pairs = [pair for pair, left in zip(zip(ours, theirs, strict=True), meanings, strict=True) if not left]
    differing = [one for one, other in pairs if one != other]
    nothing = sum(one.endswith("Similar: [].") for one in differing)
    return (
        f"{len(differing)} of {len(pairs):,} observations differ, {nothing} of them where nothing is found;"
        f" {sum(meanings)} of pages of meanings left out"
    )


class _Kept:
    """A store whose answers are kept."""

    def __init__(self, store: Articles) -> None:
        self.find = cache(store.find)


def _played(benchmark: Benchmark, name: str, questions: int) -> Episodes:
    """Return what a player does up to the end of each episode, without what ends it: that observation tells a reward."""
    episodes = []
    for number, case in enumerate(benchmark.cases[:questions]):
        environment = benchmark.open(case)
        player, observation = benchmark.players[name](environment, random.Random(number)), environment.reset()
        actions = list[str]()
        while len(actions) < benchmark.step_limit:
            action = player.move(observation).action
            turn = environment.step(action)
            if turn.done:
                break
            actions.append(action)
            observation = turn.observation
        episodes.append((number, actions))
    return episodes


def _ours(benchmark: Benchmark, episodes: Episodes, articles: Any) -> list[str]:
    seen = []
    for number, actions in episodes:
        environment: Any = benchmark.open(benchmark.cases[number])
        environment.articles = articles
        environment.reset()
        seen += [environment.step(action).observation for action in actions]
    return seen


def _theirs(module: Any, episodes: Episodes, articles: Any) -> list[str]:
    module.requests = SimpleNamespace(get=partial(_page, articles))
    environment = module.WikiEnv()
    seen = list[str]()
    for _, actions in episodes:
        environment.reset()
        seen += [environment.step(action[0].lower() + action[1:])[0].removesuffix("\n") for action in actions]
    return seen


def _page(articles: Any, url: str) -> SimpleNamespace:
    """Return what Wikipedia's search answers: an article, a page of meanings, or a list of results."""
    entity = url.partition("?search=")[2].replace("+", " ")
    found = articles.find(entity)
    if found.article:
        body = "".join(f"<p>{html.escape(paragraph)}</p>" for paragraph in found.article.text.split("\n"))
    elif found.entity == f"[{entity}]":
        body = "<p>It may refer to:</p>"
    else:
        body = "".join(f'<div class="mw-search-result-heading">{html.escape(title)}</div>' for title in found.similar)
        body = body or "<p>There were no results matching the query.</p>"
    return SimpleNamespace(text=f"<html><body>{body}</body></html>")


if __name__ == "__main__":
    main()
