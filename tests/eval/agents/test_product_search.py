"""Search ranks as Lucene does with pyserini's defaults, the same every time, and answers whatever is asked."""

import math
import random
from collections import Counter
from pathlib import Path

import pytest

from xmodel2.eval.agents import product_search
from xmodel2.eval.agents.product_search import TOP, Analysis, ProductSearch, searched_text
from xmodel2.eval.agents.products import Catalogue, Product, catalogue_of

_WORDS = """
sofa sofas lamp lamps soft softer hair mask men's women’s 3.5 1,000 d.o.n. usb-c the with of café 日本語 running shoe
"""
WORDS = _WORDS.split()


def product(asin: str, title: str, description: str = "", bullet: str = "", **options: tuple[str, ...]) -> Product:
    points = (bullet, "never searched zzz")
    return Product(asin, title, "", "", "", description, points, (), options, (1.0,), 1.0)


def drawn(count: int) -> Catalogue:
    draw = random.Random(4)

    def text(length: int) -> str:
        return " ".join(draw.choices(WORDS, k=draw.randint(1, length)))

    products = [product(f"B{number:04d}", text(5), text(20), text(5), size=(text(2), "xl")) for number in range(count)]
    draw.shuffle(products)
    return catalogue_of("drawn", products, {})


CATALOGUE = drawn(150)
SEARCH = ProductSearch(CATALOGUE)


def test_words_are_analysed_as_lucene_does() -> None:
    analysis = Analysis()
    assert analysis("The Men's running-shoes, women’s SOFAS (3.5 in. x 1,000)") == [
        *("men", "run", "shoe", "women", "sofa", "3.5", "x", "1,000")
    ]
    assert analysis("D.O.N. O'Neal's café 日本語 don't it's") == ["d.o.n", "o'neal", "café", "日本語", "don't"]
    assert analysis("") == analysis("the of and") == analysis(" !? \x00") == []


def test_searched_are_title_description_first_bullet_point_and_options() -> None:
    one = product("B1", "Title", "Description", "bullet", size=("small", "large"), color=("red",))
    assert searched_text(one) == "Title Description bullet size: small, large color: red"


def test_ranking_is_bm25_with_ties_by_asin() -> None:
    analysis = Analysis()
    texts = [Counter(analysis(searched_text(one))) for one in CATALOGUE.products]
    lengths = [sum(text.values()) for text in texts]
    mean = sum(lengths) / len(lengths)

    def score(place: int, stems: list[str]) -> float:
        total = 0.0
        for stem in stems:
            holding = sum(stem in text for text in texts)
            weight = math.log(1 + (len(texts) - holding + 0.5) / (holding + 0.5))
            times = texts[place][stem]
            total += weight * times / (times + 0.9 * (1 - 0.4 + 0.4 * lengths[place] / mean))
        return total

    draw = random.Random(5)
    for _ in range(60):
        query = " ".join(draw.choices(WORDS, k=draw.randint(1, 6)))
        scores = [score(place, analysis(query)) for place in range(len(texts))]
        best = sorted(range(len(texts)), key=lambda place: (-round(scores[place], 5), CATALOGUE.products[place].asin))
        expected = [place for place in best if scores[place] > 0][:TOP]
        found = SEARCH.search(query)
        assert [scores[place] for place in found] == pytest.approx([scores[place] for place in expected], abs=1e-5)
        assert sorted(found) == sorted(set(found))


def test_equal_products_come_by_asin() -> None:
    products = [product(f"B{number:03d}", "a soft sofa") for number in (*range(90, 30, -1), 7)]
    found = ProductSearch(catalogue_of("equal", products, {})).search("sofas")
    asins = [products[place].asin for place in found]
    assert len(asins) == TOP
    assert asins == sorted(one.asin for one in products)[:TOP]


@pytest.mark.parametrize(
    "query",
    [
        "",
        " ",
        "the of with",
        "!!!",
        "zzz",
        "x" * 10_000,
        "sofa " * 2_000,
        "\x00\x1b[31m",
        "日本語",
        "' OR 1=1 --",
        "ﬁ\u202e",
        "[]",
    ],
)
def test_odd_queries_are_answered(query: str) -> None:
    found = SEARCH.search(query)
    assert len(found) <= TOP
    assert found == SEARCH.search(query)
    assert bool(found) == any(word in query for word in ("sofa", "日本語"))


@pytest.mark.filterwarnings("ignore:invalid value")
def test_products_without_a_word_are_never_found() -> None:
    search = ProductSearch(catalogue_of("empty", [Product("B1", "", "", "", "", "", (), (), {}, (1.0,), 1.0)], {}))
    assert search.search("sofa") == []


def test_the_index_of_a_large_catalogue_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ProductSearch(CATALOGUE, tmp_path)
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(product_search, "SMALL", 100)
    assert ProductSearch(CATALOGUE, tmp_path).search("soft café") == SEARCH.search("soft café")
    [file] = tmp_path.iterdir()
    with monkeypatch.context() as without:
        without.setattr(product_search, "searched_text", lambda _: pytest.fail("the index is there"))
        assert ProductSearch(CATALOGUE, tmp_path).search("soft café") == SEARCH.search("soft café")
    file.write_bytes(file.read_bytes()[:1000])
    assert ProductSearch(CATALOGUE, tmp_path).search("soft café") == SEARCH.search("soft café")
    assert file.stat().st_size > 1000
    ProductSearch(drawn(120), tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_an_index_that_cannot_be_kept_is_used_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(product_search, "SMALL", 100)
    (tmp_path / "file").touch()
    assert ProductSearch(CATALOGUE, tmp_path / "file").search("sofa") == SEARCH.search("sofa")
