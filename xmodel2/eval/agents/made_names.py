"""Names for a made-up world: pronounceable, alike within a country, each given once."""

import random
import re
from collections.abc import Callable, Mapping
from typing import Any


def correct(text: str) -> str:
    """Return a text with "an" where it should be.

    >>> correct("a owl and a heron in a 1834 novel")
    'an owl and a heron in an 1834 novel'
    """
    return re.sub(r"\b([Aa]) (?=[aeiouAEIOU]|8|11\b|18\d)(?!uni|one\b|eu|Eu|Uni)", r"\1n ", text)


def plural(noun: str) -> str:
    """Return more than one of a noun.

    >>> [plural(noun) for noun in ("Ferry", "Compass", "Bell")]
    ['Ferries', 'Compasses', 'Bells']
    """
    return f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}es" if noun.endswith("s") else f"{noun}s"


class Names:
    """Gives every name only once; ``words`` are adjectives and nouns for titles."""

    def __init__(self, rng: random.Random, words: Mapping[str, Any]) -> None:
        self._rng = rng
        self._words = words
        self._given: set[str] = set()

    def country(self, sound: Mapping[str, Any]) -> tuple[str, str]:
        """Return the name of a country and what its people and things are called."""
        index = self._rng.randrange(len(sound["country"].split()))
        name = self._new(lambda: self._begin(sound) + sound["country"].split()[index])
        return name, name.removesuffix(sound["country"].split()[index]) + sound["people"].split()[index]

    def town(self, sound: Mapping[str, Any]) -> str:
        """Return such as "Halvestad"."""
        return self._new(lambda: self._begin(sound) + self._one(sound["middle"]) + self._one(sound["town"]))

    def short(self, sound: Mapping[str, Any]) -> str:
        """Return such as "Halve", for a river or a title."""
        return self._new(lambda: self._begin(sound) + self._one(sound["middle"]))

    def surname(self, sound: Mapping[str, Any]) -> str:
        """Return such as "Halvesen"."""
        return self._new(lambda: self._begin(sound) + self._one(sound["middle"]) + self._one(sound["surname"]))

    def person(self, sound: Mapping[str, Any], woman: bool) -> str:
        """Return a first name and a surname."""
        return f"{self._one(sound['woman' if woman else 'man'])} {self.surname(sound)}"

    def title(self, place: str) -> str:
        """Return the title of a book, a film or an album; ``place`` may be in it."""

        def make() -> str:
            adjective = self._choose("adjective")
            noun, other = self._rng.sample(self._words["noun"], 2)
            forms = (
                f"The {adjective} {noun}",
                f"The {adjective} {plural(noun)}",
                f"{adjective} {plural(noun)}",
                f"The {noun} and the {other}",
                f"Beyond the {noun}",
                f"A {noun} Without a {other}",
                f"Goodbye to the {noun}",
                f"The Year of the {noun}",
                f"My {adjective} {noun}",
                f"A {noun} in {place}",
                f"The {plural(noun)} of {place}",
            )
            return correct(self._rng.choice(forms))

        return self._new(make)

    def band(self) -> str:
        """Return such as "The Copper Herons"."""
        return self._new(lambda: f"The {self._choose('adjective')} {plural(self._choose('noun'))}")

    def _new(self, make: Callable[[], str]) -> str:
        while (name := make()) in self._given:
            pass
        self._given.add(name)
        return name

    def _one(self, words: str) -> str:
        return self._rng.choice(words.split())

    def _begin(self, sound: Mapping[str, Any]) -> str:
        return self._one(sound["begin"])

    def _choose(self, word: str) -> str:
        return str(self._rng.choice(self._words[word]))
