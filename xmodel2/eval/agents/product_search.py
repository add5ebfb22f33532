"""Search in a catalogue, ranked by BM25 as WebShop's own search engine does it (pyserini, which is Lucene).

    text of a product = title, description, first bullet point, options
    words             = Lucene's English analysis: no possessives, no stop words, Porter's stems
    score             = BM25 with k1 0.9 and b 0.4, pyserini's defaults; equal ones by asin

Lucene keeps the lengths of texts in one byte each, so that its scores differ a little from exact ones.
"""

import re
from array import array
from collections.abc import Iterable, Mapping
from pathlib import Path
from zipfile import BadZipFile

import bm25s
import numpy as np
import Stemmer
from bm25s.stopwords import STOPWORDS_EN

from xmodel2.eval.agents.products import Catalogue, Product
from xmodel2.files import writing_atomic

TOP = 50
"""Products that a search finds."""
SMALL = 20_000
"""Products up to which an index is made in less than a minute, and not kept."""
_FORM = 1
"""Of kept indices; counts up with every change of what an index of the same products is."""
_ARRAYS = ("data", "indices", "indptr")
_WORD = re.compile(r"\w+(?:(?:(?<=[^\W\d_])['’.](?=[^\W\d_])|(?<=\d)[.,'](?=\d))\w+)*")
"""A word by Unicode's rules, which go on over an apostrophe or a full stop inside: "women's", "d.o.n", "3.5", "1,000"."""
_POSSESSIVE = re.compile(r"['’]s$")


class ProductSearch:
    """An index of a catalogue."""

    def __init__(self, catalogue: Catalogue, folder: Path | None = None) -> None:
        """``folder``: where the index of a catalogue above `SMALL` is kept, if it can be written, to be made only once."""
        self._analysis = Analysis()
        kept = None
        if folder is not None and len(catalogue.products) > SMALL:
            kept = folder / f"search-{_FORM}-{catalogue.fingerprint[:16]}.npz"
        index = _read(kept) if kept else None
        if index is None:
            index = self._index(catalogue.products)
            if kept:
                _write(kept, index)
        self._scores, self._places, self._starts = (index[name] for name in _ARRAYS)
        self._numbers = {stem: number for number, stem in enumerate(index["stems"].tobytes().decode().split("\n"))}
        self._rank = np.argsort(np.argsort(np.array(list(catalogue.positions)), kind="stable"))

    def search(self, query: str) -> list[int]:
        """Return the places of the best products in the catalogue, at most `TOP`, best first; none without a common word."""
        total = np.zeros(len(self._rank), dtype=np.float32)
        for stem in self._analysis(query):
            if (number := self._numbers.get(stem)) is not None:
                part = slice(self._starts[number], self._starts[number + 1])
                np.add.at(total, self._places[part], self._scores[part])  # faster than by an index array
        least = np.partition(total, -TOP)[-TOP] if len(total) > TOP else 0
        found = np.flatnonzero(total >= least if least > 0 else total)
        order = np.lexsort((self._rank[found], -total[found]))
        return found[order[:TOP]].tolist()

    def _index(self, products: Iterable[Product]) -> Mapping[str, np.ndarray]:
        numbers = dict[str, int]()
        texts = [
            array("i", [numbers.setdefault(stem, len(numbers)) for stem in self._analysis(searched_text(product))])
            for product in products
        ]
        scores = bm25s.BM25(k1=0.9, b=0.4, method="lucene").build_index_from_ids(
            list(numbers.values()), texts, show_progress=False
        )
        stems = np.frombuffer("\n".join(numbers).encode(), dtype=np.uint8)
        return {**{name: scores[name] for name in _ARRAYS}, "stems": stems}


class Analysis(dict[str, str]):
    """Lucene's English analysis; remembers what each word that it met became, "" for nothing."""

    def __init__(self) -> None:
        super().__init__(dict.fromkeys(STOPWORDS_EN, ""))
        self._stemmer = Stemmer.Stemmer("porter")

    def __call__(self, text: str) -> list[str]:
        """Return the stems of a text, in order."""
        return [stem for word in _WORD.findall(text.lower()) if (stem := self[word])]

    def __missing__(self, word: str) -> str:
        plain = _POSSESSIVE.sub("", word)
        stem = self[word] = self[plain] if plain != word else self._stemmer.stemWord(word)
        return stem


def searched_text(product: Product) -> str:
    """Return the text of a product that searches look at."""
    options = (f"{name}: {', '.join(values)}" for name, values in product.options.items())
    return " ".join((product.title, product.description, *product.bullet_points[:1], *options))


def _read(file: Path) -> Mapping[str, np.ndarray] | None:
    """Return a kept index, None if it is not there or damaged."""
    try:
        with np.load(file) as arrays:
            return {name: arrays[name] for name in (*_ARRAYS, "stems")}
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        return None


def _write(file: Path, index: Mapping[str, np.ndarray]) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with writing_atomic(file) as out:
            np.savez(out, data=index["data"], indices=index["indices"], indptr=index["indptr"], stems=index["stems"])
    except OSError:
        return  # a folder that cannot be written: the next run makes the index again
