"""WebShop's products and the catalogue they are in, released or made up.

Source: WebShop (arXiv 2207.01206), `web_agent_site/engine/engine.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

NO_ATTRIBUTES = ("DUMMY_ATTR",)
"""What a product without attributes of its own has."""
NO_RATING = "N.A."


@dataclass(frozen=True, slots=True)
class Review:
    """What a buyer wrote."""

    title: str
    score: str
    body: str


@dataclass(frozen=True, slots=True)
class Product:
    """What is for sale. Texts are as scraped, except where a field says otherwise."""

    asin: str
    """Of at most 10 characters; unique."""
    title: str
    query: str
    """Search that it was found by, in lower case."""
    category: str
    """Such as "beauty"."""
    product_category: str
    """Path in the shop, "Beauty & Personal Care › Hair Care › Hair Masks"."""
    description: str
    bullet_points: tuple[str, ...]
    """What the page Features lists."""
    attributes: tuple[str, ...]
    """Such as "paraben free"; hidden from the buyer, asked for in goals."""
    options: Mapping[str, tuple[str, ...]]
    """Values by name, in lower case, " | " for "/"; "size", "color", "style" ..."""
    pricing: tuple[float, ...]
    """One price, or the lowest and the highest, in dollars."""
    price_tag: str
    """As the pages show it, "$8.99" or "$8.99 to $12.5"."""
    price: float
    """What it costs at the till, in dollars: drawn from the range of `pricing`."""
    rating: str = NO_RATING
    reviews: tuple[Review, ...] = ()
    image: str = ""
    """Address of the first one."""


@dataclass(frozen=True, slots=True)
class Instruction:
    """A wish for a product of the catalogue, before a price is added to it."""

    text: str
    attributes: tuple[str, ...]
    options: tuple[str, ...]
    """Values of the options that are wanted."""


@dataclass(frozen=True)
class Catalogue:
    """Products in the order of their file, and what people wish for."""

    source: str
    """Where it is from, for the world's text: "items_shuffle_1000.json", or "made-up catalogue, seed 0"."""
    products: Sequence[Product]
    instructions: Mapping[str, Sequence[Instruction]]
    """By asin."""
    fingerprint: str
    """Of all that is above: equal ones give equal pages and rewards."""

    @cached_property
    def positions(self) -> Mapping[str, int]:
        """Place of each asin in `products`."""
        return {product.asin: place for place, product in enumerate(self.products)}

    def find(self, asin: str) -> Product | None:
        """Return a product by its asin, None for none."""
        place = self.positions.get(asin)
        return None if place is None else self.products[place]
