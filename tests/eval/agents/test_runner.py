"""Episodes are played to their ends by any backend, kept as they go, and told what is wrong with an action."""

import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.eval.agents.toy import COMMANDS, NUMBERED, Voice, doors
from tests.eval.rival_models import NATIVE, tiny_rival
from xmodel2.errors import XmodelError
from xmodel2.eval.agents.baselines import Baseline
from xmodel2.eval.agents.environment import Benchmark
from xmodel2.eval.agents.runner import AgentRun
from xmodel2.eval.answer_cache import AnswerCache
from xmodel2.eval.model_options import ModelOptions
from xmodel2.eval.open_model import open_backend


def play(benchmark: Benchmark, backend: Any, out: Path, limit: int | None = None) -> list[dict[str, Any]]:
    return AgentRun(benchmark, backend, AnswerCache(out, "model"), out).play(limit)


def reader(text: str) -> str:
    """Open the door that the task's sign names; the second try, since the first action is malformed."""
    task = text[text.rindex("Find the coin") :]
    sign = re.findall(r"A sign says (\d)", task)[-1]
    number = task.count("Observation") + 1
    action = f"open[{sign}]" if "Say open" in task else f"open {sign}]["
    return f" I read {sign}.\nAction {number}: {action}"


def test_a_malformed_action_is_observed_and_recovered_from(tmp_path: Path) -> None:
    items = play(doors(3), Voice(reader), tmp_path)
    assert [item["outcome"] for item in items] == ["solved"] * 3
    first, second = items[1]["steps"]
    assert (first["action"], first["observation"], first["valid"]) == ("open 2][", "Say open[NUMBER].", False)
    assert (second["step"], second["thought"], second["reward"], second["done"]) == (2, "I read 2.", 1.0, True)
    assert items[1]["scores"] == {"found": 1.0, "doors": 0.1}
    assert (items[1]["id"], items[1]["doc_id"], items[1]["target"], items[1]["answer"]) == (1, "house-1", "2", "2")


def test_the_prompt_is_examples_task_and_all_steps(tmp_path: Path) -> None:
    voice = Voice(reader)
    play(doors(1), voice, tmp_path)
    assert voice.asked[1].text == (
        "Open doors.\nExample 0: a coin.\nExample 1: a coin.\nFind the coin in house-0 behind door 1 to 8. A sign says 1.\n"
        "Thought 1: I read 1.\nAction 1: open 1][\nObservation 1: Say open[NUMBER].\nThought 2:"
    )
    assert voice.asked[1].until == ("\nObservation 2:",)


def test_an_answer_without_action_is_asked_for_the_action_alone(tmp_path: Path) -> None:
    voice = Voice(lambda text: " open[1]" if text.endswith("Action 1:") else " Let me think.\nAnd think on.")
    (item,) = play(doors(1), voice, tmp_path)
    assert voice.asked[1].text.endswith("\nThought 1: Let me think.\nAction 1:")
    assert voice.asked[1].until == ("\n",)
    assert (item["steps"][0]["thought"], item["steps"][0]["action"], item["correct"]) == ("Let me think.", "open[1]", 1)


def test_thoughts_of_commands_are_steps_that_no_world_sees(tmp_path: Path) -> None:
    voice = Voice(lambda text: " think: where?" if "OK." not in text else " open[1]")
    (item,) = play(doors(1, COMMANDS), voice, tmp_path)
    assert voice.asked[-1].text.endswith("A sign says 1.\n> think: where?\nOK.\n>")
    assert [(step["thought"], step["action"], step["observation"]) for step in item["steps"]] == [
        ("where?", "", "OK."),
        ("", "open[1]", "The coin!"),
    ]


@pytest.mark.parametrize("said", ["think:where?", "think: where? ", "think:", "think"])
def test_a_line_stands_in_the_history_as_it_was_written(tmp_path: Path, said: str) -> None:
    voice = Voice(lambda text: f" {said}" if text.endswith("says 1.\n>") else " open[1]")
    play(doors(1, COMMANDS), voice, tmp_path)
    assert voice.asked[1].text.endswith(
        f"says 1.\n> {said.strip()}\n{'Say open[NUMBER].' if said == 'think' else 'OK.'}\n>"
    )


