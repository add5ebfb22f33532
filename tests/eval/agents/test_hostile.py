"""Whatever a model writes, an environment answers it, stays playable, and is as before if the action was none."""

import importlib.util
import random
from dataclasses import replace
from functools import cache

import pytest

from xmodel2.eval.agents.benchmarks import open_benchmark
from xmodel2.eval.agents.dialogue import Move
from xmodel2.eval.agents.environment import Benchmark, Environment, Player, Turn
from xmodel2.eval.agents.options import MADE_UP
from xmodel2.eval.tasks import AGENTS

NAMES = [name for name in AGENTS if name != "alfworld" or importlib.util.find_spec("alfworld")]
NAMES += ["webshop text", "webshop text_rich"]
LONGEST = 5000
"""Characters of an observation: an action that is quoted whole would fill a model's context."""
MALFORMED = (
    "",
    " \t ",
    "\n",
    "\0",
    "[",
    "]",
    "[]",
    "[" * 5000 + "]" * 5000,
    "search",
    "search[",
    "searched[x]",
    "search x]",
    "search(x)",
    "click[",
    "finish answer",
    "go",
    "take",
    "heat [x] with",
    "a" * 10_000,
    "<script>alert(1)</script>",
    "\x1b]0;title\x07\x1b[2J",
    "\u202egnp.exe",
    "{0.__class__} %s %n ${HOME}",
    "Action 1: Search[x",
    "٣٤ Ⅷ ²",
    "\ud800",
    "'; DROP TABLE articles; --",
)
"""No action of any environment."""
JUNK = (
    *(
        '"',
        "'",
        '" OR "',
        "NEAR(a b)",
        "x*",
        "^x",
        "-x",
        "a AND NOT",
        "title:x",
        "(",
        "{",
        "}",
        ");--",
        "%",
        "%s",
        "{0}",
    ),
    *(
        "\0",
        "a\0b",
        "\ud800",
        "\x1b[31m",
        "\x9b2J",
        "\u202e",
        "\u2066",
        "\ufeff",
        "<b>x</b>",
        "&lt;",
        "&#0;",
        "\\",
        "\\n",
    ),
    *("a\nb", "\r", "\u2028", "\x0c", " ", "", "x" * 10_000, "the " * 2500, "[" * 3000, "日本語", "🙂", "é" * 500, "Ω"),
    *("0", "-1", "99999999999999999999", "١٢", "²", "1e9", "nan", "None", "null", "../../etc/passwd", "file:///x"),
)
VERBS = (
    *("search", "lookup", "finish", "click", "think", "Search", "CLICK", "buy"),
    *("go to", "take", "put", "move", "open", "close", "heat", "cool", "clean", "use", "examine", "look", "inventory"),
)


@cache
def benchmark(name: str) -> Benchmark:
    """Made up, once; after the name, the style of its pages."""
    name, *pages = name.split()
    return open_benchmark(name, replace(MADE_UP, pages=pages[0]) if pages else MADE_UP)


def hostile(chance: random.Random, observation: str) -> str:
    """Return an action that is half one: a verb, junk, words of what was seen last, brackets here and there."""
    words = observation.split() or ["x"]
    parts = [
        chance.choice(JUNK) if chance.random() < 0.6 else chance.choice(words) for _ in range(chance.randint(0, 3))
    ]
    inside = chance.choice(["", " ", "[", "]", "]["]).join(parts)
    verb = chance.choice(VERBS)
    return chance.choice(
        [
            f"{verb}[{inside}]",
            f"{verb} {inside}",
            f"{verb}[{inside}",
            f"{verb} {inside}]",
            f"{verb}[[{inside}]]",
            inside,
        ]
    ).strip()


def check(turn: Turn, environment: Environment) -> None:
    """What holds of every turn."""
    assert isinstance(turn.observation, str)
    assert len(turn.observation) <= LONGEST
    assert 0 <= turn.reward <= 1
    assert all(0 <= value <= 1 for value in environment.scores().values())
    assert isinstance(environment.answer, str)


def act(environment: Environment, player: Player, observation: str) -> Turn:
    """Let a player do its next action; its thoughts are not the environment's affair."""
    while not (move := player.move(observation)).action:
        pass
    return environment.step(move.action)


def solve(environment: Environment, player: Player, observation: str, limit: int) -> float:
    """Return the reward of a player that goes on from an observation."""
    for _ in range(limit):
        turn = act(environment, player, observation)
        if turn.done:
            return turn.reward
        observation = turn.observation
    return turn.reward


@pytest.mark.parametrize("name", NAMES)
def test_every_action_is_answered_and_reset_restores(name: str) -> None:
    played, chance = benchmark(name), random.Random(7)
    for case in played.cases[:2]:
        environment = played.open(case)
        player = played.players["oracle"](environment, random.Random(0))
        first = observation = environment.reset()
        for _ in range(150):
            scores = environment.scores()
            turn = environment.step(hostile(chance, observation))
            check(turn, environment)
            assert turn.valid or environment.scores() == scores
            observation = turn.observation
            if turn.done:
                scores, answer = environment.scores(), environment.answer
                check(environment.step(hostile(chance, first)), environment)
                assert (environment.scores(), environment.answer) == (scores, answer)
                assert environment.reset() == first
                observation = first
        assert environment.reset() == first
        assert solve(environment, player, first, played.step_limit) == 1


@pytest.mark.parametrize("name", NAMES)
def test_what_is_no_action_changes_nothing(name: str) -> None:
    """Two environments give the same turns, though one is told nonsense before each action, much before the first."""
    played = benchmark(name)
    for case in played.cases[:2]:
        alone, pestered = played.open(case), played.open(case)
        player = played.players["oracle"](alone, random.Random(0))
        observation = alone.reset()
        assert pestered.reset() == observation
        nonsense = MALFORMED
        turn = Turn(observation)
        while not turn.done:
            move = player.move(observation)
            if not move.action:
                continue
            for action in nonsense:
                before = pestered.scores(), pestered.answer
                refused = pestered.step(action)
                check(refused, pestered)
                assert (refused.valid, refused.done) == (False, False), action
                assert (pestered.scores(), pestered.answer) == before
            nonsense = MALFORMED[:3]
            turn = alone.step(move.action)
            assert pestered.step(move.action) == turn
            observation = turn.observation
        assert turn.reward == 1
        assert pestered.scores() == alone.scores()


@pytest.mark.parametrize("name", NAMES)
def test_whatever_a_model_answers_is_a_move(name: str) -> None:
    dialogue, chance = benchmark(name).dialogue, random.Random(3)
    for number, text in enumerate((*MALFORMED, *JUNK, *(hostile(chance, "a b") for _ in range(100))), 1):
        for answer in (text, f" {text}\nAction {number}: {text}", f"think[{text}", f"think: {text}"):
            read = dialogue.read(number, answer)
            move = read if isinstance(read, Move) else dialogue.reread(number, read, answer)
            assert isinstance(move, Move)
            assert "\n" not in move.action or answer.count("\n") > 0
            assert dialogue.write(number, move, "observed").endswith(("observed", "observed\n"))
