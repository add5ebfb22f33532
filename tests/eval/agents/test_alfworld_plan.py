"""The oracle's plan on what the release has and we do not make: shared places, things in two, things there already."""

from pathlib import Path

import pytest

from xmodel2.eval.agents.alfworld_games import Game
from xmodel2.eval.agents.alfworld_plan import plan


def game(kind, target="mug", place="desk"):
    return Game("id", kind, target, place, "", Path("game.tw-pddl"), {})


def facts(*more):
    told = [
        "atlocation agent1 loc 0",
        "receptacleatlocation desk 1:loc 1",
        "receptacleatlocation drawer 1:loc 2",
        "receptacleatlocation drawer 2:loc 1",
        "receptacleatlocation fridge 1:loc 3",
        "receptacletype desk 1:desktype",
        "receptacletype drawer 1:drawertype",
        "receptacletype drawer 2:drawertype",
        "receptacletype fridge 1:fridgetype",
        "openable drawer 1",
        "openable drawer 2",
        "openable fridge 1",
        *more,
    ]
    found = []
    for line in told:
        name, _, rest = line.partition(" ")
        things = rest.split(":") if ":" in rest or name != "atlocation" else ["agent1", "loc 0"]
        found.append((name, *things))
    return found


def commands(*arguments):
    return [move.action for move in plan(*arguments)]


def test_the_places_before_are_looked_at_first():
    told = facts("objecttype mug 1:mugtype", "inreceptacle mug 1:drawer 2")
    assert commands(told, game("put")) == [
        *("go to drawer 1", "open drawer 1", "go to drawer 2", "open drawer 2", "take mug 1 from drawer 2"),
        "put mug 1 in/on desk 1",  # the desk stands where the drawer is: to go there would do nothing
    ]


def test_a_thing_in_two_places_is_taken_from_the_open_one():
    told = facts("objecttype mug 1:mugtype", "inreceptacle mug 1:drawer 1", "inreceptacle mug 1:desk 1")
    assert commands(told, game("cool", place="fridge")) == [
        *("go to desk 1", "take mug 1 from desk 1", "go to fridge 1", "cool mug 1 with fridge 1", "open fridge 1"),
        "put mug 1 in/on fridge 1",
    ]


def test_of_two_that_are_asked_for_one_may_be_there_already():
    told = facts(
        *("objecttype mug 1:mugtype", "objecttype mug 2:mugtype", "objecttype mug 3:mugtype"),
        *("inreceptacle mug 1:desk 1", "inreceptacle mug 2:drawer 1", "inreceptacle mug 3:drawer 1"),
    )
    assert commands(told, game("puttwo")) == [
        *("go to drawer 1", "open drawer 1", "take mug 2 from drawer 1", "go to desk 1", "put mug 2 in/on desk 1")
    ]


def test_a_thing_to_be_cleaned_that_is_there_is_brought_back():
    told = facts("objecttype mug 1:mugtype", "inreceptacle mug 1:desk 1")
    assert commands(told, game("cool")) == [
        *("go to desk 1", "take mug 1 from desk 1", "go to fridge 1", "cool mug 1 with fridge 1"),
        *("go to desk 1", "put mug 1 in/on desk 1"),
    ]


def test_the_lamp_may_be_where_one_stands():
    told = facts(
        *("objecttype mug 1:mugtype", "objecttype desklamp 1:desklamptype", "toggleable desklamp 1"),
        *("inreceptacle mug 1:desk 1", "inreceptacle desklamp 1:desk 1"),
    )
    assert commands(told, game("examine", place="desklamp")) == [
        *("go to desk 1", "take mug 1 from desk 1", "use desklamp 1")
    ]


@pytest.mark.parametrize("kind", ["put", "cool", "puttwo"])
def test_every_plan_says_what_it_is_about(kind):
    told = facts(
        *("objecttype apple 1:appletype", "objecttype apple 2:appletype"),
        *("inreceptacle apple 1:drawer 1", "inreceptacle apple 2:drawer 2"),
    )
    thoughts = [move.thought for move in plan(told, game(kind, target="apple")) if move.thought]
    assert thoughts[0].startswith("I must find an apple, take it")
    assert any(thought.startswith("Now I put the apple in or on desk 1") for thought in thoughts)
