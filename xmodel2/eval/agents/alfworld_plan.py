"""How a household task is done by one who knows where everything is, told as an example should tell it."""

from collections.abc import Iterable
from typing import Any

from xmodel2.eval.agents.alfworld_engine import Fact
from xmodel2.eval.agents.alfworld_games import Game
from xmodel2.eval.agents.dialogue import Move

_TOOL = {"clean": "sinkbasin", "heat": "microwave", "cool": "fridge"}
_TRIED = 2
"""Places that are looked at before the right one: an example shows how to search."""


def plan(facts: Iterable[Fact], game: Game) -> list[Move]:
    """Return thoughts and commands that solve a game from its start."""
    moves = _Moves(_Facts(facts))
    if game.kind == "examine":
        _examine(moves, game)
    else:
        _bring(moves, game)
    return moves.moves


class _Facts:
    """What is the case at the start, by thing and place."""

    def __init__(self, facts: Iterable[Fact]) -> None:
        of: dict[str, list[Any]] = {}
        for name, *things in sorted(facts):
            of.setdefault(name, []).append(tuple(things))
        self.spot: dict[str, str] = dict(of["receptacleatlocation"])
        self.start: str = of["atlocation"][0][1]
        self.closed = {place for (place,) in of.get("openable", [])} - {place for (place,) in of.get("opened", [])}
        self._kind = {thing: kind for name in ("objecttype", "receptacletype") for thing, kind in of[name]}
        self._inside: dict[str, list[str]] = {}
        for thing, place in of["inreceptacle"]:
            if place in self.spot:
                self._inside.setdefault(thing, []).append(place)

    def places(self, kind: str) -> list[str]:
        """Return the receptacles of a kind."""
        return [place for place in self.spot if self._kind[place] == f"{kind}type"]

    def things(self, kind: str) -> list[str]:
        """Return the objects of a kind that lie somewhere."""
        return [thing for thing in self._inside if self._kind.get(thing) == f"{kind}type"]

    def where(self, thing: str) -> str:
        """Return the receptacle of an object, an open one if it is in two (the release has such)."""
        return min(self._inside[thing], key=lambda place: place in self.closed)

    def tried(self, thing: str) -> list[str]:
        """Return the receptacles before that of an object which one may look at first: they have no other of its kind."""
        kind, number = self.where(thing).rsplit(" ", 1)
        before = [f"{kind} {n}" for n in range(max(1, int(number) - _TRIED), int(number))]
        full = {place for other in self.things(self._kind[thing].removesuffix("type")) for place in self._inside[other]}
        return [place for place in before if place in self.spot and place not in full]


class _Moves:
    """Moves as they are made."""

    def __init__(self, facts: _Facts) -> None:
        self.facts = facts
        self.moves: list[Move] = []
        self._here, self._closed, self._thought = facts.start, set(facts.closed), ""

    def think(self, thought: str) -> None:
        """Say something before the next command."""
        self._thought = f"{self._thought} {thought}".strip()

    def do(self, command: str) -> None:
        """Do a command."""
        self.moves.append(Move(self._thought, command))
        self._thought = ""

    def reach(self, place: str, inside: bool = True) -> None:
        """Go to a receptacle, unless it is where one stands, and open it."""
        if self.facts.spot[place] != self._here:
            self.do(f"go to {place}")
            self._here = self.facts.spot[place]
        if inside and place in self._closed:
            self.do(f"open {place}")
            self._closed.remove(place)

    def find(self, thing: str, kind: str) -> None:
        """Search for an object."""
        place = self.facts.where(thing)
        self.think(f"{_a(kind).capitalize()} may be in or on {_a(place.rsplit(' ', 1)[0])}, so I look there.")
        for other in [*self.facts.tried(thing), place]:
            self.reach(other)

    def take(self, thing: str, kind: str) -> None:
        """Find and take an object."""
        self.find(thing, kind)
        self.think(f"Here is {thing}. I take it.")
        self.do(f"take {thing} from {self.facts.where(thing)}")


def _examine(moves: _Moves, game: Game) -> None:
    target, lamp = moves.facts.things(game.target)[0], moves.facts.things(game.place)[0]
    moves.think(f"I must find {_a(game.target)}, take it, and then find the {game.place} and turn it on.")
    moves.take(target, game.target)
    moves.think(f"I have the {game.target}. Now I need the {game.place}.")
    moves.find(lamp, game.place)
    moves.think(f"Here is {lamp}. I turn it on.")
    moves.do(f"use {lamp}")


def _bring(moves: _Moves, game: Game) -> None:
    facts = moves.facts
    places, things = facts.places(game.place), facts.things(game.target)
    goal = max(places, key=lambda place: sum(facts.where(thing) == place for thing in things))
    things.sort(key=lambda thing: facts.where(thing) in places)
    wanted = 1
    if game.kind == "puttwo":
        wanted = 2 - sum(facts.where(thing) == goal for thing in things)
        things = [thing for thing in things if facts.where(thing) != goal]
    tool = _TOOL.get(game.kind)
    steps = f"take it, {game.kind} it with the {tool}," if tool else "take it"
    moves.think(f"I must find {_a(game.target)}, {steps} and put it in or on {_a(game.place)}.")
    if game.kind == "puttwo":
        moves.think("Then I must do the same with a second one.")
    for number, thing in enumerate(things[:wanted]):
        if number:
            moves.think(f"The first {game.target} is there. Now I need another one.")
        moves.take(thing, game.target)
        if tool:
            moves.think(f"I have the {game.target}. Now I {game.kind} it with the {tool}.")
            moves.reach(facts.places(tool)[0], inside=False)
            moves.do(f"{game.kind} {thing} with {facts.places(tool)[0]}")
        moves.think(f"Now I put the {game.target} in or on {goal}.")
        moves.reach(goal)
        moves.do(f"put {thing} in/on {goal}")


def _a(kind: str) -> str:
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"
