"""Names for a made-up world: pronounceable, alike within a country, each given once."""

import random
from collections.abc import Callable, Mapping
from typing import Any


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
        return self._new(
            lambda: (
                self._begin(sound) + self._one(sound["middle"])[: self._rng.choice((0, 2))] + self._one(sound["town"])
            )
        )

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
            adjective, noun, other = self._choose("adjective"), self._choose("noun"), self._choose("noun")
            forms = (
                f"The {adjective} {noun}",
                f"{adjective} {noun}s",
                f"The {noun} and the {other}",
                f"A {noun} in {place}",
                f"{noun}s of {place}",
                f"The {noun} at {place}",
                f"No {noun} for {place}",
            )
            return self._rng.choice(forms)

        return self._new(make)

    def band(self) -> str:
        """Return such as "The Copper Herons"."""
        return self._new(lambda: f"The {self._choose('adjective')} {self._choose('noun')}s")

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
