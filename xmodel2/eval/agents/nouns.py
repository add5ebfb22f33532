"""Nouns of a product's title, by which WebShop's reward compares what was bought with what was asked for.

The original tags with spaCy's en_core_web_lg (earlier) or en_core_web_sm (later). Where neither is installed, TextBlob's
lexicon and rules do it, with nothing to download: another tagger, and so scores of another name.

A tagger takes seconds to import and is made when the first title is tagged.
"""

from collections.abc import Callable
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from xmodel2.errors import XmodelError

SPACY_MODELS = ("en_core_web_lg", "en_core_web_sm")
_SPACY_NOUNS = ("NOUN", "PROPN")
_PENN_NOUNS = ("NN", "NNS", "NNP", "NNPS")
Tag = Callable[[str], list[str]]
"""Returns the nouns of a title."""


class Nouns:
    """Nouns of texts, in lower case and in their order; each text is tagged once."""

    def __init__(self, name: str, tagger: Callable[[], Tag]) -> None:
        """``tagger`` makes what tags."""
        self.name = name
        """Of the tagger and its version, for the text of the world."""
        self._tagger = cache(tagger)
        self._tagged = cache(self._tag)

    def __call__(self, title: str) -> list[str]:
        """Return the nouns of a title; repeated ones count again. Raises `XmodelError` if the tagger cannot be loaded."""
        return self._tagged(title)

    def _tag(self, title: str) -> list[str]:
        return self._tagger()(title)


def open_nouns() -> Nouns:
    """Return the best tagger that is installed. Raises `ModuleNotFoundError` if none is."""
    for name in SPACY_MODELS:
        if find_spec("spacy") and find_spec(name):
            return Nouns(f"spaCy's {name}{_version(name)}", partial(_spacy, name))
    return textblob_nouns()


def textblob_nouns() -> Nouns:
    """Return the tagger that needs no download. Raises `ModuleNotFoundError` if it is not installed."""
    if not find_spec("textblob"):
        raise ModuleNotFoundError("no TextBlob", name="textblob")
    return Nouns(f"TextBlob{_version('textblob')}'s PatternTagger", _textblob)


def _version(package: str) -> str:
    try:
        return f" {version(package)}"
    except PackageNotFoundError:  # a model that was put there by hand
        return ""


def _textblob() -> Tag:
    from textblob.taggers import PatternTagger  # type: ignore[import-untyped]

    tagger = PatternTagger()

    def tag(title: str) -> list[str]:
        return [word.lower() for word, kind in tagger.tag(title, tokenize=True) if kind in _PENN_NOUNS]

    return tag


def _spacy(name: str) -> Tag:
    try:
        import spacy

        pipeline = spacy.load(name, exclude=["ner"])
    except Exception as error:  # a model of another version fails in many ways
        raise XmodelError(
            f"{name}: spaCy cannot load it ({type(error).__name__}: {error}); install it anew, or uninstall it, and TextBlob "
            "finds the nouns"
        ) from error

    def tag(title: str) -> list[str]:
        return [token.text.lower() for token in pipeline(title) if token.pos_ in _SPACY_NOUNS]

    return tag
