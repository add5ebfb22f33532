"""ALFWorld in its own engine: whole episodes, several at once, and what its own environment says to the same commands."""

import random
import sys
from pathlib import Path

import pytest

from xmodel2.errors import XmodelError
from xmodel2.eval.agents import alfworld_engine
from xmodel2.eval.agents.alfworld import AlfworldEnvironment, alfworld_benchmark
from xmodel2.eval.agents.alfworld_games import KINDS, Game, find_split, read_games
from xmodel2.eval.agents.alfworld_players import Oracle, Random, Scripted
from xmodel2.eval.agents.made_houses import write_houses
from xmodel2.eval.agents.options import AgentOptions

SHARED = Path(__file__).parents[4] / "shared" / "data" / "agents"


@pytest.fixture(scope="module")
def games(tmp_path_factory) -> dict[str, Game]:
    """A made-up game of each kind."""
    folder = tmp_path_factory.mktemp("alfworld")
    write_houses(folder, seed=1, each=1)
    return {game.kind: game for game in read_games(find_split(folder))}


def play(environment, player, most=49) -> list[tuple[str, str]]:
    """Play an episode without thoughts; return commands and observations."""
    observation, told = environment.reset(), []
    for _ in range(most):
        move = player.move(observation)
        turn = environment.step(move.action)
        observation = turn.observation
        told.append((move.action, observation))
        if turn.done:
            break
    return told


@pytest.mark.parametrize("kind", KINDS.values())
def test_the_oracle_wins_every_kind_of_task(games, kind):
    environment = AlfworldEnvironment(games[kind])
    told = play(environment, Oracle(environment, random.Random(0)))
    assert environment.scores() == {"success_rate": 1.0}
    assert all(seen != "Nothing happens." for _, seen in told)
    assert not any(seen.startswith("You arrive at") for _, seen in told)
    assert environment.answer == told[-1][0]
    assert environment.step("look").done  # over is over
    assert environment.scores() == {"success_rate": 1.0}


def test_chance_does_not_win(games):
    environment = AlfworldEnvironment(games["cool"])
    told = play(environment, Random(environment, random.Random(0)))
    assert len(told) == 49
    assert environment.scores() == {"success_rate": 0.0}
    assert all(seen != "Nothing happens." for _, seen in told)  # it does what can be done


def test_the_search_by_rule_wins_where_things_lie_open(games):
    environment = AlfworldEnvironment(games["examine"])
    told = play(environment, Scripted(environment, random.Random(0)))
    assert environment.scores() == {"success_rate": 1.0}
    assert told[-1][0].startswith("use ")


def test_games_open_at_once_are_as_alone(games):
    kinds = ("put", "puttwo", "put")
    alone = []
    for kind in kinds:
        environment = AlfworldEnvironment(games[kind])
        alone.append(play(environment, Oracle(environment, random.Random(0))))
        assert environment.scores() == {"success_rate": 1.0}
        del environment
    together = [AlfworldEnvironment(games[kind]) for kind in kinds]
    starts = [environment.reset() for environment in together]
    assert starts[0] == starts[2] != starts[1]
    for number in range(max(map(len, alone))):
        for environment, told in zip(together, alone, strict=True):
            if number < len(told):
                assert environment.step(told[number][0]).observation == told[number][1]
    assert all(environment.scores() == {"success_rate": 1.0} for environment in together)


def test_what_is_seen_is_what_alfworlds_own_environment_shows(games, monkeypatch):
    monkeypatch.setenv("ALFWORLD_DATA", str(games["puttwo"].file.parent))
    import textworld
    from alfworld.agents.environment.alfred_tw_env import AlfredDemangler
    from textworld.envs import PddlEnv

    own = AlfredDemangler(PddlEnv(textworld.EnvInfos(won=True, admissible_commands=True)))
    own.load(str(games["puttwo"].file))
    state, environment, rng = own.reset(), AlfworldEnvironment(games["puttwo"]), random.Random(0)
    assert state.feedback.split("\n\n", 1)[1].replace("\n\n", "\n") == environment.reset()
    for number in range(6):
        assert environment.commands() == state.admissible_commands
        command = rng.choice(state.admissible_commands) if number != 3 else "go to the moon"
        state, _, _ = own.step(command)
        seen = environment.step(command).observation
        assert state.feedback.endswith(seen)
        assert state.feedback.removesuffix(seen) in ("", f"You arrive at {command.removeprefix('go to ')}. ")


def test_putting_is_understood_in_either_form_and_answered_in_reacts(games):
    first, second = AlfworldEnvironment(games["put"]), AlfworldEnvironment(games["put"])
    told = play(first, Oracle(first, random.Random(0)))
    put, seen = told[-1]
    assert " in/on " in put
    assert seen == f"You put the {put.removeprefix('put ').replace(' in/on ', ' in/on the ')}."
    second.reset()
    for command, _ in told[:-1]:
        second.step(command)
    turn = second.step(put.replace("put", "move").replace("in/on", "to"))
    assert turn.done
    assert turn.reward == 1.0
    assert turn.observation.startswith("You move the")


def test_games_of_the_older_release_say_it_as_react_does(games):
    newer = games["put"].content["grammar"]
    older = newer.replace("move {o} to {r}", "put {o} in/on {r}").replace(
        "You arrive at {r.name}", "You arrive at {lend.name}"
    )
    older = older.replace("You move the {o.name} to the {r.name}", "You put the {o.name} in/on the {r.name}")
    assert len({newer, older}) == 2
    first = AlfworldEnvironment(games["put"])
    second = AlfworldEnvironment(Game(**{**vars(games["put"]), "content": {**games["put"].content, "grammar": older}}))
    assert play(first, Oracle(first, random.Random(0))) == play(second, Oracle(second, random.Random(0)))
    assert second.scores() == {"success_rate": 1.0}


