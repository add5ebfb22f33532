"""WebShop's products and the catalogue they are in, released or made up.

Source: WebShop (arXiv 2207.01206), `web_agent_site/engine/engine.py`.
"""

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

NO_ATTRIBUTES = ("DUMMY_ATTR",)
"""What a product without attributes of its own has."""
NO_RATING = "N.A."
NO_PRICE = (100.0,)
"""Pricing of a product whose page has none."""


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
    """Such as "paraben free"; not shown to the buyer, asked for in goals."""
    options: Mapping[str, tuple[str, ...]]
    """Values by name, in lower case, " | " for "/"; "size", "color", "style" ..."""
    pricing: tuple[float, ...]
    """One price, or the lowest and the highest, in dollars."""
    price: float
    """What it costs at the till, in dollars: drawn from the range of `pricing`."""
    rating: str = NO_RATING
    reviews: tuple[Review, ...] = ()
    image: str = ""
    """Address of the first one."""

    @property
    def price_tag(self) -> str:
        """Price or range as the pages show it, "$8.99" or "$8.99 to $12.5"."""
        return " to ".join(f"${price}" for price in self.pricing)


@dataclass(frozen=True, slots=True)
class Instruction:
    """A wish for a product of the catalogue, before a price is added to it."""

    text: str
    attributes: tuple[str, ...]
    options: tuple[str, ...] = ()
    """Values of the options that are wanted."""


@dataclass(frozen=True)
class Catalogue:
    """Products in the order of their file, and what people wish for."""

    source: str
    """Where it is from, for the world's text: "items_shuffle_1000.json", or "made-up catalogue, seed 0"."""
    products: Sequence[Product]
    positions: Mapping[str, int]
    """Place of each asin in `products`."""
    human: Mapping[str, Sequence[Instruction]]
    """What people wrote, by asin; also of products that are not there."""
    fingerprint: str
    """Of products and wishes: equal ones give equal pages and rewards."""


def catalogue_of(source: str, products: Sequence[Product], human: Mapping[str, Sequence[Instruction]]) -> Catalogue:
    """Return products that are all in memory as a catalogue."""
    positions = {product.asin: place for place, product in enumerate(products)}
    return Catalogue(source, products, positions, human, fingerprint([products, human]))


def fingerprint(content: Any) -> str:
    """Return a digest of JSON values and dataclasses, whatever those are called."""

    def values(one: Any) -> list[Any]:
        return [getattr(one, field.name) for field in fields(one)]

    return hashlib.sha256(json.dumps(content, default=values).encode()).hexdigest()


def own_random(name: str) -> random.Random:
    """Return random numbers of something's own, so that prices and limits are the same in every run and catalogue.

    The original draws them from one unseeded state, so that each of its runs has other ones.
    """
    return random.Random(f"webshop {name}")


def draw_price(pricing: Sequence[float], draw: random.Random) -> float:
    """Return what a product costs, in dollars: uniform between lowest and highest, as the original draws it."""
    return draw.uniform(*pricing) if len(pricing) > 1 else pricing[0]
