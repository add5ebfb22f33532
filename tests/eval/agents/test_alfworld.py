"""ALFWorld in its own engine: whole episodes, several at once, and what its own environment says to the same commands."""

import json
import random
import sys
import tempfile
from pathlib import Path

import pytest

from tests.eval.agents.few_households import changed, few_games, older, play, released
from xmodel2.errors import XmodelError
from xmodel2.eval.agents import alfworld, alfworld_engine
from xmodel2.eval.agents.alfworld import AlfworldEnvironment, alfworld_benchmark
from xmodel2.eval.agents.alfworld_games import KINDS, Game
from xmodel2.eval.agents.alfworld_players import oracle, random_walker, scripted
from xmodel2.eval.agents.options import AgentOptions

SHARED = Path(__file__).parents[4] / "shared" / "data" / "agents"


@pytest.fixture(scope="module")
def games(tmp_path_factory) -> dict[str, Game]:
    return few_games(tmp_path_factory.mktemp("alfworld"))


@pytest.mark.parametrize("kind", KINDS.values())
def test_the_oracle_wins_every_kind_of_task(games, kind):
    environment = AlfworldEnvironment(games[kind])
    told = play(environment, oracle(environment, random.Random(0)))
    assert environment.scores() == {"success_rate": 1.0}
    assert all(seen != "Nothing happens." for _, seen in told)
    assert not any(seen.startswith("You arrive at") for _, seen in told)
    assert environment.answer == told[-1][0]
    assert environment.step("look").done  # over is over
    assert environment.scores() == {"success_rate": 1.0}


def test_chance_does_not_win(games):
    environment = AlfworldEnvironment(games["cool"])
    told = play(environment, random_walker(environment, random.Random(0)))
    assert len(told) == 49
    assert environment.scores() == {"success_rate": 0.0}
    assert all(seen != "Nothing happens." for _, seen in told)  # it does what can be done


def test_the_search_by_rule_wins_where_things_lie_open(games):
    environment = AlfworldEnvironment(games["examine"])
    told = play(environment, scripted(environment, random.Random(0)))
    assert environment.scores() == {"success_rate": 1.0}
    assert told[-1][0].startswith("use ")


def test_games_open_at_once_are_as_alone(games):
    kinds = ("put", "puttwo", "put")
    alone = []
    for kind in kinds:
        environment = AlfworldEnvironment(games[kind])
        alone.append(play(environment, oracle(environment, random.Random(0))))
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
    told = play(first, oracle(first, random.Random(0)))
    put, seen = told[-1]
    assert " in/on " in put
    assert seen == f"You put the {put.removeprefix('put ').replace(' in/on ', ' in/on the ')}."
    moved = put.replace("put", "move").replace("in/on", "to")
    for environment in (second, changed(games["put"], grammar=older(games["put"].content["grammar"]))):
        environment.reset()
        for command, _ in told[:-1]:
            environment.step(command)
        for other in (" in ", " on ", " to ", " into "):
            assert environment.step(put.replace(" in/on ", other)).observation == "Nothing happens."
        assert environment.step(moved.replace(" to ", " in/on ")).observation == "Nothing happens."
        turn = environment.step(moved)
        assert (turn.done, turn.reward) == (True, 1.0)
        assert turn.observation == f"You move the {moved.removeprefix('move ').replace(' to ', ' to the ')}."


def test_games_of_the_older_release_say_it_as_react_does(games):
    newer = games["put"].content["grammar"]
    first, second = AlfworldEnvironment(games["put"]), changed(games["put"], grammar=older(newer))
    assert [first.game.puts, second.game.puts] == ["move X to Y", "put X in/on Y"]
    assert play(first, oracle(first, random.Random(0))) == play(second, oracle(second, random.Random(0)))
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


def test_without_the_extra_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "fast_downward", None)
    with pytest.raises(XmodelError, match=r"pip install 'xmodel2\[alfworld\]', or ask for the other three"):
        alfworld_benchmark(AgentOptions())


def test_newer_pythons_are_refused(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 13, 0))
    with pytest.raises(XmodelError, match=r"TextWorld, needs Python 3\.12 or older.*--tasks hotpotqa"):
        alfworld_benchmark(AgentOptions())


def test_a_temporary_folder_without_room_is_named(games, tmp_path, monkeypatch):
    monkeypatch.setattr(alfworld_engine, "_FREE", [])
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(XmodelError, match=r"temporary folder can't be used .*gone.*set TMPDIR") as caught:
        AlfworldEnvironment(games["put"]).reset()
    assert "fetch" not in str(caught.value)