def test_a_world_that_cannot_be_opened_ends_its_episode_only(tmp_path: Path) -> None:
    benchmark = doors(3)

    def open_case(case: Any) -> Any:
        if case.id == "house-1":
            raise XmodelError("house-1.json: damaged")
        return benchmark.open(case)

    items = play(Benchmark(**{**vars(benchmark), "open": open_case}), Voice(reader), tmp_path)
    assert [item["outcome"] for item in items] == ["solved", "environment error", "solved"]
    assert (items[1]["error"], items[1]["prompt"]) == ("house-1.json: damaged", "Find the coin.")


@pytest.mark.parametrize(
    ("said", "outcome", "steps"),
    [
        (" Hm.\nAction {n}: open[7]", "repeats itself", 4),
        (" Hm.\nAction {n}: open[{n}]", "out of steps", 4),
        (" Hm.\nAction {n}: sing[{n}]", "malformed actions", 4),
        (" Hm.\nAction {n}: open[0]", "wrong", 1),
        (" Hm.\nAction {n}: open[9]", "environment error", 1),
        (" Hm.\nAction {n}: " + "open[" * 2000, "malformed actions", 4),
        ("", "malformed actions", 4),
        (" Hm.\nAction {n}: \ud800\x00\x1b[31m<script>", "malformed actions", 4),
    ],
)
def test_how_an_episode_ended_is_told(tmp_path: Path, said: str, outcome: str, steps: int) -> None:
    def rule(text: str) -> str:
        return said.replace("{n}", str(text.count("Observation") + 1))

    benchmark = doors(8, fault=OSError("the door is stuck"))
    item = play(benchmark, Voice(rule), tmp_path)[7]
    assert (item["outcome"], len(item["steps"]), item["correct"]) == (outcome, steps, 0)
    assert item["error"] == ("OSError: the door is stuck" if outcome == "environment error" else None)


def test_a_world_that_breaks_ends_its_episode_only(tmp_path: Path) -> None:
    benchmark = doors(4, fault=RuntimeError("broken"))
    items = play(benchmark, Voice(lambda text: f" .\nAction 1: open[{9 if 'says 2' in text else 1}]"), tmp_path)
    assert [item["outcome"] for item in items][:2] == ["solved", "environment error"]
    assert items[1]["scores"] == {"found": 0.0}


def test_a_world_without_its_data_stops_the_run(tmp_path: Path) -> None:
    benchmark = doors(2, fault=XmodelError("the live world is out of reach"))
    with pytest.raises(XmodelError, match="out of reach"):
        play(benchmark, Voice(lambda text: " .\nAction 1: open[9]"), tmp_path)


def test_a_killed_run_asks_for_the_rest_only(tmp_path: Path) -> None:
    whole = Voice(reader)
    wanted = play(doors(500), whole, tmp_path / "whole")
    killed = Voice(reader, patience=600)
    with pytest.raises(KeyboardInterrupt):
        play(doors(500), killed, tmp_path / "killed")
    again = Voice(reader)
    assert play(doors(500), again, tmp_path / "killed") == wanted
    assert len(killed.asked) + len(again.asked) == len(whole.asked) == 1000
    assert not {prompt.text for prompt in killed.asked} & {prompt.text for prompt in again.asked}
    third = Voice(reader, patience=0)
    assert play(doors(500), third, tmp_path / "killed", limit=300) == wanted[:300]


def test_many_episodes_are_asked_together(tmp_path: Path) -> None:
    voice = Voice(reader)
    play(doors(100), voice, tmp_path)
    assert voice.waves == [64, 64, 36, 36]


