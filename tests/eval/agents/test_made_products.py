"""The made-up catalogue: the same from a seed, choices that matter, and readable in the released layout."""

import itertools
from pathlib import Path

from xmodel2.eval.agents.made_products import made_catalogue, write_released
from xmodel2.eval.agents.product_files import load_products
from xmodel2.eval.agents.shop_goals import TEST_GOALS, human_goals
from xmodel2.eval.agents.shop_reward import alike, base_color

CATALOGUE = made_catalogue()


def test_a_seed_gives_one_catalogue() -> None:
    assert CATALOGUE.fingerprint == "7c466b237f7b970a044791fc48e47cf2257b1e1b910283f95546949be318d022"
    made_catalogue.cache_clear()
    assert made_catalogue() == CATALOGUE
    assert made_catalogue(1).fingerprint != CATALOGUE.fingerprint


def test_there_is_enough_to_choose_from() -> None:
    assert len(CATALOGUE.products) == len(CATALOGUE.positions) == 1056
    assert {len(product.asin) for product in CATALOGUE.products} == {10}
    assert len({product.query for product in CATALOGUE.products}) == 48
    for product in CATALOGUE.products:
        values = [value for group in product.options.values() for value in group]
        assert len(values) == len(set(values)), product
        for one, other in itertools.combinations(values, 2):
            assert not alike(base_color(one), base_color(other)), (product.query, one, other)


def test_products_of_a_line_differ_in_what_is_asked_for() -> None:
    lines = itertools.groupby(
        sorted(CATALOGUE.products, key=lambda product: product.title), lambda product: product.title.split(",")[0]
    )
    for _, line in lines:
        for one, other in itertools.combinations(line, 2):
            assert set(one.attributes) != set(other.attributes) or one.options != other.options


def test_wishes_are_of_products_and_some_are_left_for_examples() -> None:
    goals = human_goals(CATALOGUE)
    assert len({goal.asin for goal in goals}) == len(goals) > TEST_GOALS
    for goal in goals:
        product = CATALOGUE.products[CATALOGUE.positions[goal.asin]]
        assert set(goal.attributes) <= set(product.attributes)
        assert set(goal.options) <= {value for values in product.options.values() for value in values}
        assert product.price < goal.price_upper
        assert all(option in goal.instruction for option in goal.options)


def test_written_in_the_released_layout_it_is_read_back(tmp_path: Path) -> None:
    write_released(CATALOGUE, tmp_path)
    read = load_products(tmp_path)
    assert list(read.products) == list(CATALOGUE.products)
    assert (read.human, read.positions) == (CATALOGUE.human, CATALOGUE.positions)
    assert human_goals(read) == human_goals(CATALOGUE)
