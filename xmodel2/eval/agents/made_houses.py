"""Households made by us for ALFWorld's engine, where the released games are not: the same six kinds of tasks.

    write_houses(DIR, seed=0, each=4)   ->   DIR/valid_unseen/pick_and_place_simple-Mug-None-Desk-1000/trial_made_0/game.tw-pddl

Domain, grammar, goals, wording of the tasks, and what can be put where are read from the installed alfworld; which room has
what, and where it lies, is drawn. Each can be solved: what it asks for lies where it can be taken, and fits where it must go.
"""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from xmodel2.eval.agents.alfworld_engine import require
from xmodel2.eval.agents.alfworld_games import GAME_FILE, KINDS, MADE, TASK_FILE, UNSEEN
from xmodel2.eval.agents.made_rooms import ROOMS, ROOMS_OF, Room

_DONE_TO = {"clean": "Cleanable", "heat": "Heatable", "cool": "Coolable"}
"""What an object of a task must be."""
_DONE_IN = {"clean": "SinkBasin", "heat": "Microwave", "cool": "Fridge"}
"""What the middle step of a task is done with."""
_OBJECTS = (18, 30)
"""Fewest and most in a room."""
_FEW_OBJECTS = (4, 8)
_FEW_PLACES = 2
"""Of a kind, in a small room."""
_FIRST_SCENE = 1000
"""ALFRED's own rooms end at 430."""


@dataclass
class _House:
    """One room with what is in it."""

    receptacles: list[str]
    """Kinds, one for each."""
    contents: list[tuple[str, int]] = field(default_factory=list)
    """Kind of object, and the number of the receptacle it is in."""


def write_houses(folder: Path, seed: int, each: int, split: str = UNSEEN, small: bool = False) -> None:
    """Write ``each`` games of every kind below ``folder/split``, as the release has them; equal seeds, equal games.

    Small ones have few things and at most two places of a kind, and start several times faster.
    """
    scene = _FIRST_SCENE
    for task_type, kind in KINDS.items():
        for number in range(each):
            rng = random.Random(f"{seed} {split} {kind} {number}")
            house, target, place = _furnish(ROOMS[ROOMS_OF[kind][number % len(ROOMS_OF[kind])]], kind, rng, small)
            trial = folder / split / f"{task_type}-{target}-None-{place}-{scene}" / f"{MADE}{seed}"
            trial.mkdir(parents=True)
            game = _game(house, task_type, target, place, rng)
            (trial / GAME_FILE).write_text(json.dumps(game), encoding="utf-8")
            (trial / TASK_FILE).write_text(json.dumps({"task_type": task_type}), encoding="utf-8")
            scene += 1


def _furnish(room: Room, kind: str, rng: random.Random, small: bool) -> tuple[_House, str, str]:
    """Return a household, the kind of object that is asked for, and the kind of receptacle or lamp it must go to."""
    constants = require("alfworld.gen.constants")
    fits: dict[str, set[str]] = constants.VAL_RECEPTACLE_OBJECTS
    most = _FEW_PLACES if small else max(high for _, high in room.receptacles.values())
    numbers = {name: min(rng.randint(*of), most) for name, of in room.receptacles.items()}
    house = _House([name for name, number in numbers.items() for _ in range(number)])
    present = sorted(set(house.receptacles))

    def put(thing: str, never: str = "") -> None:
        free = [i for i, name in enumerate(house.receptacles) if thing in fits[name] and name != never]
        if free:
            house.contents.append((thing, rng.choice(free)))

    allowed = constants.VAL_ACTION_OBJECTS[_DONE_TO[kind]] if kind in _DONE_TO else set(room.objects)
    targets = [thing for thing in room.objects if thing in allowed and sum(thing in fits[name] for name in present) > 1]
    target = rng.choice(targets)
    place = room.lamp
    if kind != "examine":
        place = rng.choice([name for name in present if target in fits[name] and name != _DONE_IN.get(kind)])
    for _ in range(3 if kind == "puttwo" else rng.randint(1, 2)):
        put(target, never=place)
    for _ in range(rng.randint(*(_FEW_OBJECTS if small else _OBJECTS))):
        put(rng.choice([thing for thing in room.objects if thing != target]))
    if room.lamp:
        open_ones = [i for i, name in enumerate(house.receptacles) if name in room.under_lamp]
        house.contents.append((room.lamp, rng.choice(open_ones)))
    return house, target, place


