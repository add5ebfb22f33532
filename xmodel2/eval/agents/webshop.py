"""WebShop: buy what somebody wishes for, in its authors' catalogue or in a made-up one.

Protocol of ReAct's notebook: one example, 15 turns of which the first is the reset, thoughts counting as turns; its window
of the last 6,400 characters is not kept, since prompts are fitted to each model's context.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

from xmodel2.errors import XmodelError
from xmodel2.eval.agents.dialogue import Commands
from xmodel2.eval.agents.environment import Benchmark, Case, Examples
from xmodel2.eval.agents.few_shot import play_example, react_prompts
from xmodel2.eval.agents.made_products import SOURCE, made_catalogue
from xmodel2.eval.agents.nouns import Nouns, open_nouns
from xmodel2.eval.agents.open_articles import cache_folder
from xmodel2.eval.agents.options import AgentOptions, PageStyle
from xmodel2.eval.agents.product_files import SIZES, load_products
from xmodel2.eval.agents.product_search import ProductSearch
from xmodel2.eval.agents.products import Catalogue, Product, fingerprint
from xmodel2.eval.agents.shop_environment import ShopEnvironment
from xmodel2.eval.agents.shop_goals import TEST_GOALS, Goal, human_goals
from xmodel2.eval.agents.shop_pages import SHOWN_BY_REACT
from xmodel2.eval.agents.shop_players import keywords, oracle, random_shopper, scripted
from xmodel2.eval.agents.shop_reward import reward

STEP_LIMIT = 14
FOLDER = "webshop"
"""Of the product files, below the folder of agent data."""
DIALOGUE = Commands(prompt="\n\nAction:", answer="\nObservation: ", think=("think[", "]"))
_WHOLE = 1_000_000
"""Products that the whole catalogue has more of; the official test split is of wishes for those."""
_STYLES: dict[PageStyle, str] = {
    "react": "ReAct's",
    "text": "WebShop's text mode",
    "text_rich": "WebShop's rich text mode",
}


@dataclass(frozen=True)
class Shop:
    """A catalogue that can be searched, and what tells nouns in its titles."""

    catalogue: Catalogue
    search: ProductSearch
    nouns: Nouns
    goals: list[Goal]

    def open(self, goal: Goal, style: PageStyle) -> ShopEnvironment:
        """Return the episode of a goal."""
        judge = partial(self._judge, goal)
        return ShopEnvironment(goal, self.catalogue.products, self.search.search, judge, style)

    def _judge(self, goal: Goal, product: Product, options: Mapping[str, str]) -> float:
        return reward(product, goal, options, self.nouns).total


def webshop_benchmark(options: AgentOptions) -> Benchmark:
    """Return the benchmark.

    Raises `XmodelError` naming a product file that is missing or damaged, and for a catalogue that nobody wishes anything of;
    `ModuleNotFoundError` for a package of the extra "eval".
    """
    folder = options.catalogue or _released(options.agents_dir)
    # Beside the article stores: data is often where nothing can be written.
    shop = open_shop(load_products(folder), cache_folder("products")) if folder else made_shop()
    if not shop.goals:
        raise XmodelError(f"{folder}: items_human_ins.json has no instruction for a product that is there")
    goals = shop.goals[:TEST_GOALS]
    whole = len(shop.catalogue.products) > _WHOLE
    examples = _examples(options)
    kind = (
        "made-up wishes"
        if not folder
        else "official test wishes"
        if whole
        else "wishes, not those of the official test"
    )
    world = (
        f"{shop.catalogue.source}: {len(shop.catalogue.products):,} products, {len(goals):,} {kind}; "
        f"nouns by {shop.nouns.name}; pages as {_STYLES[options.pages]}"
    )
    rules = [shop.nouns.name, options.pages, STEP_LIMIT, DIALOGUE, examples]
    return Benchmark(
        name="webshop",
        metric="success_rate",
        step_limit=STEP_LIMIT,
        dialogue=DIALOGUE,
        cases=[_case(number, goal) for number, goal in enumerate(goals)],
        of=TEST_GOALS if whole else None,
        world=world,
        fingerprint=fingerprint([shop.catalogue.fingerprint, goals, rules]),
        examples=lambda case: examples,
        open=lambda case: shop.open(case.data, options.pages),
        made_up=folder is None,
        players={"oracle": oracle, "random": random_shopper, "scripted": scripted},
    )


def open_shop(catalogue: Catalogue, folder: Path | None = None) -> Shop:
    """Return a catalogue with its index, which ``folder`` keeps if it is large, and goals."""
    return Shop(catalogue, ProductSearch(catalogue, folder), open_nouns(), human_goals(catalogue))


@cache
def made_shop() -> Shop:
    """Return the made-up one."""
    return open_shop(made_catalogue())


def _released(agents_dir: Path | None) -> Path | None:
    folder = agents_dir / FOLDER if agents_dir else None
    there = folder is not None and any((folder / f"items_shuffle{size}.json").exists() for size in SIZES)
    return folder if there else None


def _case(number: int, goal: Goal) -> Case:
    target = f"{goal.asin}: {goal.title}" + (f" ({', '.join(goal.options)})" if goal.options else "")
    return Case(f"fixed_{number}", goal.instruction, target, goal.category or None, goal)


def _examples(options: AgentOptions) -> Examples:
    """Return ReAct's example if somebody has put it there and the pages are as in it, else one of the made-up catalogue."""
    if options.pages == "react" and (prompts := react_prompts(options.agents_dir, "webshop", ("react",))):
        return Examples("", (_ended(prompts["react"], options.pages),), "ReAct")
    # Whoever buys the very product wished for has the same reward by any nouns: those of a tagger would take seconds.
    shop = replace(made_shop(), nouns=Nouns("words", lambda: str.split))
    environments = (shop.open(goal, options.pages) for goal in shop.goals[TEST_GOALS:] if len(goal.options) > 1)
    environment = next(one for one in environments if one.rank(keywords(one.goal)) in range(SHOWN_BY_REACT))
    text = play_example(DIALOGUE, environment, oracle(environment, random.Random(0)), STEP_LIMIT)
    return Examples("", (_ended(text, options.pages),), f"the oracle in the {SOURCE}")


def _ended(text: str, style: PageStyle) -> str:
    """Return an example with a blank line after it; ReAct's pages begin with an empty one of their own."""
    return text.strip("\n") + ("\n" if style == "react" else "\n\n")
