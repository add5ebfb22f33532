"""From the fields of WebShop's released files to products and instructions, checked and cleaned as its authors do it."""

import re
from collections.abc import Mapping
from sys import intern
from typing import Any

from xmodel2.errors import XmodelError
from xmodel2.eval.agents.products import (
    NO_ATTRIBUTES,
    NO_PRICE,
    NO_RATING,
    Instruction,
    Product,
    Review,
    draw_price,
    own_random,
)


class Entry:
    """One entry of a file, whose fields are looked at; every error says whose field is wrong."""

    def __init__(self, where: str, value: Any) -> None:
        """``where`` names file and entry. Raises `XmodelError` if it is no object."""
        if not isinstance(value, dict):
            raise XmodelError(f"{where}: must be a JSON object")
        self._where, self._value = where, value

    def error(self, field: str, must: str) -> XmodelError:
        """Return an error about a field."""
        return XmodelError(f"{self._where}: field {field!r} {must}; fetch the file again")

    def get(self, field: str) -> Any:
        """Return a field, None for one that is not there."""
        return self._value.get(field)

    def text(self, field: str) -> str:
        """Return a text; null is an empty one."""
        if field not in self._value:
            raise self.error(field, "is missing")
        value = self._value[field]
        if value is not None and not isinstance(value, str):
            raise self.error(field, "must be a text")
        return value or ""

    def texts(self, field: str) -> tuple[str, ...]:
        """Return a list of texts, without nulls; null is an empty one."""
        value = self._value.get(field) or []
        if not isinstance(value, list) or not all(isinstance(item, str | None) for item in value):
            raise self.error(field, "must be a list of texts")
        return tuple(item for item in value if item is not None)

    def entries(self, field: str, name: str) -> "list[Entry]":
        """Return a list of objects, each called by ``name`` in errors."""
        value = self._value.get(field) or []
        if not isinstance(value, list):
            raise self.error(field, "must be a list")
        return [Entry(f"{self._where}, {name} {number}", item) for number, item in enumerate(value, 1)]


def usable_asin(entry: Entry) -> str | None:
    """Return a product's asin, None for one that the authors leave out: "nan", or longer than 10 characters."""
    asin = entry.text("asin")
    return None if asin == "nan" or len(asin) > 10 else asin


def read_product(
    entry: Entry, attributes: Mapping[str, tuple[str, ...]], reviews: Mapping[str, tuple[str, tuple[Review, ...]]]
) -> Product:
    """Return a product; its attributes and its rating and reviews are looked up by asin.

    Raises `XmodelError` naming file, product and field.
    """
    asin = entry.text("asin")
    points = entry.get("small_description")
    pricing = _pricing(entry)
    rating, reviewed = reviews.get(asin, (NO_RATING, ()))
    images = entry.texts("images")
    return Product(
        asin=asin,
        title=entry.text("name"),
        query=entry.text("query").lower().strip(),
        category=entry.text("category"),
        product_category=entry.text("product_category"),
        description=entry.text("full_description"),
        bullet_points=entry.texts("small_description")
        if isinstance(points, list)
        else (entry.text("small_description"),),
        attributes=attributes.get(asin, NO_ATTRIBUTES),
        options=_options(entry),
        pricing=pricing,
        price=pricing[0] if len(pricing) == 1 else draw_price(pricing, own_random(asin)),
        rating=rating,
        reviews=reviewed,
        image=images[0] if images else "",
    )


def read_attributes(entry: Entry) -> tuple[str, ...] | None:
    """Return a product's attributes, None for none: a million products have a few hundred different ones, each kept once."""
    return None if entry.get("attributes") is None else tuple(map(intern, entry.texts("attributes")))


def read_instruction(entry: Entry) -> Instruction:
    """Return an instruction that a person wrote."""
    options = entry.get("instruction_options")
    values = list(options.values()) if isinstance(options, dict) else options or []
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise entry.error("instruction_options", "must be a list of texts")
    return Instruction(entry.text("instruction"), entry.texts("instruction_attributes"), tuple(values))


def read_reviews(entry: Entry) -> tuple[str, tuple[Review, ...]]:
    """Return a product's rating and its reviews."""
    rating = entry.get("average_rating")
    reviews = tuple(
        Review(_shown(review, "title"), _shown(review, "score") or _shown(review, "stars"), _shown(review, "review"))
        for review in entry.entries("reviews", "review")
    )
    return NO_RATING if rating is None else str(rating), reviews


def _shown(entry: Entry, field: str) -> str:
    value = entry.get(field)
    return "" if value is None else str(value)


def _pricing(entry: Entry) -> tuple[float, ...]:
    text = entry.text("pricing") if entry.get("pricing") is not None else ""
    if not text:
        return NO_PRICE
    try:
        prices = tuple(float(re.sub(r"[^\d.]", "", price)) for price in text.split("$")[1:3])
    except ValueError:
        prices = ()
    if not prices:
        raise entry.error("pricing", f"must be prices such as '$8.99', and is {text[:40]!r}")
    return prices


def _options(entry: Entry) -> dict[str, tuple[str, ...]]:
    groups = entry.get("customization_options") or {}
    if not isinstance(groups, dict):
        raise entry.error("customization_options", "must be an object of lists")
    options = {}
    for name, contents in groups.items():
        if contents is None:
            continue
        if not isinstance(contents, list) or not all(
            isinstance(content, dict) and isinstance(content.get("value"), str) for content in contents
        ):
            raise entry.error("customization_options", f"must have a list of objects with a 'value' for {name!r}")
        values = (content["value"].strip().replace("/", " | ").lower() for content in contents)
        options[name.lower()] = tuple(values)
    return options
