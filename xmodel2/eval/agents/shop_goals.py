"""What WebShop's episodes ask for: a product with attributes, options and a highest price, in a sentence.

Source: WebShop, `web_agent_site/engine/goal.py` and `app.py`.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from xmodel2.eval.agents.products import Catalogue, Instruction, Product, own_random

TEST_GOALS = 500
"""The first ones are the test split, the next 1,000 for development, the others for training (`baseline_models/env.py`)."""
NO_LIMIT = 1_000_000.0
"""Highest price of a goal whose product costs more than any limit that is drawn."""
_LIMITS = [10.0 * tens for tens in range(1, 100)]
"""Dollars."""
_ORDER = 233
"""What the original seeds its shuffle with."""


@dataclass(frozen=True, slots=True)
class Goal:
    """One task of WebShop."""

    asin: str
    """Of the product that it was written for; others may do as well."""
    instruction: str
    """With the highest price in words."""
    attributes: tuple[str, ...]
    options: tuple[str, ...]
    """Values."""
    price_upper: float
    """Dollars."""
    title: str
    query: str
    category: str
    product_category: str


def _of_goals(asin: str) -> random.Random:
    return own_random(f"goals of {asin}")


def human_goals(catalogue: Catalogue, draw: Callable[[str], random.Random] = _of_goals) -> list[Goal]:
    """Return what people asked for, in the order of the original, whose first ones are its test split.

    ``draw`` gives the random numbers for an asin. Instructions without attributes, or for a product that is not there, are
    left out.
    """
    there = [(catalogue.positions[asin], asin) for asin in catalogue.human if asin in catalogue.positions]
    goals = [
        goal
        for place, asin in sorted(there)
        for goal in _human(catalogue.products[place], catalogue.human[asin], draw(asin))
    ]
    random.Random(_ORDER).shuffle(goals)
    return goals


def make_goal(product: Product, instruction: Instruction, limit: float | None) -> Goal:
    """Return a goal; ``limit`` is the highest price in dollars, None for none."""
    price = "" if limit is None else f", and price lower than {limit:.2f} dollars"
    return Goal(
        product.asin,
        instruction.text + price,
        instruction.attributes,
        instruction.options,
        NO_LIMIT if limit is None else limit,
        product.title,
        product.query,
        product.category,
        product.product_category,
    )


def draw_limit(price: float, draw: random.Random) -> float | None:
    """Return a highest price, in dollars: the larger of two of the next four tens above a price, below 1,000.

    None if there are not two.
    """
    limits = [limit for limit in _LIMITS if limit > price][:4]
    return max(draw.sample(limits, 2)) if len(limits) >= 2 else None


def _human(product: Product, instructions: Sequence[Instruction], draw: random.Random) -> Iterator[Goal]:
    for instruction in instructions:
        if instruction.attributes:
            text = instruction.text.strip(".")
            limit = draw_limit(product.price, draw)
            yield make_goal(product, Instruction(text, instruction.attributes, instruction.options), limit)
