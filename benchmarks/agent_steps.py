"""Environment steps/s without a model: WebShop's text modes beside the original environment, and the other agent worlds.

    python -m benchmarks.agent_steps [--quick] [--json] [--original DIR]

DIR is a checkout of princeton-nlp/WebShop, whose code is run as it is, in this process (it needs flask, beautifulsoup4 and
gym); without it only ours is measured. Both play the same random walks over the made-up catalogue in the released layout.
In place of the original's Lucene index (Java) and its reward (spaCy's large model) it gets our search and reward, so that what
differs is the environment: pages rendered as HTML and parsed, or written at once. Every observation is compared.
"""

import importlib
import json
import random
import sys
import tempfile
import time
import types
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.harness import Result, argument_parser, interleaved, machine
from xmodel2.errors import XmodelError
from xmodel2.eval.agents.benchmarks import open_benchmark
from xmodel2.eval.agents.episode import Episode
from xmodel2.eval.agents.made_products import made_catalogue, write_released
from xmodel2.eval.agents.options import MADE_UP, PageStyle
from xmodel2.eval.agents.product_files import load_products
from xmodel2.eval.agents.shop_players import random_shopper
from xmodel2.eval.agents.shop_reward import reward
from xmodel2.eval.agents.webshop import STEP_LIMIT, Shop, open_shop

STYLES: tuple[PageStyle, ...] = ("text", "text_rich")
OTHERS = ("hotpotqa", "fever", "alfworld")
Walk = list[tuple[int, list[str]]]
"""Number of a goal and what is done for it."""
Environment = Callable[[int, list[str]], list[str]]
"""Plays a goal's actions and returns what is observed."""


def main() -> None:
    """Measure and print."""
    parser = argument_parser(__doc__, "40 steps, and no other worlds")
    parser.add_argument("--original", type=Path, help="checkout of princeton-nlp/WebShop")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_released(made_catalogue(), Path(folder))
        # Some versions of the original read reviews, others do not.
        Path(folder, "reviews.json").write_text("[]")
        shop = open_shop(load_products(Path(folder)))
        walk = random_walk(shop, 40 if options.quick else 150)
        environments: dict[str, Environment] = {f"ours, {style}": partial(play_ours, shop, style) for style in STYLES}
        if options.original:
            original = open_original(options.original, Path(folder), shop)
            environments |= {f"original, {style}": partial(play_original, original(style)) for style in STYLES}
        rates, seen = measure(environments, walk)
    if options.original and any(seen[f"ours, {style}"] != seen[f"original, {style}"] for style in STYLES):
        sys.exit("our pages are not the original's")
    steps = sum(len(actions) for _, actions in walk)
    notes = [
        f"{steps:,} steps of {len(walk)} random episodes",
        *(f"{name} {rate:,.0f}" for name, rate in rates.items()),
    ]
    if options.original:
        notes.append("all observations equal; Lucene and spaCy replaced by our search and reward in the original")
    if not options.quick:
        notes += [f"{name} {rate:,.0f}" for name in OTHERS if (rate := random_rate(name)) is not None]
    peer = rates.get("original, text")
    Result(
        name="agent steps",
        machine=machine(),
        ours=rates["ours, text"],
        peers={} if peer is None else {"WebShop's text environment": peer},
        unit="WebShop steps/s",
        ratio_to_best_peer=None if peer is None else rates["ours, text"] / peer,
        share_of_limit=None,
        limit=None,
        notes="; ".join(notes),
    ).show(options.json)


def measure(environments: Mapping[str, Environment], walk: Walk) -> tuple[dict[str, float], dict[str, list[str]]]:
    """Return steps/s of each environment, the median of five, and what was observed in it."""
    steps = sum(len(actions) for _, actions in walk)
    seen: dict[str, list[str]] = {}

    def run(name: str) -> float:
        started = time.perf_counter()
        seen[name] = [page for number, actions in walk for page in environments[name](number, actions)]
        return steps / (time.perf_counter() - started)

    for play in environments.values():
        play(*walk[0])  # warm
    return interleaved({name: partial(run, name) for name in environments}, 5), seen


