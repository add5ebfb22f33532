"""Search, lookup and finish answer as ReAct's environment does, whatever is written."""

import random
from pathlib import Path
from typing import Any

import pytest

from tests.eval.agents.few_articles import FewArticles
from xmodel2.eval.agents.answer_scores import label_scores, question_scores
from xmodel2.eval.agents.dialogue import Numbered
from xmodel2.eval.agents.environment import Turn
from xmodel2.eval.agents.search_environment import SearchEnvironment, SearchTask
from xmodel2.eval.mirror import read_rows

# Twelve articles, and 260 episodes of up to seven actions that a seeded generator made of searches, lookups, thoughts, ends and
# broken actions, with what WikiEnv.step of ReAct's wikienv.py answered (ysymyth/ReAct, commit 19c6bae; a function in place of
# requests.get gave it the articles as a wiki's pages) and what get_metrics of its wrappers.py scored. As in its notebooks the
# action's first letter was made small, and an episode without an answer ended with "finish[]".
ARTICLES, *EPISODES = read_rows(Path(__file__).with_name("search_transcripts.jsonl.gz"))
TEXTS: dict[str, str] = dict(ARTICLES["articles"])


def opened(target: str = "Mirel Tovan") -> SearchEnvironment:
    return SearchEnvironment(SearchTask("Question: Who?", target, ()), FewArticles(TEXTS), question_scores)


def test_observations_and_scores_are_those_of_reacts_environment() -> None:
    for episode in EPISODES:
        environment = opened(episode["target"])
        for action, observation, done in episode["steps"]:
            turn = environment.step(action)
            assert turn.done == bool(done)
            if done:
                assert turn.observation.startswith("Episode finished, reward = ")
            else:
                assert turn.observation == observation.removesuffix("\n"), action
        assert environment.answer == episode["answer"]
        assert environment.scores() == {"exact_match": episode["exact_match"], "f1": episode["f1"]}
        assert label_scores(environment.answer, episode["target"]) == {"exact_match": episode["label_match"]}
    assert len(EPISODES) == 260


def test_reset_forgets_article_lookup_and_answer() -> None:
    environment = opened()
    assert environment.reset() == "Question: Who?"
    assert environment.step("Lookup[river]").observation == "No more results."
    environment.step("Search[Vell]")
    assert environment.step("Lookup[bridge]").observation.startswith("(Result 1 / 4) ")
    assert environment.step("Finish[the Mirel Tovan.]") == Turn("Episode finished, reward = 1", 1.0, done=True)
    assert environment.scores() == {"exact_match": 1.0, "f1": 1.0}
    environment.reset()
    assert environment.answer == ""
    assert environment.scores() == {"exact_match": 0.0, "f1": 0.0}
    assert environment.step("Lookup[bridge]").observation == "No more results."


def test_after_the_end_nothing_changes() -> None:
    environment = opened()
    end = environment.step("Finish[Nobody]")
    assert end == Turn("Episode finished, reward = 0", 0.0, done=True)
    for action in ("Finish[Mirel Tovan]", "Search[Vell]", "", "nonsense"):
        assert environment.step(action) == end
    assert environment.answer == "Nobody"


@pytest.mark.parametrize(
    "action",
    [
        "",
        " ",
        "[]",
        "search",
        "search[Vell",
        "search Vell]",
        "Serch[Vell]",
        "finish[no] then",
        "a\nfinish[no]",
        "\x1b[2J",
    ],
)
def test_a_malformed_action_is_told_and_the_article_stays_open(action: str) -> None:
    environment = opened()
    environment.step("Search[Vell]")
    turn = environment.step(action)
    assert not turn.valid
    assert not turn.done
    assert turn.observation.startswith("Invalid action: ")
    assert "\n" not in turn.observation
    assert environment.step("Lookup[ice]").observation == "No more results."
    assert environment.step("Lookup[freezes]").observation == "(Result 1 / 1) It freezes in winter.."


@pytest.mark.parametrize("action", ["x" * 10_000, f"Search[{'x' * 10_000}]", f"Lookup[{'x' * 10_000}]", "[" * 10_000])
def test_ten_thousand_characters_do_not_come_back(action: str) -> None:
    assert len(opened().step(action).observation) < 400


def test_any_text_gets_one_line_and_never_raises() -> None:
    rng, pieces = (
        random.Random(3),
        ["search[", "Lookup[", "finish", "[", "]", "Vell", "\n", "\x00", "é", "'", '"', " ", "\ud800", "*", "OR"],
    )
    for _ in range(500):
        environment = opened()
        for _ in range(4):
            turn = environment.step("".join(rng.choices(pieces, k=rng.randint(0, 6))))
            assert len(turn.observation.splitlines()) == 1
            assert 0 <= turn.reward <= 1
            assert turn.valid or not turn.done


def test_an_episode_reads_as_reacts_do() -> None:
    written: Any = Numbered()
    environment, text = opened(), Numbered().begin("Question: Who directed Halvren?")
    for number, answer in enumerate(["Look.\nAction 1: Search[Tovan]", "See.\nAction 2: Search[Mirel Tovan]"], 1):
        move = written.read(number, answer)
        text += written.write(number, move, environment.step(move.action).observation)
    assert text == (
        "Question: Who directed Halvren?\n"
        "Thought 1: Look.\nAction 1: Search[Tovan]\n"
        "Observation 1: Could not find Tovan. Similar: ['Mirel Tovan', 'Mirel Tovan (painter)'].\n"
        "Thought 2: See.\nAction 2: Search[Mirel Tovan]\n"
        "Observation 2: Mirel Tovan (born 3 May 1931) was a film director from Ostby. She made nine films..\n"
    )
