"""A made-up WebShop catalogue: what is sold, and what people wish for, from a seed and the words of made_products.toml.

    24 kinds of things -> 11 lines each -> 4 products a line, alike but for attributes, options and prices

So a search finds the right line easily, and which of its products will do has to be found out: from features that the
title does not tell, options that the others lack, and prices around the limit.
"""

import json
import random
import tomllib
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from xmodel2.eval.agents.products import (
    NO_RATING,
    Catalogue,
    Instruction,
    Product,
    Review,
    catalogue_of,
    draw_price,
    own_random,
)
from xmodel2.files import write_text_atomic

SOURCE = "made-up catalogue"
_LINES = 11
_ALIKE = 4
"""Products of a line."""
_ATTRIBUTES = 4
"""Of a product; a kind of things has eight."""
_WISHES = 620
"""More than the test goals, so that some are left for examples."""
_LETTERS = "0123456789ABCDEFGHJKLMNPQRSTUVWXYZ"


@cache
def made_catalogue(seed: int = 0) -> Catalogue:
    """Return the catalogue of a seed: 1,056 products, 620 wishes in people's words."""
    words = tomllib.loads(files(__package__).joinpath("made_products.toml").read_text(encoding="utf-8"))
    chance = random.Random(f"{SOURCE} {seed}")
    asins = set[str]()
    pairs = [
        (kind, product) for kind in words["kinds"] for line in _lines(words, kind, asins, chance) for product in line
    ]
    chance.shuffle(pairs)
    human = {
        product.asin: [_wish(words, kind, product, chance)]
        for kind, product in sorted(chance.sample(pairs, _WISHES), key=lambda pair: pair[1].asin)
    }
    return catalogue_of(f"{SOURCE}, seed {seed}", [product for _, product in pairs], human)


def write_released(catalogue: Catalogue, folder: Path) -> None:
    """Write a catalogue as WebShop's authors release theirs of 1,000 products, for `load_products` or their own code."""
    products = list(catalogue.products)
    human = {
        asin: [
            {
                "asin": asin,
                "instruction": wish.text,
                "instruction_attributes": wish.attributes,
                "instruction_options": wish.options,
            }
            for wish in wishes
        ]
        for asin, wishes in catalogue.human.items()
    }
    reviews = [
        {
            "asin": product.asin,
            "average_rating": product.rating,
            "reviews": [{"title": r.title, "stars": r.score, "review": r.body} for r in product.reviews],
        }
        for product in products
    ]
    folder.mkdir(parents=True, exist_ok=True)
    contents: dict[str, Any] = {
        "items_shuffle_1000": [_released(product) for product in products],
        "items_ins_v2_1000": {product.asin: {"attributes": product.attributes} for product in products},
        "items_human_ins": human,
        "reviews": reviews,
    }
    for name, content in contents.items():
        write_text_atomic(folder / f"{name}.json", json.dumps(content, ensure_ascii=False))


def _released(product: Product) -> dict[str, Any]:
    return {
        "asin": product.asin,
        "name": product.title,
        "query": product.query,
        "category": product.category,
        "product_category": product.product_category,
        "full_description": product.description,
        "small_description": product.bullet_points,
        "pricing": " - ".join(f"${price}" for price in product.pricing),
        "customization_options": {
            name: [{"value": value, "image": None} for value in values] for name, values in product.options.items()
        },
        "images": [product.image],
    }


def _lines(
    words: dict[str, Any], kind: dict[str, Any], asins: set[str], chance: random.Random
) -> Iterable[list[Product]]:
    names = chance.sample(words["lines"], _LINES)
    for name in names:
        brand = chance.choice(words["brands"][kind["category"]])
        base = chance.sample(kind["attributes"], _ATTRIBUTES)
        low = chance.uniform(kind["price"][0], kind["price"][1] * 0.7)
        noun, made_of, use = chance.choice(kind["nouns"])[0], chance.choice(kind["of"]), chance.choice(kind["for"])
        path, query = chance.choice(kind["paths"]), chance.choice(kind["queries"])
        titles = set[str]()
        line = list[Product]()
        while len(line) < _ALIKE:
            attributes = _changed(base, kind["attributes"], chance)
            told = ", ".join(attribute.title() for attribute in chance.sample(attributes, 2))
            title = f"{brand} {name} {made_of} {noun} for {use}, {told}"
            if title in titles:
                continue
            titles.add(title)
            asin = _asin(asins, chance)
            pricing = _pricing(low, chance)
            rating, reviews = _reviews(words["reviews"], chance)
            line.append(
                Product(
                    asin=asin,
                    title=title,
                    query=query,
                    category=kind["category"],
                    product_category=path,
                    description=_description(brand, name, noun, use, kind["about"], chance),
                    bullet_points=_features(words["attributes"], attributes, kind["about"], chance),
                    attributes=tuple(attributes),
                    options={option: _part(values, chance) for option, values in kind["options"].items()},
                    pricing=pricing,
                    price=draw_price(pricing, own_random(asin)),
                    rating=rating,
                    reviews=reviews,
                    image=f"https://example.com/images/{asin}.jpg",
                )
            )
        yield line