def random_walk(shop: Shop, steps: int) -> Walk:
    """Return what a random player does in as many episodes as ``steps`` needs."""
    walk: Walk = []
    while steps > 0:
        number, actions = len(walk), list[str]()
        environment = shop.open(shop.goals[number], "text")
        player, observation = random_shopper(environment, random.Random(number)), environment.reset()
        while len(actions) < STEP_LIMIT and not environment.answer:
            actions.append(player.move(observation).action)
            observation = environment.step(actions[-1]).observation
        walk.append((number, actions))
        steps -= len(actions)
    return walk


def play_ours(shop: Shop, style: PageStyle, number: int, actions: list[str]) -> list[str]:
    """Play with our environment."""
    environment = shop.open(shop.goals[number], style)
    return [environment.reset(), *(environment.step(action).observation for action in actions)]


def play_original(environment: Any, number: int, actions: list[str]) -> list[str]:
    """Play with the original environment."""
    return [environment.reset(session=number)[0], *(environment.step(action)[0] for action in actions)]


def open_original(checkout: Path, folder: Path, shop: Shop) -> Callable[[PageStyle], Any]:
    """Return what makes the original's environments, over our catalogue, search, goals and reward."""
    sys.path.insert(0, str(checkout))
    for name, content in (
        ("pyserini.search.lucene", {"LuceneSearcher": lambda path: _Lucene(shop)}),
        ("spacy", {"load": lambda name: None}),
        ("thefuzz", {"fuzz": None}),
    ):
        _stand_in(name, content)
    utils: Any = importlib.import_module("web_agent_site.utils")
    wishes = [{"instruction_text": goal.instruction, "weight": 1, "goal": goal} for goal in shop.goals]

    def judge(product: Mapping[str, Any], wish: Mapping[str, Any], price: float, options: Any, **_: Any) -> Any:
        bought = shop.catalogue.products[shop.catalogue.positions[product["asin"]]]
        return reward(bought, wish["goal"], options, shop.nouns).total, {}

    for name, file in (("ATTR", "items_ins_v2_1000"), ("FILE", "items_shuffle_1000"), ("REVIEW", "reviews")):
        setattr(utils, f"DEFAULT_{name}_PATH", str(folder / f"{file}.json"))
    utils.HUMAN_ATTR_PATH = str(folder / "items_human_ins.json")
    module: Any = importlib.import_module("web_agent_site.envs.web_agent_text_env")
    module.get_goals, module.get_reward = lambda *_: list(wishes), judge
    with redirect_stdout(sys.stderr):
        server = module.SimServer("http://127.0.0.1:3000", utils.DEFAULT_FILE_PATH, human_goals=1)
    server.goals = wishes  # the original shuffles them
    return lambda style: module.WebAgentTextEnv(observation_mode=style, server=server)


class _Lucene:
    """Our search in the place of pyserini's."""

    def __init__(self, shop: Shop) -> None:
        self._shop = shop

    def search(self, query: str, k: int) -> list[Any]:
        return [types.SimpleNamespace(docid=place) for place in self._shop.search.search(query)[:k]]

    def doc(self, place: int) -> Any:
        asin = self._shop.catalogue.products[place].asin
        return types.SimpleNamespace(raw=lambda: json.dumps({"id": asin}))


def _stand_in(name: str, content: Mapping[str, Any]) -> None:
    """Put a module in the place of one that is not needed here, with the packages above it."""
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        sys.modules[".".join(parts[:end])] = types.ModuleType(parts[end - 1])
    vars(sys.modules[name]).update(content)


def random_rate(name: str, steps: int = 300) -> float | None:
    """Return steps/s of a random player in a made-up world, None if its engine is not installed."""
    try:
        benchmark = open_benchmark(name, MADE_UP)
    except XmodelError:
        return None
    done, seconds = 0, 0.0
    for case in benchmark.cases:
        episode = Episode(benchmark, case)
        player = benchmark.players["random"](episode.environment, random.Random(case.id))
        started = time.perf_counter()
        while not episode.done:
            for text in benchmark.dialogue.tell(len(episode.steps) + 1, player.move(episode.observation)):
                if not episode.done:
                    episode.take(text)
        done, seconds = done + len(episode.steps), seconds + time.perf_counter() - started
        if done >= steps:
            break
    return done / seconds


if __name__ == "__main__":
    main()
