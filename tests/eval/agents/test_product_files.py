"""WebShop's released files are read as its authors read them, one product at a time, and what is wrong in them is named."""

import gzip
import json
import random
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from xmodel2.errors import XmodelError
from xmodel2.eval.agents.product_files import load_products
from xmodel2.eval.agents.products import Catalogue, Product, draw_price
from xmodel2.eval.agents.shop_goals import Goal, human_goals

# 60 made-up products in the released layout, and what the authors' `load_products`, `generate_product_prices` and `get_goals`
# (princeton-nlp/WebShop, engine.py of commit 89b9519 and 7b6c7e0, goal.py of d149d0d, shuffled as app.py does it) make of
# them after `random.seed(5)`.
RECORDED = json.loads(gzip.decompress((Path(__file__).parent / "webshop_files.json.gz").read_bytes()))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in RECORDED["files"].items():
        (tmp_path / f"{name}.json").write_text(content, encoding="utf-8")
    return tmp_path


def as_recorded(product: Product) -> dict[str, Any]:
    return {
        "asin": product.asin,
        "Title": product.title,
        "query": product.query,
        "category": product.category,
        "product_category": product.product_category,
        "Description": product.description,
        "BulletPoints": list(product.bullet_points),
        "Attributes": list(product.attributes),
        "options": {name: list(values) for name, values in product.options.items()},
        "pricing": list(product.pricing),
        "Price": product.price_tag,
        "Rating": product.rating,
        "Reviews": [{"title": review.title, "score": review.score, "body": review.body} for review in product.reviews],
        "MainImage": product.image,
    }


def goal_as_recorded(goal: Goal) -> dict[str, Any]:
    return {
        "asin": goal.asin,
        "category": goal.category,
        "query": goal.query,
        "name": goal.title,
        "product_category": goal.product_category,
        "instruction_text": goal.instruction,
        "attributes": list(goal.attributes),
        "price_upper": goal.price_upper,
        "goal_options": list(goal.options),
    }


def as_text(value: Any) -> Any:
    """Ratings and stars are texts here, whatever they are in the file."""
    for product in value:
        product["Rating"] = str(product["Rating"])
        for review in product["Reviews"]:
            review["score"] = str(review["score"])
    return value


def test_products_are_those_of_the_original(folder: Path) -> None:
    catalogue = load_products(folder)
    assert [as_recorded(product) for product in catalogue.products] == as_text(RECORDED["products"])
    assert catalogue.source == "items_shuffle_1000.json"
    assert list(catalogue.positions) == [product["asin"] for product in RECORDED["products"]]


def test_prices_and_goals_are_those_of_the_original_from_the_same_random_numbers(folder: Path) -> None:
    catalogue, draw = load_products(folder), random.Random(RECORDED["seed"])
    prices = [draw_price(product.pricing, draw) for product in catalogue.products]
    assert prices == RECORDED["prices"]
    priced = [replace(product, price=price) for product, price in zip(catalogue.products, prices, strict=True)]
    found = human_goals(replace(catalogue, products=priced), lambda _: draw)
    assert [goal_as_recorded(goal) for goal in found] == RECORDED["human"]


def test_prices_and_limits_are_the_same_in_every_run_and_in_every_part_of_a_catalogue(folder: Path) -> None:
    whole = load_products(folder)
    products, goals = list(whole.products), set(human_goals(whole))
    changed(folder, "items_shuffle_1000", lambda value: value.__setitem__(slice(None), value[:29:-1]))
    part = load_products(folder)
    assert list(part.products) == products[:-31:-1]
    assert set(human_goals(part)) < goals


def test_a_product_is_read_when_it_is_looked_at(folder: Path) -> None:
    products = load_products(folder).products
    assert [products[place] for place in range(len(products))] == list(products) == products[:]
    assert products[-1] == products[len(products) - 1]
    assert products[2:4] == [products[2], products[3]]
    with pytest.raises(IndexError):
        products[len(products)]
    (folder / "items_shuffle_1000.json").write_text("[]")
    with pytest.raises(XmodelError, match="was changed while it was in use"):
        list(products)


def test_memory_does_not_grow_with_the_texts_of_products(folder: Path) -> None:
    first = json.loads(RECORDED["files"]["items_shuffle_1000"])[0]
    with (folder / "items_shuffle_1000.json").open("w") as file:
        file.write("[")
        for number in range(1500):
            product = {**first, "asin": f"{number:010d}", "full_description": "long " * 2000}
            file.write(("," if number else "") + json.dumps(product))
        file.write("]")
    tracemalloc.start()
    catalogue = load_products(folder)
    held, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(catalogue.products) == 1500
    assert catalogue.products[1499].asin == "0000001499"
    assert held < 1e6  # of 15 MB
    assert most < 12e6


