"""Articles from the facts of a made-up world: plain sentences, and where each fact stands."""

import random
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from xmodel2.eval.agents.made_names import correct
from xmodel2.eval.agents.made_tasks import Hop, MadeArticle
from xmodel2.eval.agents.made_world import Thing

SHOWN = 5
"""Sentences of an article that a search shows."""


@cache
def read_words(file: str) -> Mapping[str, Any]:
    """Return a file of words beside this one."""
    return tomllib.loads(Path(__file__).with_name(file).read_text(encoding="utf-8"))


def relations(kind: str) -> Mapping[str, Mapping[str, Any]]:
    """Return what can be told of a kind of thing, and how it is said and asked for."""
    found: Mapping[str, Mapping[str, Any]] = read_words("made_articles.toml")[kind]["relations"]
    return found


def called(thing: Thing) -> str:
    """Return what a question calls a thing: "the film Halve"."""
    if thing.kind == "person" and thing.title != thing.name:
        return f"the {thing.facts['profession']} {thing.name}"
    return str(read_words("made_articles.toml")[thing.kind]["anchor"]).format(name=thing, **thing.facts)


def say(kind: str, relation: str, about: str, value: Any) -> str:
    """Return a fact as a sentence without its full stop."""
    text = str(relations(kind)[relation]["say"]).format(x=about, v=value)
    return correct(text[0].upper() + text[1:])


def written(kind: str, relation: str, value: Any) -> str:
    """Return a value as the article writes it."""
    return f"{value:,}" if "{v:,}" in relations(kind)[relation]["say"] else str(value)


@dataclass(frozen=True)
class Page:
    """A thing's article, and the sentence of each fact by relation."""

    thing: Thing
    sentences: tuple[str, ...]
    stated: Mapping[str, str]

    @property
    def article(self) -> MadeArticle:
        """The article: a paragraph of what comes first, and one of the rest."""
        first = len(read_words("made_articles.toml")[self.thing.kind]["first"])
        return MadeArticle(self.thing.title, f"{' '.join(self.sentences[:first])}\n{' '.join(self.sentences[first:])}")

    @cached_property
    def hops(self) -> Mapping[str, Hop]:
        """How each fact is found out, by relation; without those that are not stated, or that no keyword leads to."""
        found = {}
        for name, relation in relations(self.thing.kind).items():
            sentence = self.stated.get(name)
            if sentence is None:
                continue
            keyword = None if sentence in self.sentences[:SHOWN] else str(relation["keyword"])
            if keyword is None or (keyword and self.with_keyword(keyword)[0] == sentence):
                fact = say(self.thing.kind, name, called(self.thing), self.thing.facts[name])
                found[name] = Hop(self.thing.title, keyword, f"{fact}.", sentence)
        return found

    def with_keyword(self, keyword: str) -> list[str]:
        """Return the sentences that a look-up finds."""
        return [sentence for sentence in self.sentences if keyword.lower() in sentence.lower()]


def write_page(thing: Thing, rng: random.Random) -> Page:
    """Return the article of a thing, about ten sentences."""
    prose = read_words("made_articles.toml")[thing.kind]
    sentences: list[str] = []
    stated: dict[str, str] = {}
    more = list(prose["more"])
    rng.shuffle(more)
    kept = rng.randint(max(3, len(more) - 3), len(more))
    for states, *variants in list(prose["first"]) + more[:kept]:
        facts = states.split()
        if all(fact in thing.facts for fact in facts):
            sentence = correct(rng.choice(variants).format(**thing.facts | {"name": thing.name}))
            sentences.append(sentence)
            stated |= dict.fromkeys(facts, sentence)
    return Page(thing, tuple(sentences), stated)


def disambiguation(name: str, things: Sequence[Thing]) -> MadeArticle:
    """Return the page of a name that several things have."""
    words = {thing.title: str(thing.facts["profession"]) if thing.kind == "person" else thing.kind for thing in things}
    lines = [correct(f"{title}, a {word}") for title, word in sorted(words.items())]
    return MadeArticle(name, "\n".join([f"{name} may refer to:", *lines]))