def _game(house: _House, task_type: str, target: str, place: str, rng: random.Random) -> dict[str, object]:
    """Return the content of a game file."""
    info, goals = require("alfworld.info"), require("alfworld.gen.goal_library")
    goal = goals.gdict[task_type]
    names = {"obj": target, "recep": place, "toggle": place, "mrecep": ""}
    task = rng.choice(goal["templates"]).format(**{key: name.lower() for key, name in names.items()})
    grammar = Path(info.ALFRED_TWL2_PATH).read_text(encoding="utf-8")
    return {
        "pddl_domain": Path(info.ALFRED_PDDL_PATH).read_text(encoding="utf-8"),
        "grammar": grammar.replace("UNKNOWN GOAL", task),
        "pddl_problem": _problem(house, goal["pddl"].format(**names).replace("#", "-")),
        "solvable": True,
    }


def _problem(house: _House, goal: str) -> str:
    """Return a household as PDDL; ``goal`` closes the problem, as in alfworld's library of goals."""
    objects = [(f"{kind}_bar_{number:02}", kind, place) for number, (kind, place) in enumerate(house.contents)]
    receptacles = [_receptacle(kind, number) for number, kind in enumerate(house.receptacles)]
    kinds, places = sorted({kind for _, kind, _ in objects}), sorted(set(house.receptacles))
    declared = [
        "agent1 - agent",
        *(f"{kind}Type - otype" for kind in kinds),
        *(f"{kind}Type - rtype" for kind in places),
        *(f"{name} - object" for name, _, _ in objects),
        *(f"{name} - receptacle" for name in receptacles),
        *(f"loc_bar_{number:02} - location" for number in range(len(receptacles) + 1)),
    ]
    facts = [
        f"atLocation agent1 loc_bar_{len(receptacles):02}",
        *_facts_of_receptacles(house, receptacles),
        *_facts_of_objects(objects, receptacles),
        *(f"canContain {place}Type {kind}Type" for place in places for kind in kinds if _fits(kind, place)),
    ]
    lines = ["(define (problem made)", "(:domain alfred)", "(:objects", *declared, ")", "(:init"]
    return "\n".join([*lines, *(f"({fact})" for fact in facts), ")", goal])


def _fits(kind: str, place: str) -> bool:
    return kind in require("alfworld.gen.constants").VAL_RECEPTACLE_OBJECTS[place]


def _receptacle(kind: str, number: int) -> str:
    """Basins are parts of a sink or a bathtub: alfworld adds the "basin" to the name itself."""
    whole = kind.removesuffix("Basin")
    return f"{kind}_bar_{number:02}" if whole == kind else f"{whole}_bar_{number:02}_bar_{kind}"


def _facts_of_receptacles(house: _House, names: list[str]) -> Iterator[str]:
    openable = require("alfworld.gen.constants").OPENABLE_CLASS_LIST
    for number, (kind, name) in enumerate(zip(house.receptacles, names, strict=True)):
        yield f"receptacleType {name} {kind}Type"
        yield f"receptacleAtLocation {name} loc_bar_{number:02}"
        if kind in openable:
            yield f"openable {name}"


def _facts_of_objects(objects: list[tuple[str, str, int]], receptacles: list[str]) -> Iterator[str]:
    constants = require("alfworld.gen.constants")
    can: dict[str, set[str]] = constants.VAL_ACTION_OBJECTS
    for name, kind, place in objects:
        yield f"objectType {name} {kind}Type"
        yield f"inReceptacle {name} {receptacles[place]}"
        yield f"objectAtLocation {name} loc_bar_{place:02}"
        yield from (f"{action.lower()} {name}" for action in sorted(can) if kind in can[action])
        if kind not in can["Toggleable"]:
            yield f"pickupable {name}"
        if kind in constants.MOVABLE_RECEPTACLES:
            yield f"isReceptacleObject {name}"
