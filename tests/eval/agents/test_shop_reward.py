"""WebShop's reward is the published one, case by case, and behaves as a reward should."""

import gzip
import json
import random
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from xmodel2.eval.agents.nouns import Nouns
from xmodel2.eval.agents.products import Product
from xmodel2.eval.agents.shop_goals import Goal
from xmodel2.eval.agents.shop_reward import COLORS, alike, base_color, reward

# 480 purchases drawn to reach every branch, with what the authors' `get_reward` (princeton-nlp/WebShop, goal.py of commit
# d149d0d, thefuzz 0.22.1, normalize.py as AgentBench keeps it) makes of them; nouns of the titles are TextBlob's, in the place
# of spaCy's. And 605 pairs of texts with whether thefuzz's `token_set_ratio` is above 85.
RECORDED = json.loads(gzip.decompress((Path(__file__).parent / "webshop_rewards.json.gz").read_bytes()))
NOUNS = Nouns("as recorded", lambda: RECORDED["nouns"].__getitem__)


def product_of(case: dict[str, Any]) -> Product:
    fields = {name: tuple(value) if isinstance(value, list) else value for name, value in case["product"].items()}
    return Product(asin="B0", category="", options={}, pricing=(case["product"]["price"],), **fields)


def goal_of(case: dict[str, Any]) -> Goal:
    fields = {name: tuple(value) if isinstance(value, list) else value for name, value in case["goal"].items()}
    return Goal(asin="B0", instruction="", category="", **fields)


CASES = [(product_of(case), goal_of(case), case["bought"]) for case in RECORDED["cases"]]


def test_every_reward_is_that_of_the_original() -> None:
    recorded = [case["reward"] for case in RECORDED["cases"]]
    assert [asdict(reward(*case, NOUNS)) for case in CASES] == recorded
    assert len(recorded) >= 400
    assert {case["type"] for case in recorded} == {0, 0.1, 0.5, 1}
    assert {case["query_match"] for case in recorded} == {case["category_match"] for case in recorded} == {True, False}
    assert {None, 0, 1} < {case["options"] for case in recorded}
    assert {0, 1} < {case["attributes"] for case in recorded}


def test_texts_are_alike_as_thefuzz_says() -> None:
    assert [alike(one, other) for one, other, _ in RECORDED["alike"]] == [said for _, _, said in RECORDED["alike"]]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("", "", False),
        ("é", "é", False),  # letters of Latin-1 are left out, and nothing is like nothing
        ("Queen", "queen", True),
        ("pack of 2", "2 (PACK of)", True),
        ("gluten", "gluten free", True),
        ("modern", "mödern", True),
        ("x-large", "xx-large", True),
        ("king", "queen", False),
    ],
)
def test_texts_are_alike_either_way(one: str, other: str, same: bool) -> None:
    assert alike(one, other) is alike(other, one) is same


def test_colours_are_reduced_to_the_first_that_is_listed() -> None:
    reduced = {color: base_color(color) for color in COLORS if base_color(color) != color}
    assert reduced == {"seashell": "ash", "stonewash": "ash"}
    assert base_color("light dark") == "dark"
    assert base_color("Black") == "Black"  # released values are in lower case


def test_rewards_are_bounded_and_whole_only_if_everything_matches() -> None:
    for product, goal, bought in CASES:
        got = reward(product, goal, bought, NOUNS)
        assert 0 <= got.total <= got.type <= 1
        everything = got.type == got.attributes == 1 and got.options in (None, 1) and got.price
        assert (got.total == 1) == everything


def test_more_options_never_cost_and_a_lower_limit_never_helps() -> None:
    draw = random.Random(3)
    values = [value for _, goal, _ in CASES for value in goal.options]
    for product, goal, bought in CASES:
        before = reward(product, goal, bought, NOUNS)
        more = {**bought, "another": draw.choice(values)}
        assert reward(product, goal, more, NOUNS).total >= before.total
        lower = replace(goal, price_upper=goal.price_upper / 2)
        assert reward(product, lower, bought, NOUNS).total <= before.total


def test_the_wanted_product_with_its_own_options_is_a_success() -> None:
    for product, _, bought in CASES:
        if not NOUNS(product.title) or not all(map(_words, bought.values())):
            continue
        goal = Goal(
            "B0", "", product.attributes, tuple(bought.values()), product.price, product.title, product.query, "", ""
        )
        if all(map(_words, product.attributes)):
            assert reward(product, goal, bought, NOUNS).total == 1


def _words(text: str) -> bool:
    return any(letter.isascii() and letter.isalnum() for letter in text)