HOSTILE = [
    *("", " ", "go to", "put", "put  in/on ", "{o}", "#intro#", "think: hm", "go to cabinet 1\nlook", "\x1b[2J"),
    *("x" * 10_000, "put " * 3000, "put a in/on " * 2000, "GO TO FRIDGE 1", "go to fridge", "🦙" * 100, "\0"),
]


def test_hostile_commands_do_nothing(games):
    environment = AlfworldEnvironment(games["examine"])
    environment.reset()
    before = environment.facts()
    for command in HOSTILE:
        turn = environment.step(command)
        assert (turn.observation, turn.reward, turn.done, turn.valid) == ("Nothing happens.", 0.0, False, False)
    assert environment.facts() == before
    assert environment.answer == ""
    assert environment.step("inventory").valid


def test_one_household_after_the_other_needs_few_copies_of_the_library(games, monkeypatch):
    from fast_downward import interface

    load, loaded = interface.load_lib, []
    monkeypatch.setattr(
        interface, "load_lib", lambda: loaded.append(Path(interface.DOWNWARD_LIB_PATH).stat().st_size) or load()
    )
    monkeypatch.setattr(alfworld_engine, "_FREE", [])
    for _ in range(6):
        AlfworldEnvironment(games["examine"]).reset()
    assert 1 <= len(loaded) <= 3  # the engine's parser keeps hold of the last one for a while
    assert max(loaded) < 4 * 2**20  # each copy lies in the temporary folder as long as it is used


def test_the_engine_leaves_the_process_as_it_was(games, monkeypatch):
    monkeypatch.delenv("ALFWORLD_DATA", raising=False)
    argv = sys.argv
    AlfworldEnvironment(games["examine"]).reset()
    assert sys.argv is argv
    assert "ALFWORLD_DATA" not in alfworld_engine.os.environ


def test_a_game_that_the_engine_cannot_play_is_named(games):
    broken = {**games["put"].content, "problem": "(define (problem made) (:domain alfred) (:objects"}
    with pytest.raises(XmodelError, match=r"game\.tw-pddl: the engine can't play it .*fetch it again"):
        AlfworldEnvironment(Game(**{**vars(games["put"]), "content": broken})).reset()
    assert AlfworldEnvironment(games["put"]).reset()


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
    content = {**games["put"].content, "grammar": grammar.replace(text, harm)}
    with pytest.raises(
        XmodelError, match=r"game\.tw-pddl: the engine can't play it \(its grammar would run '.*more than names"
    ):
        AlfworldEnvironment(Game(**{**vars(games["put"]), "content": content})).reset()


def test_without_the_extra_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "fast_downward", None)
    with pytest.raises(XmodelError, match=r"pip install 'xmodel2\[alfworld\]', or ask for the other three"):
        alfworld_benchmark(AgentOptions())


def test_without_games_the_households_are_made_up(monkeypatch):
    monkeypatch.delenv("ALFWORLD_DATA", raising=False)
    benchmark = alfworld_benchmark(AgentOptions())
    assert benchmark.world == "made-up households, seed 0: 24 games in alfworld's engine"
    assert benchmark.of is None
    assert benchmark.step_limit == 49
    assert [case.part for case in benchmark.cases[:6]] == list(KINDS.values())
    assert len({case.id for case in benchmark.cases}) == 24
    assert benchmark.fingerprint == alfworld_benchmark(AgentOptions()).fingerprint
    examples = benchmark.examples(benchmark.cases[4])
    assert examples.source == "the oracle in made-up households"
    first, second = examples.trajectories
    assert first.startswith("You are in the middle of a room.")
    assert first.count("\n> use ") == second.count("\n> use ") == 1
    assert first.count("\n> think: ") == first.count("\nOK.\n") > 2
    assert second.endswith("lamp 1.\n\nHere is the task.\n")
    assert benchmark.cases[4].data.id not in first + second


def test_reacts_prompts_are_used_where_they_are(tmp_path, games):
    lines = [f'{{"name": "react_{kind}_{n}", "prompt": "{kind} {n}\\n"}}' for kind in KINDS.values() for n in range(3)]
    (tmp_path / "react-prompts").mkdir()
    (tmp_path / "react-prompts" / "alfworld_3prompts.jsonl").write_text("\n".join(lines))
    benchmark = alfworld_benchmark(AgentOptions(agents_dir=tmp_path, games=games["put"].file.parents[3]))
    assert benchmark.world == "ALFWorld valid_unseen, 6 of 134 games"
    assert benchmark.of == 134
    case = next(case for case in benchmark.cases if case.part == "heat")
    examples = benchmark.examples(case)
    assert examples.trajectories == ("heat 1\n", "heat 0\n\nHere is the task.\n")
    assert examples.source == "ReAct"


def test_reacts_real_prompts_are_continued_as_its_notebook_does(games):
    """Where the real file is beside the repository; the test above has the same with one of its form."""
    if not SHARED.is_dir():
        return
    benchmark = alfworld_benchmark(AgentOptions(agents_dir=SHARED, games=games["put"].file.parents[3]))
    for case in benchmark.cases:
        examples = benchmark.examples(case)
        assert all("\n> think: To solve the task" in text for text in examples.trajectories)
        assert examples.trajectories[1].endswith(".\n\nHere is the task.\n")