def test_a_variable_that_points_nowhere_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("ALFWORLD_DATA", str(tmp_path / "gone"))
    with pytest.raises(XmodelError, match=r"\$ALFWORLD_DATA: .*gone: no games.*unset it to play made-up households"):
        alfworld_benchmark(AgentOptions())


def test_a_variable_with_games_is_followed(games, tmp_path, monkeypatch):
    released(tmp_path / "json_2.1.1" / "valid_unseen", games)
    monkeypatch.setenv("ALFWORLD_DATA", str(tmp_path))
    assert alfworld_benchmark(AgentOptions()).of == 134


def test_a_score_says_which_games_it_is_of(games, tmp_path):
    unseen, seen = tmp_path / "json_2.1.1" / "valid_unseen", tmp_path / "json_2.1.3" / "valid_seen"
    rest = {"put": games["put"]}
    told = {
        released(unseen, games): ('ALFWorld valid_unseen (json_2.1.1, "move X to Y"), 6 of 134 games', 134, False),
        released(seen, games): (
            'folder valid_seen (json_2.1.3, "move X to Y"): 6 games in alfworld\'s engine',
            None,
            False,
        ),
        released(tmp_path / "mine", rest): ('folder mine ("move X to Y"): 1 games in alfworld\'s engine', None, False),
        released(tmp_path / "houses", games, "trial_made_7"): (
            "made-up households of folder houses: 6 games in alfworld's engine",
            None,
            True,
        ),
        released(released(tmp_path / "a" / "valid_unseen", games), games, "trial_made_1"): (
            'folder valid_unseen ("move X to Y"): 12 games in alfworld\'s engine, 6 made up',
            None,
            False,
        ),
    }
    for folder, expected in told.items():
        benchmark = alfworld_benchmark(AgentOptions(games=folder))
        assert (benchmark.world, benchmark.of, benchmark.made_up) == expected


def test_more_games_than_the_split_has_are_not_the_split(games, tmp_path):
    folder = tmp_path / "valid_unseen"
    for number in range(135):
        released(folder, {"put": games["put"]}, f"trial_T{number}")
    assert alfworld_benchmark(AgentOptions(games=folder)).of is None


def test_a_fingerprint_has_all_that_a_score_hangs_on(games, tmp_path, monkeypatch):
    folder = released(tmp_path / "valid_unseen", games)
    file = next(folder.glob("pick_and*/*/game.tw-pddl"))
    whole = json.loads(file.read_text())

    def fingerprint() -> str:
        return alfworld_benchmark(AgentOptions(games=folder)).fingerprint

    first = fingerprint()
    assert first == fingerprint()
    found = {first}
    for part in ("pddl_domain", "pddl_problem", "grammar"):
        file.write_text(json.dumps({**whole, part: whole[part] + "\n"}))
        found.add(fingerprint())
    file.write_text(json.dumps(whole))
    for name, value in (("STEP_LIMIT", 50), ("_INSTRUCTION", "Do it.\n"), ("_played", lambda kind: ("another",))):
        with monkeypatch.context() as patch:
            patch.setattr(alfworld, name, value)
            found.add(fingerprint())
    for module in ("alfworld.info", "textworld"):
        with monkeypatch.context() as patch:
            patch.setattr(sys.modules[module], "__version__", "9")
            found.add(fingerprint())
    assert len(found) == 9
    assert fingerprint() == first


def test_without_games_the_households_are_made_up(monkeypatch):
    monkeypatch.delenv("ALFWORLD_DATA", raising=False)
    benchmark = alfworld_benchmark(AgentOptions())
    assert benchmark.world == "made-up households, seed 0: 24 games in alfworld's engine"
    assert (benchmark.of, benchmark.made_up) == (None, True)
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
    case = next(case for case in benchmark.cases if case.part == "heat")
    examples = benchmark.examples(case)
    assert examples.trajectories == ("heat 1\n", "heat 0\n\nHere is the task.\n")
    assert examples.source == "ReAct, with an instruction of ours"


def test_reacts_real_prompts_are_continued_as_its_notebook_does(games):
    """Where the real file is beside the repository; the test above has the same with one of its form."""
    if not SHARED.is_dir():
        return
    benchmark = alfworld_benchmark(AgentOptions(agents_dir=SHARED, games=games["put"].file.parents[3]))
    for case in benchmark.cases:
        examples = benchmark.examples(case)
        assert all("\n> think: To solve the task" in text for text in examples.trajectories)
        assert examples.trajectories[1].endswith(".\n\nHere is the task.\n")