def _asin(taken: set[str], chance: random.Random) -> str:
    while (asin := "B0" + "".join(chance.choices(_LETTERS, k=8))) in taken:
        pass
    taken.add(asin)
    return asin


def _changed(base: Sequence[str], known: Sequence[str], chance: random.Random) -> list[str]:
    """Return a line's attributes with one or two of them replaced by others."""
    kept = chance.sample(base, len(base) - chance.randint(1, 2))
    others = [attribute for attribute in known if attribute not in base]
    return [*kept, *chance.sample(others, len(base) - len(kept))]


def _part(values: Sequence[str], chance: random.Random) -> tuple[str, ...]:
    """Return some of an option's values, two at least, in order."""
    kept = set(chance.sample(values, max(2, len(values) - chance.randint(1, 4))))
    return tuple(value for value in values if value in kept)


def _pricing(low: float, chance: random.Random) -> tuple[float, ...]:
    """Return a price, or a range as products with several options have it, in dollars."""
    price = round(low * chance.uniform(0.8, 1.7), 2)
    return (price, round(price * chance.uniform(1.1, 1.5), 2)) if chance.random() < 0.3 else (price,)


def _description(brand: str, name: str, noun: str, use: str, about: Sequence[str], chance: random.Random) -> str:
    begin = chance.choice(
        [
            f"The {name} by {brand} is a favourite of our customers: {noun.lower()} for {use.lower()}.",
            f"{brand} has made {noun.lower()} for many years, and {name} is the newest line.",
            f"Meet {name}, {noun.lower()} for {use.lower()} from {brand}.",
        ]
    )
    return " ".join([begin, *chance.sample(about, 2)])


def _features(
    known: dict[str, list[str]], attributes: Sequence[str], about: Sequence[str], chance: random.Random
) -> tuple[str, ...]:
    """Return what the page Features lists; searches look at the first one only, which tells no attribute."""
    sentences = [known[attribute][2] for attribute in attributes]
    return (chance.choice(about), *chance.sample(sentences, len(sentences)))


def _reviews(known: Sequence[Sequence[str]], chance: random.Random) -> tuple[str, tuple[Review, ...]]:
    if chance.random() < 0.3:
        return NO_RATING, ()
    chosen = chance.sample(known, chance.randint(1, 3))
    scores = [chance.choices(range(1, 6), (1, 1, 2, 5, 6))[0] for _ in chosen]
    reviews = (Review(title, f"{score}.0", body) for (title, body), score in zip(chosen, scores, strict=True))
    return f"{sum(scores) / len(scores):.1f}", tuple(reviews)


def _wish(words: dict[str, Any], kind: dict[str, Any], product: Product, chance: random.Random) -> Instruction:
    """Return what somebody writes who wants a product: attributes, rather those that its title does not tell, and options."""
    told = product.title.lower()
    hidden_first = sorted(product.attributes, key=lambda attribute: (attribute in told) + chance.random() * 1.5)
    attributes = hidden_first[: chance.choice([1, 2, 2, 3])]
    before, after = [], []
    for attribute in attributes:
        adjective, clause, _ = words["attributes"][attribute]
        if adjective and chance.random() < 0.6:
            before.append(adjective)
        else:
            after.append(clause)
    noun, *plural = next(noun[1:] for noun in kind["nouns"] if noun[0] in product.title)
    thing = f"{', '.join(before)} {noun}".strip()
    if not plural:
        thing = f"{'an' if thing[0] in 'aeiou' else 'a'} {thing}"
    options = {
        name: chance.choice(values)
        for name, values in product.options.items()
        if chance.random() < 0.85 or len(product.options) == 1
    }
    said = [_option(name, value, chance) for name, value in options.items()]
    thing = ", ".join([" ".join([thing, *([" and ".join(after)] if after else [])]), *said])
    text = chance.choice(words["openings"]).format(thing=thing)
    return Instruction(text, tuple(attributes), tuple(options.values()))


def _option(name: str, value: str, chance: random.Random) -> str:
    if name == "color":
        return chance.choice([f"in {value}", f"{value} colored", f"the color should be {value}"])
    return chance.choice([f"{name} {value}", f"the {name} should be {value}", f"in {name} {value}"])
