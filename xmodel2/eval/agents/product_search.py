"""Search in a catalogue, ranked by BM25 as WebShop's own search engine does it (pyserini, which is Lucene).

    text of a product = title, description, first bullet point, options
    words             = Lucene's English analysis: no possessives, no stop words, Porter's stems
    score             = BM25 with k1 0.9 and b 0.4, pyserini's defaults; equal ones by asin

Lucene keeps the lengths of texts in one byte each, so that its scores differ a little from exact ones.
"""

import re
from array import array

import bm25s
import numpy as np
import Stemmer
from bm25s.stopwords import STOPWORDS_EN

from xmodel2.eval.agents.products import Catalogue, Product

TOP = 50
"""Products that a search finds."""
PAGE = 10
"""Products on one page of results."""
_WORD = re.compile(r"\w+(?:(?:(?<=[^\W\d_])['’.](?=[^\W\d_])|(?<=\d)[.,'](?=\d))\w+)*")
"""A word by Unicode's rules, which go on over an apostrophe or a full stop inside: "women's", "d.o.n", "3.5", "1,000"."""
_POSSESSIVE = re.compile(r"['’]s$")


class ProductSearch:
    """An index of a catalogue."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._analysis, self._numbers = Analysis(), dict[str, int]()
        texts = [array("i", self._numbered(searched_text(product))) for product in catalogue.products]
        index = bm25s.BM25(k1=0.9, b=0.4, method="lucene")
        scores = index.build_index_from_ids(list(range(len(self._numbers))), texts, show_progress=False)
        self._scores, self._places, self._starts = scores["data"], scores["indices"], scores["indptr"]
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

    def _numbered(self, text: str) -> list[int]:
        return [self._numbers.setdefault(stem, len(self._numbers)) for stem in self._analysis(text)]


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
