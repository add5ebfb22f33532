"""Goals ask for what a product is, at a price that it does not exceed; test_product_files compares them with the original."""

import random
from collections import Counter

import pytest

from xmodel2.eval.agents.products import Catalogue, Instruction, Product, catalogue_of
from xmodel2.eval.agents.shop_goals import NO_LIMIT, draw_limit, human_goals, make_goal

OPTIONS = {"size": ("5 | 7", "8"), "color": ("red", "blue", "green")}


def product(number: int, **changed: object) -> Product:
    fields = {"options": OPTIONS, "pricing": (12.5,), "price": 12.5, **changed}
    return Product(f"B{number:03d}", f"Rug {number}", "rug", "garden", "Home › Rugs", "", (), ("soft",), **fields)  # type: ignore[arg-type]


def shop(count: int = 40) -> Catalogue:
    products = [product(number) for number in range(count)]
    human = {
        one.asin: [Instruction(f"a rug {one.asin}..", ("soft",), ("red",)), Instruction("none", ())] for one in products
    }
    return catalogue_of("made", products, {**human, "gone": [Instruction("x", ("y",))]})


@pytest.mark.parametrize("price", [0.0, 9.99, 10.0, 455.5, 949.99])
def test_a_limit_is_one_of_the_next_tens_but_not_the_first(price: float) -> None:
    first = (price // 10 + 1) * 10
    drawn = Counter(draw_limit(price, random.Random(seed)) for seed in range(600))
    assert set(drawn) == {first + 10, first + 20, first + 30}
    assert drawn[first + 30] > drawn[first + 20] > drawn[first + 10]  # the larger of two: 3, 2 and 1 of 6


def test_what_costs_much_has_no_limit() -> None:
    assert draw_limit(979.99, random.Random(0)) == 990
    assert draw_limit(980, random.Random(0)) is None
    goal = make_goal(product(1), Instruction("a rug", ("soft",)), None)
    assert (goal.price_upper, goal.instruction) == (NO_LIMIT, "a rug")


def test_people_ask_with_a_price_and_only_for_what_is_there() -> None:
    goals = human_goals(shop())
    assert len(goals) == 40  # without attributes nothing can be scored
    assert len({goal.asin for goal in goals}) == 40
    for goal in goals:
        assert goal.instruction == f"a rug {goal.asin}, and price lower than {goal.price_upper:.2f} dollars"
        assert 12.5 < goal.price_upper <= 50
        assert (goal.title, goal.options) == (f"Rug {int(goal.asin[1:])}", ("red",))


def test_the_order_is_shuffled_and_fixed() -> None:
    asins = [goal.asin for goal in human_goals(shop())]
    assert asins != sorted(asins)
    order = list(range(40))
    random.seed(233)  # as the original does it
    random.shuffle(order)
    assert asins == [f"B{number:03d}" for number in order]
