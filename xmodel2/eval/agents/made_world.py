"""The facts of a made-up world, before a word of them is written: things of fifteen kinds that belong together.

A director is born in a town on a river of a country, and is grown up when the film is made.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from xmodel2.eval.agents.made_names import Names

_NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
LAST_YEAR = 2020


class Small(int):
    """A number up to twelve, written as a word."""

    def __str__(self) -> str:
        return _NUMBERS[self]


@dataclass(eq=False)
class Thing:
    """Something that has an article. ``facts`` hold strings, numbers and other things."""

    kind: str
    name: str
    facts: dict[str, Any] = field(default_factory=dict)
    title: str = ""

    def __post_init__(self) -> None:
        self.title = self.title or self.name

    def __str__(self) -> str:
        return self.name


class Region:
    """Countries whose things have to do with each other, but with nothing elsewhere; about 65 for each of ``size``."""

    def __init__(
        self, rng: random.Random, names: Names, words: Mapping[str, Any], sounds: Sequence[Mapping[str, Any]], size: int
    ) -> None:
        self._rng, self._names, self._words, self._works = rng, names, words["words"], words["work"]
        self._decks: dict[str, list[Any]] = {}
        self.things: list[Thing] = []
        self._sounds: dict[Thing, Mapping[str, Any]] = {}
        self.countries = [self._country(sounds[i % len(sounds)]) for i in range(max(2, size))]
        self.rivers = [self._river(country) for country in self.countries for _ in range(3)]
        self.towns = [self._town(country) for country in self.countries for _ in range(6)]
        for country in self.countries:
            country.facts["capital"] = self._pick([t for t in self.towns if t.facts["country"] is country])
        self.people: dict[str, list[Thing]] = {}
        for profession, (first, last, count) in _PEOPLE.items():
            self.people[profession] = [self._person(profession, first, last) for _ in range(count * size)]
        self._companies = [self._company() for _ in range(4 * size)]
        self._make(size)
        self._share_names(3 * size)
        for work in [thing for thing in self.things if thing.kind in ("film", "book")]:
            maker = work.facts["director" if work.kind == "film" else "author"]
            maker.facts["known"] = work

    def _make(self, size: int) -> None:
        for make, count in (
            (self._book, 5), (self._film, 5), (self._museum, 2), (self._ship, 3), (self._dance, 2), (self._bridge, 2),
            (self._festival, 2), (self._plant, 2),
        ):  # fmt: skip
            for _ in range(count * size):
                make()
        bands = [self._band() for _ in range(3 * size)]
        for band in bands + bands[: size * 2]:
            self._album(band)

    def _country(self, sound: Mapping[str, Any]) -> Thing:
        name, people = self._names.country(sound)
        country = self._add("country", name, people=people, sea=self._draw("sea"), currency=self._draw("currency"),
            bird=self._draw("bird"), tree=self._draw("tree"), independent=self._rng.randrange(1790, 1930),
            area=self._rng.randrange(4_000, 90_000, 10), hill=f"Mount {self._names.short(sound)}")  # fmt: skip
        self._sounds[country] = sound
        return country

    def _river(self, country: Thing) -> Thing:
        sound = self._sounds[country]
        hills = self._draw("hills").format(self._names.short(sound))
        return self._add("river", self._names.short(sound), country=country, source=hills,
            length=self._rng.randrange(60, 700), fish=self._draw("fish"), tributary=self._names.short(sound),
            flood=self._rng.randrange(1700, 1960), legend=self._draw("legend"))  # fmt: skip

    def _town(self, country: Thing) -> Thing:
        rivers = [river for river in self.rivers if river.facts["country"] is country]
        return self._add("town", self._names.town(self._sounds[country]), country=country, river=self._pick(rivers),
            population=self._rng.randrange(2_000, 90_000), founded=self._rng.randrange(1080, 1690),
            industry=self._draw("industry"), station=self._rng.randrange(1848, 1925), landmark=self._draw("landmark"),
            market=self._draw("day"), dish=self._draw("dish"))  # fmt: skip

    def _person(self, profession: str, first: int, last: int) -> Thing:
        town, woman = self._pick(self.towns), self._rng.random() < 0.5
        country, born = town.facts["country"], self._rng.randrange(first, last)
        who = dict(zip(("He", "he", "His", "his", "him"), ("She", "she", "Her", "her", "her") if woman
                       else ("He", "he", "His", "his", "him"), strict=True))  # fmt: skip
        work = self._works.get(profession, self._works["other"])
        dead = born < 1935
        facts = dict(who, profession=profession, born=born, birthplace=town, country=country,
            nation=country.facts["people"], was="was" if dead else "is", father=self._draw("father"),
            school=self._pick([other for other in self.towns if other is not town]), job=self._draw("job"),
            instrument=self._draw("instrument"), hobby=self._draw("hobby"), siblings=self._small(2, 6),
            work=self._pick(work).format(**who))  # fmt: skip
        if dead:
            facts["died"] = min(born + self._rng.randrange(64, 92), LAST_YEAR)
        if born + 40 < LAST_YEAR:
            prize_year = born + self._rng.randrange(38, 62)
            facts |= {"prize": self._draw("prize"), "prizeyear": min(prize_year, LAST_YEAR - 1)}
        return self._add("person", self._names.person(self._sounds[country], woman), **facts)

    def _company(self) -> Thing:
        product, last, profession = self._draw("product")
        founder = self._person(profession, 1830, 1930)
        self.people.setdefault("founder", []).append(founder)
        surname = founder.name.split()[-1]
        year = founder.facts["born"] + self._rng.randrange(22, 50)
        return self._add("company", f"{surname} {last}", product=product, founder=founder, year=year,
            town=self._pick(self.towns), employees=self._rng.randrange(30, 900), logo=self._draw("animal"),
            first=self._draw("building"), fire=year + self._rng.randrange(3, 30), hall=self._draw("hall"),
            export=self._rng.randrange(10, 90))  # fmt: skip

    def _book(self) -> Thing:
        author, year = self._maker("novelist", 24, 60)
        town = self._pick(self.towns)
        publishers = [c for c in self._companies if c.facts["product"] == "books" and c.facts["year"] < year]
        return self._add("book", self._names.title(town.name), author=author, year=year, genre=self._draw("genre_book"),
            plot=self._draw("plot_book"), publisher=self._pick(publishers), setting=self._pick(self.towns),
            pages=self._rng.randrange(90, 700), languages=self._rng.randrange(13, 40), cover=self._draw("animal"),
            weeks=self._rng.randrange(13, 120))  # fmt: skip

    def _film(self) -> Thing:
        director, year = self._maker("film director", 26, 58)
        return self._add("film", self._names.title(self._pick(self.towns).name), director=director, year=year,
            genre=self._draw("genre_film"), plot=self._draw("plot_film"),
            lead=self._grown("actor", year), music=self._grown("composer", year), place=self._pick(self.towns),
            length=self._rng.randrange(62, 190), copies=self._rng.randrange(14, 90),
            colour=self._draw("colour"))  # fmt: skip

    def _band(self) -> Thing:
        singer, year = self._maker("singer", 17, 30)
        town = self._pick(self.towns)
        labels = [c for c in self._companies if c.facts["product"] == "records" and c.facts["year"] < year]
        end = year + self._rng.randrange(12, 40)
        return self._add("band", self._names.band(), were="were", town=town, country=town.facts["country"], year=year,
            nation=town.facts["country"].facts["people"], genre=self._draw("genre_band"), singer=singer,
            members=self._small(3, 9), label=self._pick(labels), named=self._draw("named"), venue=self._draw("venue"),
            end=end if end < LAST_YEAR else None, van=self._draw("colour"))  # fmt: skip

    def _album(self, band: Thing) -> Thing:
        year = band.facts["year"] + self._rng.randrange(1, 12)
        return self._add("album", self._names.title(self._pick(self.towns).name), band=band, year=year,
            tracks=self._small(6, 12), place=self._pick(self.towns), producer=self._grown("composer", year),
            length=self._rng.randrange(28, 78), cover=self._draw("cover_album"), guest=self._draw("instrument"),
            days=self._rng.randrange(13, 90))  # fmt: skip

    def _museum(self) -> Thing:
        town = self._pick([town for town in self.towns if "museum" not in town.facts])
        architect, year = self._maker("architect", 28, 60)
        word = self._draw("museum")
        name = f"{self._names.surname(self._sounds[town.facts['country']])} {word} Museum"
        museum = self._add("museum", name, town=town, year=year, architect=architect,
            collection=self._words["collection"][self._words["museum"].index(word)], rooms=self._small(3, 12),
            closed=self._draw("day"), visitors=self._rng.randrange(2_000, 80_000, 100), oldest=self._draw("oldest"),
            garden=self._draw("garden"))  # fmt: skip
        town.facts["museum"] = museum
        return museum

    def _ship(self) -> Thing:
        captain, year = self._maker("captain", 30, 55)
        town = self._pick(self.towns)
        return self._add("ship", self._names.short(self._sounds[town.facts["country"]]), type=self._draw("ship"),
            year=year, town=town, length=self._rng.randrange(28, 110), captain=captain, crew=self._rng.randrange(14, 90),
            cargo=self._draw("cargo"), figure=self._draw("figure"), fate=year + self._rng.randrange(15, 60),
            paint=self._draw("colour"))  # fmt: skip

    def _dance(self) -> Thing:
        town = self._pick(self.towns)
        return self._add("dance", self._names.short(self._sounds[town.facts["country"]]), town=town,
            beats=self._small(3, 9), occasion=self._draw("occasion"), scholar=self._pick(self.people["historian"]),
            couples=self._small(2, 12), instrument=self._draw("instrument"), hat=self._draw("colour"),
            minutes=self._small(2, 12))  # fmt: skip

    def _bridge(self) -> Thing:
        engineer, year = self._maker("engineer", 28, 60)
        town = self._pick([town for town in self.towns if "bridge" not in town.facts])
        town.facts["bridge"] = self._add(
            "bridge", f"{self._names.surname(self._sounds[town.facts['country']])} Bridge", river=town.facts["river"],
            town=town, material=self._draw("material"), year=year, engineer=engineer, arches=self._small(2, 12),
            length=self._rng.randrange(40, 420), statue=self._draw("animal"),
            toll=year + self._rng.randrange(10, 60))  # fmt: skip
        return town.facts["bridge"]

    def _festival(self) -> Thing:
        town = self._pick(self.towns)
        founder = self._pick(self.people["singer"] + self.people["novelist"])
        name = f"{self._names.short(self._sounds[town.facts['country']])} {self._draw('festival')}"
        return self._add("festival", name, town=town, month=self._draw("month"), subject=self._draw("subject"),
            year=min(founder.facts["born"] + self._rng.randrange(25, 55), LAST_YEAR), founder=founder,
            days=self._small(2, 10), visitors=self._rng.randrange(1_500, 60_000, 100), opening=self._draw("opening"),
            prize=self._draw("reward"))  # fmt: skip

    def _plant(self) -> Thing:
        botanist, year = self._maker("botanist", 25, 60)
        country = self._pick(self.countries)
        return self._add("plant", f"{self._names.short(self._sounds[country])} {self._draw('plant')}", country=country,
            colour=self._draw("colour"), botanist=botanist, year=year, height=self._rng.randrange(13, 190),
            use=self._draw("use"), month=self._draw("month"), smell=self._draw("smell"),
            soil=self._draw("soil"))  # fmt: skip

    def _share_names(self, count: int) -> None:
        """Let things of different kinds have the same name, so that it does not say which article is meant."""
        for _ in range(count):
            name = self._names.short(self._sounds[self._pick(self.countries)])
            free: dict[str, list[Thing]] = {kind: [] for kind in _SHARING}
            for thing in self.things:
                if thing.kind in free and thing.title == thing.name:
                    free[thing.kind].append(thing)
            kinds = [kind for kind in free if free[kind]]
            for kind in self._rng.sample(kinds, min(len(kinds), self._rng.choice((2, 3)))):
                thing = self._pick(free[kind])
                thing.name, thing.title = name, f"{name} ({kind})"
                if kind == "band":
                    thing.facts["were"] = "was"
        for _ in range(count // 4):
            people = [p for role in ("actor", "architect", "botanist") for p in self.people[role] if p.title == p.name]
            one, other = self._rng.sample(people, 2)
            if one.facts["profession"] != other.facts["profession"] and one.facts["He"] == other.facts["He"]:
                other.name = one.name
                for person in (one, other):
                    person.title = f"{person.name} ({person.facts['profession']})"

    def _maker(self, profession: str, youngest: int, oldest: int) -> tuple[Thing, int]:
        """Return one of a profession, each in turn, and a year in which they were of an age."""
        person = self._deal(profession, self.people[profession])
        last = min(oldest, person.facts.get("died", LAST_YEAR) - person.facts["born"])
        return person, person.facts["born"] + self._rng.randrange(youngest, max(youngest + 1, last))

    def _grown(self, profession: str, year: int) -> Thing | None:
        grown = [p for p in self.people[profession] if 20 <= year - p.facts["born"] <= 64]
        return self._pick(grown)

    def _add(self, kind: str, name: str, **facts: Any) -> Thing:
        thing = Thing(kind, name, {key: value for key, value in facts.items() if value is not None})
        self.things.append(thing)
        return thing

    def _pick(self, things: Sequence[Any]) -> Any:
        return self._rng.choice(things) if things else None

    def _small(self, first: int, last: int) -> Small:
        return Small(self._rng.randint(first, last))

    def _draw(self, word: str) -> Any:
        """Return the next of a shuffled list, so that all are used about as often."""
        return self._deal(word, self._words[word])

    def _deal(self, word: str, values: Sequence[Any]) -> Any:
        deck = self._decks.setdefault(word, [])
        if not deck:
            deck.extend(self._rng.sample(values, len(values)))
        return deck.pop()


_PEOPLE = {
    "film director": (1895, 1975, 2),
    "actor": (1895, 1975, 3),
    "novelist": (1840, 1970, 2),
    "singer": (1935, 1985, 3),
    "composer": (1895, 1975, 2),
    "architect": (1840, 1950, 1),
    "captain": (1830, 1890, 1),
    "historian": (1830, 1930, 1),
    "engineer": (1810, 1910, 1),
    "botanist": (1780, 1920, 1),
}
"""By profession: years of birth, and how many a country has."""

_SHARING = ("film", "book", "album", "ship", "band", "river", "dance")
"""Kinds of things that may have the same name."""
