"""What plays ALFWorld without a model: a plan from the hidden state, chance, and a search by rule."""

import random
import re
from collections.abc import Generator
from typing import Protocol

from xmodel2.eval.agents.alfworld_engine import Fact
from xmodel2.eval.agents.alfworld_games import Game
from xmodel2.eval.agents.alfworld_plan import plan
from xmodel2.eval.agents.dialogue import Move
from xmodel2.eval.agents.planned import Plan, Planned

_WAIT = "look"
_TOOL = {
    **{"clean": ("clean", "sinkbasin"), "heat": ("heat", "microwave"), "cool": ("cool", "fridge")},
    "hot": ("heat", "microwave"),
}
_THING = re.compile(r"\ban? ([a-z]+ \d+)")
_TASKS = (
    re.compile(r"(?P<done>clean|heat|cool) some (?P<target>\w+) and put it in (?P<place>\w+)"),
    re.compile(r"(?:look at|examine the) (?P<target>\w+) (?:under|with) the (?P<lamp>\w+)"),
    re.compile(r"(?:put|find) (?P<two>two) (?P<target>\w+) (?:and put them )?in (?P<place>\w+)"),
    re.compile(r"put (?:a|some) (?:(?P<done>clean|hot|cool) )?(?P<target>\w+) (?:in|on) (?P<place>\w+)"),
)
"""The released tasks' wordings."""


class OpenHousehold(Protocol):
    """What the players have of an environment."""

    game: Game

    def commands(self) -> list[str]:
        """Return what can be done now."""

    def facts(self) -> set[Fact]:
        """Return all that is the case."""


def oracle(environment: OpenHousehold, chance: random.Random) -> Planned:
    """Return who knows where everything is."""

    def play(observation: str) -> Plan:
        try:
            moves = plan(environment.facts(), environment.game)
        except (LookupError, ValueError):  # a damaged game may lack what its task is about
            moves = []
        while moves:
            yield moves.pop(0)
        yield from _waiting()

    return Planned(play)


def random_walker(environment: OpenHousehold, chance: random.Random) -> Planned:
    """Return who does anything that can be done."""

    def play(observation: str) -> Plan:
        while True:
            yield Move("", chance.choice(environment.commands() or [_WAIT]))

    return Planned(play)


def scripted(environment: OpenHousehold, chance: random.Random) -> Planned:
    """Return who looks at all that stands open for what the task names, and does with it what the task says.

    It opens nothing to search.
    """

    def play(observation: str) -> Plan:
        commands = _script(observation)
        command = next(commands, None)
        while command is not None:
            observation = yield Move("", command)
            try:
                command = commands.send(observation)
            except StopIteration:
                command = None
        yield from _waiting()

    return Planned(play)


def _waiting() -> Plan:
    while True:
        yield Move("", _WAIT)


def _script(first: str) -> Generator[str, str, None]:
    """Yield commands, and get what is seen after each."""
    room, _, task = first.partition("Your task is to: ")
    wish = next((found for wording in _TASKS if (found := wording.search(task))), None)
    if wish is None:
        return
    told, places = wish.groupdict(), _THING.findall(room)
    goals = [place for place in places if place.split()[0] == told.get("place")]
    search = [place for place in places if place not in goals]
    lamps: dict[str, str] = {}
    for _ in range(2 if told.get("two") else 1):
        thing = yield from _take(told["target"], search, told.get("lamp"), lamps)
        if thing is None:
            return
        if lamp := told.get("lamp"):
            while not lamps and search:
                yield from _see(search.pop(0), lamp, lamps)
            for name, place in lamps.items():
                yield f"go to {place}"
                yield f"use {name}"
            return
        if told.get("done"):
            verb, tool = _TOOL[told["done"]]
            yield f"go to {tool} 1"
            yield f"{verb} {thing} with {tool} 1"
        goal = goals[-1]
        if "closed" in (yield f"go to {goal}"):
            yield f"open {goal}"
        yield f"put {thing} in/on {goal}"


def _take(target: str, search: list[str], lamp: str | None, lamps: dict[str, str]) -> Generator[str, str, str | None]:
    """Look at one place after the other and return what was taken; a place that had one may have another."""
    while search:
        seen = yield from _see(search[0], lamp, lamps)
        if things := [thing for thing in seen if thing.split()[0] == target]:
            yield f"take {things[0]} from {search[0]}"
            return things[0]
        search.pop(0)
    return None


def _see(place: str, lamp: str | None, lamps: dict[str, str]) -> Generator[str, str, list[str]]:
    """Return what is in or on a place, and keep in mind where a lamp is."""
    seen = yield f"go to {place}"
    things = _THING.findall(seen.partition("you see")[2])
    lamps |= {thing: place for thing in things if thing.split()[0] == lamp}
    return things
