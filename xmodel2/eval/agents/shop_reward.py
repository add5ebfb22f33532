"""WebShop's reward for what was bought: right type of product, attributes, options and price.

    reward = type * (attributes + options + [price <= limit]) / (attributes wanted + options wanted + 1)

Source: WebShop (arXiv 2207.01206), `web_agent_site/engine/goal.py` and `normalize.py` as they are on its main branch, with
the ratios of `thefuzz` from 0.20 on.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from rapidfuzz.fuzz import token_set_ratio
from rapidfuzz.utils import default_process

from xmodel2.eval.agents.nouns import Nouns
from xmodel2.eval.agents.products import Product
from xmodel2.eval.agents.shop_goals import Goal

ALIKE = 85
"""Texts whose ratio is above it match, 0 to 100."""
_LATIN_1 = dict.fromkeys(range(128, 256))
_COLORS = """
alabaster apricot aqua ash asphalt azure banana beige black blue blush bordeaux bronze brown burgundy camel camo
caramel champagne charcoal cheetah chestnut chocolate christmas coffee cognac copper coral cranberry cream crystal dark
denim eggplant elephant espresso fuchsia gold granite grape graphite grass gray green grey heather indigo ivory ivy
khaki lavender lemon leopard light lilac lime magenta maroon mauve merlot midnight mint mocha multicolor mushroom
mustard natural navy nude olive orange peach pewter pink plum purple rainbow red rose royal rust sand sapphire seashell
silver skull slate steel stone stonewash sunflower tan taupe teal tiger turquoise violet walnut wheat white wine yellow
"""
COLORS = tuple(_COLORS.split())
"""What colours are reduced to, the first that occurs: "dark red" is "dark", and so is "darkest night"."""


@dataclass(frozen=True, slots=True)
class Reward:
    """The reward and what it is made of."""

    total: float
    """0 to 1; 1 is success."""
    type: float
    """1, 0.5, 0.1 or 0."""
    attributes: float
    """Share of those wanted."""
    options: float | None
    """Share of those wanted; None if none are."""
    price: bool
    """Whether it is within the limit."""
    query_match: bool
    category_match: bool
    title_score: float
    """Share of the nouns in the wanted product's title, 0 to 1."""


def reward(product: Product, goal: Goal, bought: Mapping[str, str], nouns: Nouns) -> Reward:
    """Return the reward for a product; ``bought`` are the values of its options that were chosen, by name."""
    type_reward, query_match, category_match, title_score = _type(product, goal, nouns)
    attributes = _attributes(product, goal)
    options = _options(goal, bought)
    price = product.price <= goal.price_upper
    wanted = len(goal.attributes) + len(goal.options) + 1
    return Reward(
        total=(attributes + options + price) / wanted * type_reward,
        type=type_reward,
        attributes=attributes / len(goal.attributes),
        options=options / len(goal.options) if goal.options else None,
        price=price,
        query_match=query_match,
        category_match=category_match,
        title_score=title_score,
    )


def alike(one: str, other: str) -> bool:
    """Tell whether two texts match.

    >>> alike("Machine-Wash", "machine wash cold"), alike("", "")
    (True, False)
    """
    return round(token_set_ratio(_compared(one), _compared(other))) > ALIKE


def base_color(value: str) -> str:
    """Return the first colour in `COLORS` that occurs in a value, or the value.

    >>> base_color("dusty-rose | navy"), base_color("queen")
    ('navy', 'queen')
    """
    return next((color for color in COLORS if color in value), value)


def _compared(text: str) -> str:
    return default_process(text.translate(_LATIN_1))


def _type(product: Product, goal: Goal, nouns: Nouns) -> tuple[float, bool, bool, float]:
    query_match = product.query == goal.query
    category_match = len(_path(product.product_category) & _path(goal.product_category)) >= 2
    wanted = nouns(goal.title)
    title_score = len(set(nouns(product.title)) & set(wanted)) / len(wanted) if wanted else 0.2
    if title_score == 0:
        value = 0.0
    elif title_score < 0.1:
        value = 0.1
    else:
        value = 1.0 if query_match or category_match or title_score > 0.2 else 0.5
    return value, query_match, category_match, title_score


def _path(product_category: str) -> set[str]:
    return {part.strip() for part in product_category.split("›")}


def _attributes(product: Product, goal: Goal) -> int:
    """Return how many attributes match one of the product's, or occur in one of its texts."""
    texts = (product.title.lower(), " ".join(product.bullet_points).lower(), product.description.lower())
    return sum(
        any(alike(own, wanted) for own in product.attributes) or any(wanted in text for text in texts)
        for wanted in goal.attributes
    )


def _options(goal: Goal, bought: Mapping[str, str]) -> int:
    values = [base_color(value) for value in bought.values()]
    return sum(any(alike(value, base_color(wanted)) for value in values) for wanted in goal.options)