def test_each_step_is_a_line(tmp_path: Path) -> None:
    items = play(doors(3), Voice(reader), tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "steps" / "doors.jsonl").read_text().splitlines()]
    assert len(lines) == sum(len(item["steps"]) for item in items)
    of_second = [line for line in lines if line["episode"] == 1]
    assert [{key: line[key] for key in items[1]["steps"][0]} for line in of_second] == items[1]["steps"]
    assert len({line["prompt"] for line in lines}) == len(lines)
    play(doors(3), Voice(reader, patience=0), tmp_path)
    assert len((tmp_path / "steps" / "doors.jsonl").read_text().splitlines()) == len(lines)


def test_a_short_context_loses_examples_first_then_early_steps(tmp_path: Path) -> None:
    def rule(text: str) -> str:
        return " w" * 12 + f"\nAction {re.findall('Thought ([0-9]):', text)[-1]}: open[7]"

    voice = Voice(rule, max_length=100 + 44)
    run = AgentRun(doors(1, step_limit=3), voice, AnswerCache(tmp_path, ""), tmp_path)
    run.play()
    first, second, third = (prompt.text for prompt in voice.asked)
    kept = [[word in text for word in ("Example 0", "Example 1", "Observation 1:")] for text in (first, second, third)]
    assert kept == [[True, True, False], [False, True, True], [False, False, False]]
    assert all(text.startswith("Open doors.\n") and "A sign says 1" in text for text in (first, second, third))
    assert run.cut == 2


def test_a_server_that_counts_no_tokens_gets_prompts_cut_by_their_bytes(tmp_path: Path) -> None:
    voice = Voice(lambda text: " " + "w" * 90 + f"\nAction {re.findall('Thought ([0-9]+):', text)[-1]}: open[7]")
    voice.max_length = 100 + 120
    voice.token_counts = lambda texts: None  # type: ignore[method-assign]
    run = AgentRun(doors(1, step_limit=12), voice, AnswerCache(tmp_path, ""), tmp_path)
    run.play()
    assert max(len(prompt.text) for prompt in voice.asked) <= 3 * 120
    assert run.cut > 0
    assert run.examples_shown is not None
    assert run.examples_shown < 2


def test_once_steps_are_left_out_the_next_turns_go_on_with_the_same_text(tmp_path: Path) -> None:
    voice = Voice(lambda text: f" w w w\nAction {re.findall('Thought ([0-9]+):', text)[-1]}: open[7]", max_length=300)
    AgentRun(doors(1, step_limit=60), voice, AnswerCache(tmp_path, ""), tmp_path).play()
    kept = [now.text.startswith(before.text) for before, now in pairwise(voice.asked)]
    assert kept.count(False) <= len(kept) // 4
    assert all("Observation" in prompt.text for prompt in voice.asked[1:])


@pytest.mark.parametrize("dialogue", [NUMBERED, COMMANDS], ids=["numbered", "commands"])
def test_baselines_play_through_the_same_dialogue(tmp_path: Path, dialogue: Any) -> None:
    oracle = play(doors(8, dialogue), Baseline("oracle"), tmp_path / "oracle")
    assert all(item["correct"] for item in oracle)
    chance = play(doors(200, dialogue), Baseline("random"), tmp_path / "random")
    assert 0.1 < sum(item["correct"] for item in chance) / 200 < 0.6
    assert play(doors(200, dialogue), Baseline("random"), tmp_path / "again") == chance


def test_a_baseline_answers_no_other_question() -> None:
    with pytest.raises(XmodelError, match="oracle, random, scripted"):
        Baseline("orcale")
    with pytest.raises(XmodelError, match="--suite agents"):
        Baseline("oracle").rolling(["text"])


def test_a_real_model_plays_equally_alone_and_among_others(tmp_path: Path) -> None:
    engine = open_backend(str(tiny_rival(NATIVE[0], tmp_path, context=1024)), ModelOptions(device="cpu"))
    benchmark = doors(4, step_limit=2)
    items = play(benchmark, engine, tmp_path / "together")
    for number in (1, 3):
        alone = Benchmark(**{**vars(benchmark), "cases": benchmark.cases[number : number + 1]})
        (item,) = play(alone, engine, tmp_path / f"alone-{number}")
        assert {**item, "id": number} == items[number]