def changed(folder: Path, name: str, change: Any) -> None:
    path = folder / f"{name}.json"
    value = json.loads(path.read_text(encoding="utf-8"))
    change(value)
    path.write_text(json.dumps(value), encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("items_shuffle_1000", lambda v: v[4].pop("name"), "product 5: field 'name' is missing"),
        ("items_shuffle_1000", lambda v: v[4].update(asin=3), "product 5: field 'asin' must be a text"),
        (
            "items_shuffle_1000",
            lambda v: v[4].pop("small_description"),
            "product 5: field 'small_description' is missing",
        ),
        (
            "items_shuffle_1000",
            lambda v: v[4].update(small_description=[1]),
            "product 5: field 'small_description' must be a list",
        ),
        (
            "items_shuffle_1000",
            lambda v: v[4].update(pricing="free"),
            "product 5: field 'pricing' must be prices such as",
        ),
        ("items_shuffle_1000", lambda v: v[4].update(pricing="$"), "product 5: field 'pricing' must be prices such as"),
        ("items_shuffle_1000", lambda v: v[4].update(pricing=[1]), "product 5: field 'pricing' must be a text"),
        (
            "items_shuffle_1000",
            lambda v: v[4].update(customization_options=[1]),
            "field 'customization_options' must be an object",
        ),
        (
            "items_shuffle_1000",
            lambda v: v[4].update(customization_options={"Size": [{"worth": 1}]}),
            "field 'customization_options' must have a list of objects with a 'value' for 'Size'",
        ),
        ("items_shuffle_1000", lambda v: v.insert(2, "text"), "product 3: must be a JSON object"),
        ("items_shuffle_1000", lambda v: v.clear(), "has no products"),
        ("items_ins_v2_1000", lambda v: v.update(X=[]), "product X: must be a JSON object"),
        (
            "items_ins_v2_1000",
            lambda v: v.update(X={"attributes": "soft"}),
            "product X: field 'attributes' must be a list",
        ),
        ("items_human_ins", lambda v: v.update(X={}), "product X: must be a list of instructions"),
        (
            "items_human_ins",
            lambda v: v.update(X=[{"a": 1}]),
            "product X, instruction 1: field 'instruction' is missing",
        ),
        (
            "items_human_ins",
            lambda v: v.update(X=[{"instruction": "a", "instruction_options": [1]}]),
            "product X, instruction 1: field 'instruction_options' must be a list of texts",
        ),
        ("reviews", lambda v: v[0].update(reviews={"a": 1}), "entry 1: field 'reviews' must be a list"),
        ("reviews", lambda v: v[0].update(reviews=[1]), "entry 1, review 1: must be a JSON object"),
    ],
)
def test_what_is_wrong_is_named(folder: Path, name: str, change: Any, message: str) -> None:
    changed(folder, name, change)
    with pytest.raises(XmodelError) as error:
        load_products(folder)
    assert message in str(error.value)
    assert str(folder / name) in str(error.value)


def test_nulls_are_empty_texts(folder: Path) -> None:
    nothing = {"full_description": None, "small_description": None, "images": None, "pricing": None}
    changed(folder, "items_shuffle_1000", lambda value: value[0].update(nothing))
    product = load_products(folder).products[0]
    assert (product.description, product.bullet_points, product.image, product.price) == ("", ("",), "", 100.0)


def test_half_characters_are_replaced(folder: Path) -> None:
    half = {
        "name": "a \ud800 b",
        "customization_options": {"\udfffSize": [{"value": "\ude00 x"}]},
        "images": ["\udc00"],
    }
    changed(folder, "items_shuffle_1000", lambda value: value[0].update(half))
    changed(folder, "items_human_ins", lambda value: value.update({"\ud800": [{"instruction": "\ud83d\ude00 \ud83d"}]}))
    catalogue = load_products(folder)
    for product in (catalogue.products[0], next(iter(catalogue.products))):
        assert (product.title, product.options, product.image) == ("a ? b", {"?size": ("? x",)}, "?")
    assert catalogue.human["?"][0].text == "😀 ?"


def test_a_missing_file_is_named_with_what_gets_it(folder: Path) -> None:
    (folder / "reviews.json").unlink()
    assert {product.rating for product in load_products(folder).products} == {"N.A."}
    (folder / "items_human_ins.json").unlink()
    with pytest.raises(XmodelError, match=r"items_human_ins\.json: no such file; .*eval fetch --suite agents"):
        load_products(folder)
    with pytest.raises(XmodelError, match=r"items_shuffle_1000\.json: no such file"):
        load_products(folder / "nowhere")


def test_the_whole_catalogue_goes_before_the_small_one(folder: Path) -> None:
    before = load_products(folder)
    for name in ("items_shuffle", "items_ins_v2"):
        (folder / f"{name}.json").write_bytes((folder / f"{name}_1000.json").read_bytes())
    whole: Catalogue = load_products(folder)
    assert whole.source == "items_shuffle.json"
    assert whole.fingerprint == before.fingerprint
    changed(folder, "items_ins_v2", lambda value: value.popitem())
    assert load_products(folder).fingerprint != before.fingerprint
