"""Nouns of a product's title, by which WebShop's reward compares what was bought with what was asked for.

The original tags with spaCy's en_core_web_lg (earlier) or en_core_web_sm (later). Where neither is installed, TextBlob's
lexicon and rules do it, with nothing to download: another tagger, and so scores of another name.
"""

import importlib.util
from collections.abc import Callable
from functools import cache

SPACY_MODELS = ("en_core_web_lg", "en_core_web_sm")
_SPACY_NOUNS = ("NOUN", "PROPN")
_PENN_NOUNS = ("NN", "NNS", "NNP", "NNPS")


class Nouns:
    """Nouns of texts, in lower case and in their order; each text is tagged once."""

    def __init__(self, name: str, tag: Callable[[str], list[str]]) -> None:
        self.name = name
        """Of the tagger, for the text of the world."""
        self._tag = cache(tag)

    def __call__(self, title: str) -> list[str]:
        """Return the nouns of a title; repeated ones count again."""
        return self._tag(title)


def open_nouns() -> Nouns:
    """Return the best tagger that is installed."""
    for name in SPACY_MODELS:
        if importlib.util.find_spec(name) is not None:
            return _spacy(name)
    return textblob_nouns()


def textblob_nouns() -> Nouns:
    """Return the tagger that is always there."""
    from textblob.taggers import PatternTagger  # type: ignore[import-untyped]  # needs a while

    tagger = PatternTagger()

    def tag(title: str) -> list[str]:
        return [word.lower() for word, kind in tagger.tag(title, tokenize=True) if kind in _PENN_NOUNS]

    return Nouns("TextBlob's PatternTagger", tag)


def _spacy(name: str) -> Nouns:
    import spacy

    pipeline = spacy.load(name, exclude=["ner"])

    def tag(title: str) -> list[str]:
        return [token.text.lower() for token in pipeline(title) if token.pos_ in _SPACY_NOUNS]

    return Nouns(f"spaCy's {name} {pipeline.meta['version']}", tag)
