"""Nouns of titles are found without a download, whatever a title has in it."""

import sys
from types import ModuleType, SimpleNamespace

import pytest

from xmodel2.eval.agents import nouns
from xmodel2.eval.agents.nouns import Nouns, open_nouns, textblob_nouns


def test_nouns_of_a_title() -> None:
    tagged = textblob_nouns()
    assert tagged("Leather case for a phone, soft and slim") == ["leather", "case", "phone"]
    assert tagged("very soft and easy") == []
    assert "PatternTagger" in tagged.name


@pytest.mark.parametrize(
    "title", ["", " \n", "!!!", "a/b | c", "日本語 シャンプー", "\x00\x1b[31m", "x" * 10_000, "y " * 3_000]
)
def test_odd_titles_have_some_nouns_or_none(title: str) -> None:
    found = textblob_nouns()(title)
    assert all(word == word.lower() for word in found)


def test_a_title_is_tagged_once() -> None:
    asked: list[str] = []
    tagged = Nouns("double", lambda title: asked.append(title) or [title])  # type: ignore[func-returns-value]
    assert [tagged("sofa"), tagged("sofa"), tagged("rug")] == [["sofa"], ["sofa"], ["rug"]]
    assert asked == ["sofa", "rug"]


def test_a_model_of_spacy_is_taken_where_one_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = [
        SimpleNamespace(text=text, pos_=kind) for text, kind in (("Soft", "ADJ"), ("Sofa", "NOUN"), ("Acme", "PROPN"))
    ]

    class Pipeline:
        def __init__(self) -> None:
            self.meta = {"version": "3.8.0"}

        def __call__(self, _: str) -> list[SimpleNamespace]:
            return tokens

    spacy = ModuleType("spacy")
    spacy.load = lambda name, exclude: Pipeline()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "spacy", spacy)
    monkeypatch.setattr(nouns.importlib.util, "find_spec", lambda name: name == "en_core_web_sm" or None)
    tagged = open_nouns()
    assert tagged.name == "spaCy's en_core_web_sm 3.8.0"
    assert tagged("Soft Sofa Acme") == ["sofa", "acme"]
    monkeypatch.setattr(nouns.importlib.util, "find_spec", lambda name: None)
    assert open_nouns().name == textblob_nouns().name
