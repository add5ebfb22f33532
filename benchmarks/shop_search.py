"""Queries a second of WebShop's search beside SQLite's FTS5 and bm25s' own retrieval, on one catalogue and one core.

    OMP_NUM_THREADS=1 python -m benchmarks.shop_search [--quick] [--json] [--products N] [--queries FILE]

The products are drawn: words of the queries by how frequent they are, in texts as long as released ones (title 15 words,
description 80, a bullet point of 15, options). Without `--queries` (WebShop's human-goals.jsonl.gz, lines of `goal`) the words
are what this machine has (data/embedded.py). FTS5 ranks by BM25, too, with its own k1 and b, so that only its speed is compared;
products found by bm25s must have the scores of ours, or it exits 1. The notes tell time and memory of the index.
"""

import os

os.environ |= {"OMP_NUM_THREADS": "1"}

import random
import resource
import sqlite3
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import bm25s
import numpy as np
from bm25s.stopwords import STOPWORDS_EN

from benchmarks.harness import Result, argument_parser, interleaved, machine
from xmodel2.data.embedded import embedded_corpus
from xmodel2.eval.agents.product_search import TOP, Analysis, ProductSearch, searched_text
from xmodel2.eval.agents.products import Product, catalogue_of
from xmodel2.eval.mirror import read_rows


def main() -> None:
    """Measure and print."""
    parser = argument_parser(__doc__, "fewer products and queries")
    parser.add_argument("--products", type=int, default=20_000)
    parser.add_argument("--queries", type=Path)
    options = parser.parse_args()
    queries = _queries(options.queries)
    products = _products(queries, 3_000 if options.quick else options.products)
    asked = random.Random(1).sample(queries, 100 if options.quick else 1_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    ours = ProductSearch(catalogue_of("drawn", products, {}))
    seconds = time.perf_counter() - start
    memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    texts = [searched_text(product) for product in products]
    fts, fts_seconds = _fts(texts)
    theirs = _Retrieval(texts)
    unequal = sum(not theirs.agrees(query, ours.search(query)) for query in asked[:200])
    runs: dict[str, Callable[[str], object]] = {"ours": ours.search, "FTS5": fts, "bm25s.retrieve": theirs.search}
    # FTS5 is so slow that it gets a tenth of the queries.
    timed = {name: _timed(run, asked[:: 10 if name == "FTS5" else 1]) for name, run in runs.items()}
    speeds = interleaved(timed, 5)
    every = len(queries) / _timed(ours.search, queries)()
    speed = speeds.pop("ours")
    Result(
        name="shop_search",
        machine=machine(),
        ours=speed,
        peers=speeds,
        unit="queries/s",
        ratio_to_best_peer=speed / max(speeds.values()),
        share_of_limit=None,
        limit=None,
        notes=f"{len(products):,} products of {sum(map(len, texts)) / len(texts):.0f} characters, {len(asked):,} queries; "
        f"all {len(queries):,} by ours in {every:.1f} s; "
        f"index: {seconds:.1f} s, {memory:.0f} MiB at its peak (FTS5 {fts_seconds:.1f} s); "
        f"{unequal} of 200 answers differ from bm25s' own",
    ).show(options.json)
    sys.exit(1 if unequal else 0)


def _queries(file: Path | None) -> list[str]:
    if file is not None:
        return [str(row["goal"]) for row in read_rows(file)]
    words = " ".join(embedded_corpus(1_000_000)["docs"]).split()
    return [" ".join(words[start : start + 15]) for start in range(0, len(words) - 15, 15)]


def _products(queries: Sequence[str], count: int) -> list[Product]:
    draw = random.Random(0)
    words = " ".join(queries).split()

    def text(length: int) -> str:
        return " ".join(draw.choices(words, k=draw.randint(length // 2, 3 * length // 2)))

    return [
        Product(
            f"B{number:09d}",
            title=text(15),
            query="",
            category="",
            product_category="",
            description=text(80),
            bullet_points=(text(15),),
            attributes=(),
            options={"size": (text(3), text(3)), "color": tuple(text(2) for _ in range(4))},
            pricing=(10.0,),
            price=10.0,
        )
        for number in range(count)
    ]


def _timed(search: Callable[[str], object], queries: Sequence[str]) -> Callable[[], float]:
    def run() -> float:
        start = time.perf_counter()
        for query in queries:
            search(query)
        return len(queries) / (time.perf_counter() - start)

    return run


def _fts(texts: Sequence[str]) -> tuple[Callable[[str], list[int]], float]:
    start = time.perf_counter()
    database = sqlite3.connect(":memory:")
    database.execute("CREATE VIRTUAL TABLE product USING fts5(text, content='', tokenize='porter unicode61')")
    database.executemany("INSERT INTO product (rowid, text) VALUES (?, ?)", enumerate(texts))
    seconds = time.perf_counter() - start

    def search(query: str) -> list[int]:
        words = ("".join(filter(str.isalnum, word)) for word in query.lower().split())
        match = " OR ".join(f'"{word}"' for word in words if word and word not in STOPWORDS_EN)
        found = database.execute("SELECT rowid FROM product WHERE product MATCH ? ORDER BY rank LIMIT ?", (match, TOP))
        return [place for (place,) in found] if match else []

    return search, seconds


class _Retrieval:
    """bm25s from text to answer, of words as ours."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._words = Analysis()
        self._index = bm25s.BM25(k1=0.9, b=0.4, method="lucene")
        self._index.index([self._words(text) for text in texts], show_progress=False)

    def search(self, query: str) -> object:
        return self._index.retrieve([self._words(query)], k=TOP, show_progress=False)

    def agrees(self, query: str, places: Sequence[int]) -> bool:
        """Tell whether the scores of these products are the best ones there are."""
        words = self._words(query)
        scores = self._index.get_scores(words) if words else np.zeros(len(places))
        return bool(np.allclose(scores[list(places)], np.sort(scores)[::-1][: len(places)], rtol=1e-5))


if __name__ == "__main__":
    main()
