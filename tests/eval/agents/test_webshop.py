"""The benchmark: who plays it how well, what stands before a task, and which catalogue it is."""

import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from xmodel2.errors import XmodelError
from xmodel2.eval.agents.environment import Benchmark, Case
from xmodel2.eval.agents.episode import Episode
from xmodel2.eval.agents.made_products import made_catalogue, write_released
from xmodel2.eval.agents.options import MADE_UP, AgentOptions, PageStyle
from xmodel2.eval.agents.webshop import made_shop, webshop_benchmark


def play(benchmark: Benchmark, player: str, cases: Sequence[Case]) -> list[Episode]:
    episodes = []
    for case in cases:
        episode = Episode(benchmark, case)
        moves = benchmark.players[player](episode.environment, random.Random(case.id))
        while not episode.done:
            for text in benchmark.dialogue.tell(len(episode.steps) + 1, moves.move(episode.observation)):
                if not episode.done:
                    episode.take(text)
        episodes.append(episode)
    return episodes


def rate(episodes: Sequence[Episode]) -> float:
    return sum(episode.environment.scores()["success_rate"] for episode in episodes) / len(episodes)


@pytest.mark.parametrize("pages", ["react", "text", "text_rich"])
def test_baselines_prove_the_environment(pages: PageStyle) -> None:
    benchmark = webshop_benchmark(AgentOptions(pages=pages))
    cases = benchmark.cases if pages == "react" else benchmark.cases[:60]
    oracle = play(benchmark, "oracle", cases)
    assert rate(oracle) == 1.0
    assert all(step["valid"] for episode in oracle for step in episode.steps)
    assert rate(play(benchmark, "random", cases[:100])) <= 0.05
    assert 0.3 < rate(play(benchmark, "scripted", cases[:100])) < 0.8


def test_the_made_up_world_says_so() -> None:
    benchmark = webshop_benchmark(MADE_UP)
    assert benchmark.world.startswith("made-up catalogue, seed 0: 1,056 products, 500 made-up wishes; nouns by ")
    assert (benchmark.of, benchmark.metric, benchmark.step_limit, len(benchmark.cases)) == (
        None,
        "success_rate",
        14,
        500,
    )
    assert len({case.id for case in benchmark.cases}) == 500
    assert webshop_benchmark(AgentOptions(pages="text")).fingerprint != benchmark.fingerprint


def test_the_example_is_an_episode_of_the_oracle_with_a_wish_that_is_not_scored() -> None:
    benchmark = webshop_benchmark(MADE_UP)
    examples = benchmark.examples(benchmark.cases[0])
    (example,) = examples.trajectories
    assert examples.source == "the oracle in the made-up catalogue"
    assert example.startswith("Webshop \nInstruction:  \n")
    assert example.endswith("Your score (min 0.0, max 1.0): 1.0\n")
    assert example.count("Action: think[") == 3
    assert not any(case.task in example for case in benchmark.cases)


def test_a_prompt_of_react_is_used_where_somebody_has_put_it(tmp_path: Path) -> None:
    folder = tmp_path / "react-prompts"
    folder.mkdir()
    (folder / "webshop.jsonl").write_text('{"name": "react", "prompt": "Webshop \\nAction: click[Buy Now]\\n"}\n')
    benchmark = webshop_benchmark(AgentOptions(agents_dir=tmp_path))
    examples = benchmark.examples(benchmark.cases[0])
    assert (examples.source, examples.trajectories) == ("ReAct", ("Webshop \nAction: click[Buy Now]\n",))
    other = webshop_benchmark(AgentOptions(agents_dir=tmp_path, pages="text"))
    assert other.examples(other.cases[0]).source == "the oracle in the made-up catalogue"


def test_product_files_are_taken_where_they_are(tmp_path: Path) -> None:
    write_released(made_catalogue(), tmp_path / "webshop")
    benchmark = webshop_benchmark(AgentOptions(agents_dir=tmp_path))
    assert benchmark.world.startswith(
        "items_shuffle_1000.json: 1,056 products, 500 wishes, not those of the official test; nouns by "
    )
    assert [case.data for case in benchmark.cases] == made_shop().goals[:500]
    assert benchmark.of is None
    assert rate(play(benchmark, "oracle", benchmark.cases[:20])) == 1.0


def test_missing_product_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(XmodelError, match=r"items_shuffle_1000\.json: no such file.*eval fetch"):
        webshop_benchmark(AgentOptions(catalogue=tmp_path))
    write_released(made_catalogue(), tmp_path)
    (tmp_path / "items_human_ins.json").write_text("{}")
    with pytest.raises(XmodelError, match=r"items_human_ins\.json has no instruction"):
        webshop_benchmark(AgentOptions(catalogue=tmp_path))
