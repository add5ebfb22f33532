"""Damaged and hostile games of ALFWorld: each is named, and none ends the process or runs as code."""

import random

import pytest

from tests.eval.agents.few_households import changed, few_games, play
from xmodel2.errors import XmodelError
from xmodel2.eval.agents.alfworld import AlfworldEnvironment
from xmodel2.eval.agents.alfworld_games import Game
from xmodel2.eval.agents.alfworld_players import oracle


@pytest.fixture(scope="module")
def games(tmp_path_factory) -> dict[str, Game]:
    return few_games(tmp_path_factory.mktemp("alfworld"))


def test_a_game_that_the_engine_cannot_play_is_named(games):
    with pytest.raises(XmodelError, match=r"game\.tw-pddl: the engine can't play it .*fetch it again"):
        changed(games["put"], problem="(define (problem made) (:domain alfred) (:objects").reset()
    assert AlfworldEnvironment(games["put"]).reset()


@pytest.mark.parametrize(
    ("part", "text", "harm", "complaint"),
    [
        ("problem", "alfred)", "alfred\0)", "."),
        ("problem", "agent1", "agent1\0", "which the planner can't read"),
        ("problem", "agent1", "\x1bagent1", "which the planner can't read"),
        ("problem", "agent1", "a" * 1100, "which the planner can't read"),
        ("problem", "agent1", "\ud800", "."),
        ("problem", "(:init", "(" * 100_000, "recursion"),
        ("grammar", '"task": [', '"task": ' + "[" * 100_000, "recursion"),
        ("grammar", '"intro"', '"no intro"', "intro"),
        ("domain", "(:action look", "(:action gaze", "gaze"),
    ],
)
def test_damage_does_not_end_the_process(games, part, text, harm, complaint):
    """The planner is C++, and would."""
    assert text in games["put"].content[part]
    damaged = changed(games["put"], **{part: games["put"].content[part].replace(text, harm)})
    with pytest.raises(XmodelError, match=rf"game\.tw-pddl: the engine can't play it \(.*{complaint}.*fetch it again"):
        damaged.reset()


def test_chance_damage_does_not_end_the_process(games):
    """A few of each kind; what the engine can play all the same, it may."""
    chance, refused = random.Random(0), 0
    for number in range(8):
        content = dict(games["put"].content)
        part = ("problem", "domain", "grammar")[number % 3]
        text, at = content[part], chance.randrange(len(content[part]))
        content[part] = text[:at] + ("", chr(chance.randrange(128)) + text[at + 1 :])[chance.randrange(2)]
        environment = changed(games["put"], **content)
        try:
            environment.reset()
        except XmodelError:
            refused += 1
            continue
        assert environment.commands()
        play(environment, oracle(environment, random.Random(0)), most=3)
    assert refused > 2


def test_a_grammar_that_fails_later_is_named(games):
    grammar = games["put"].content["grammar"].replace('"inventory.feedback"', '"no.feedback"')
    environment = changed(games["put"], grammar=grammar)
    environment.reset()
    with pytest.raises(RuntimeError, match=r"game\.tw-pddl: damaged .*inventory\.feedback"):
        environment.step("inventory")


@pytest.mark.parametrize(
    ("text", "harm"),
    [
        ("You close the {r.name}.", "You close {open(chr(97), chr(119))}."),
        ("You close the {r.name}.", r"\u007bexec(r.name)\u007d"),
        ("{o.indefinite + ' ' + o.name | holds", "{exec(o.name) | holds"),
        ("take {o} from {r}", "take {o} {exec(1)} {r}"),
    ],
)
def test_a_game_whose_grammar_would_run_code_is_refused(games, text, harm):
    """The engine evaluates what stands in braces."""
    grammar = games["put"].content["grammar"]
    assert text in grammar
    with pytest.raises(
        XmodelError, match=r"game\.tw-pddl: the engine can't play it \(its grammar would run '.*more than names"
    ):
        changed(games["put"], grammar=grammar.replace(text, harm)).reset()
