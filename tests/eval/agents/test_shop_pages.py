"""Pages and rules of WebShop against the original's templates, text environment and ReAct's notebook.

`shop_walks.json.gz` has random walks that were recorded from the original code: princeton-nlp/WebShop's
`web_agent_text_env.py` (3b1894d7) and templates as released with its paper, and ReAct's `WebShop.ipynb` (a5c0827b) over the
same templates; products, search and reward are made up here, the same for both.
"""

import gzip
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from xmodel2.eval.agents.options import PageStyle
from xmodel2.eval.agents.products import Instruction, Product, Review
from xmodel2.eval.agents.shop_environment import ShopEnvironment
from xmodel2.eval.agents.shop_goals import make_goal
from xmodel2.eval.agents.shop_pages import INVALID

PATH = Path(__file__).with_name("shop_walks.json.gz")
STYLES: tuple[PageStyle, ...] = ("react", "text", "text_rich")


def products_of(rows: list[dict[str, Any]]) -> list[Product]:
    return [
        Product(
            **row
            | {name: tuple(row[name]) for name in ("bullet_points", "attributes", "pricing")}
            | {"options": {name: tuple(values) for name, values in row["options"].items()}}
            | {"reviews": tuple(Review(**review) for review in row["reviews"]), "price": row["pricing"][0]}
        )
        for row in rows
    ]


def find(products: Sequence[Product], query: str) -> list[int]:
    return random.Random(query).sample(range(len(products)), min(len(products), len(query)))


def judge(product: Product, options: Mapping[str, str]) -> float:
    return (len(options) + int(product.asin[2:5])) % 5 / 4


@pytest.mark.parametrize("style", STYLES)
def test_random_walks_see_what_the_original_shows(style: PageStyle) -> None:
    recorded = json.loads(gzip.decompress(PATH.read_bytes()))
    products = products_of(recorded["products"])
    goal = make_goal(products[0], Instruction(recorded["instruction"], ()), None)
    walks = [walk["steps"] for walk in recorded["walks"] if walk["style"] == style]
    assert sum(len(walk) - 1 for walk in walks) >= 200
    for walk in walks:
        environment = ShopEnvironment(goal, products, lambda query: find(products, query), judge, style)
        seen = walk[0][1]
        assert environment.reset() == seen
        for action, observation, reward, done in walk[1:]:
            turn = environment.step(action)
            if turn.valid:
                assert (turn.observation, turn.reward, turn.done) == (observation, reward, done), action
                seen = observation
            else:  # where the original shows the same page again, or says so as ReAct does
                assert turn.observation == INVALID, action
                assert observation == (INVALID if style == "react" else seen), action
