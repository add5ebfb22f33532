"""Nouns of titles are found without a download, whatever a title has in it."""

import importlib.metadata
import subprocess
import sys
from types import ModuleType, SimpleNamespace

import pytest

from xmodel2.errors import XmodelError
from xmodel2.eval.agents import nouns
from xmodel2.eval.agents.nouns import Nouns, open_nouns, textblob_nouns


def test_nouns_of_a_title() -> None:
    tagged = textblob_nouns()
    assert tagged("Leather case for a phone, soft and slim") == ["leather", "case", "phone"]
    assert tagged("very soft and easy") == []
    assert tagged.name == f"TextBlob {importlib.metadata.version('textblob')}'s PatternTagger"


@pytest.mark.parametrize(
    "title", ["", " \n", "!!!", "a/b | c", "日本語 シャンプー", "\x00\x1b[31m", "x" * 10_000, "y " * 3_000]
)
def test_odd_titles_have_some_nouns_or_none(title: str) -> None:
    found = textblob_nouns()(title)
    assert all(word == word.lower() for word in found)


def test_a_title_is_tagged_once() -> None:
    asked: list[str] = []
    made: list[str] = []

    def tagger() -> nouns.Tag:
        made.append("once")
        return lambda title: asked.append(title) or [title]  # type: ignore[func-returns-value]

    tagged = Nouns("double", tagger)
    assert not made
    assert [tagged("sofa"), tagged("sofa"), tagged("rug")] == [["sofa"], ["sofa"], ["rug"]]
    assert (asked, made) == (["sofa", "rug"], ["once"])


def test_a_shop_is_opened_without_the_import_of_a_tagger() -> None:
    code = (
        "import sys; from xmodel2.eval.agents import webshop; webshop.webshop_benchmark(webshop.AgentOptions()); "
        "print([name for name in ('textblob', 'nltk', 'spacy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_model_of_spacy_is_taken_where_one_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = [
        SimpleNamespace(text=text, pos_=kind) for text, kind in (("Soft", "ADJ"), ("Sofa", "NOUN"), ("Acme", "PROPN"))
    ]

    spacy = ModuleType("spacy")
    spacy.load = lambda name, exclude: lambda title: tokens  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "spacy", spacy)
    there = ["spacy", "en_core_web_sm", "textblob"]
    monkeypatch.setattr(nouns, "find_spec", lambda name: name in there or None)
    assert open_nouns().name == "spaCy's en_core_web_sm"  # put there by hand
    monkeypatch.setattr(nouns, "version", lambda name: {"en_core_web_sm": "3.8.0"}.get(name, "0.19.0"))
    tagged = open_nouns()
    assert tagged.name == "spaCy's en_core_web_sm 3.8.0"
    assert tagged("Soft Sofa Acme") == ["sofa", "acme"]
    there.remove("spacy")
    assert open_nouns().name == "TextBlob 0.19.0's PatternTagger"
    there.clear()
    with pytest.raises(ModuleNotFoundError, match="TextBlob"):
        open_nouns()


def test_a_model_that_spacy_cannot_load_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str, exclude: list[str]) -> None:
        raise OSError("[E053] Could not read config file")

    spacy = ModuleType("spacy")
    spacy.load = load  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "spacy", spacy)
    monkeypatch.setattr(nouns, "find_spec", lambda name: True)
    with pytest.raises(XmodelError, match=r"en_core_web_lg: spaCy cannot load it .*E053.*TextBlob"):
        open_nouns()("a sofa")
