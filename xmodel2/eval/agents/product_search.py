"""Search in a catalogue, ranked by BM25 as WebShop's own search engine does it (pyserini, which is Lucene).

    text of a product = title, description, first bullet point, options
    words             = Lucene's English analysis: no possessives, no stop words, Porter's stems
    score             = BM25 with k1 0.9 and b 0.4, pyserini's defaults; equal ones by asin

Lucene keeps the lengths of texts in one byte each, so that its scores differ a little from exact ones.
"""

import re
from array import array
from collections.abc import Iterable

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
_STOP = -1


class ProductSearch:
    """An index of a catalogue."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._words = _Words()
        texts = [array("i", self._words.add(searched_text(product))) for product in catalogue.products]
        index = bm25s.BM25(k1=0.9, b=0.4, method="lucene")
        vocabulary = list(range(len(self._words.stems) + 1))  # of one word at least
        scores = index.build_index_from_ids(vocabulary, texts, show_progress=False)
        self._scores, self._places, self._starts = scores["data"], scores["indices"], scores["indptr"]
        self._rank = np.argsort(np.argsort(np.array(list(catalogue.positions)), kind="stable"))

    def search(self, query: str) -> list[int]:
        """Return the places of the best products in the catalogue, at most `TOP`, best first; none without a common word."""
        total = np.zeros(len(self._rank), dtype=np.float32)
        for word in self._words.find(query):
            part = slice(self._starts[word], self._starts[word + 1])
            total[self._places[part]] += self._scores[part]
        found = np.flatnonzero(total)
        if len(found) > TOP:
            found = found[total[found] >= np.partition(total[found], -TOP)[-TOP]]
        order = np.lexsort((self._rank[found], -total[found]))
        return found[order[:TOP]].tolist()


def searched_text(product: Product) -> str:
    """Return the text of a product that searches look at."""
    options = (f"{name}: {', '.join(values)}" for name, values in product.options.items())
    return " ".join((product.title, product.description, *product.bullet_points[:1], *options))


class _Words(dict[str, int]):
    """Numbers of stems by the words as they are written: each different word is stemmed once."""

    def __init__(self) -> None:
        super().__init__(dict.fromkeys(STOPWORDS_EN, _STOP))
        self._stemmer = Stemmer.Stemmer("porter")
        self.stems: dict[str, int] = {}

    def __missing__(self, word: str) -> int:
        plain = _POSSESSIVE.sub("", word)
        number = (
            _STOP if plain in STOPWORDS_EN else self.stems.setdefault(self._stemmer.stemWord(plain), len(self.stems))
        )
        self[word] = number
        return number

    def add(self, text: str) -> Iterable[int]:
        """Return the numbers of a text's words, new ones for new stems."""
        return (number for word in _WORD.findall(text.lower()) if (number := self[word]) != _STOP)

    def find(self, text: str) -> Iterable[int]:
        """Return the numbers of those words whose stems are known."""
        for word in _WORD.findall(text.lower()):
            plain = _POSSESSIVE.sub("", word)
            if plain not in STOPWORDS_EN and (number := self.stems.get(self._stemmer.stemWord(plain))) is not None:
                yield number
