"""The benchmark: who plays it how well, what stands before a task, and which catalogue it is."""

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from xmodel2.errors import XmodelError
from xmodel2.eval.agents import product_search, webshop
from xmodel2.eval.agents.baselines import Baseline
from xmodel2.eval.agents.environment import Benchmark, Case
from xmodel2.eval.agents.episode import Episode
from xmodel2.eval.agents.made_products import made_catalogue, write_released
from xmodel2.eval.agents.options import MADE_UP, AgentOptions, PageStyle
from xmodel2.eval.agents.shop_environment import ShopEnvironment
from xmodel2.eval.agents.shop_players import random_shopper, scripted
from xmodel2.eval.agents.webshop import made_shop, webshop_benchmark
from xmodel2.eval.evaluation import evaluate
from xmodel2.eval.result_page import write_result_page
from xmodel2.output import print_evaluation


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of agent data with product files in the authors' layout."""
    folder = tmp_path_factory.mktemp("agents")
    write_released(made_catalogue(), folder / "webshop")
    return folder


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
    cases = benchmark.cases[::10]
    oracle = play(benchmark, "oracle", cases)
    assert rate(oracle) == 1.0
    assert all(step["valid"] for episode in oracle for step in episode.steps)
    assert rate(play(benchmark, "random", cases)) <= 0.05
    assert 0.3 < rate(play(benchmark, "scripted", cases)) < 0.8


def test_the_made_up_world_says_so() -> None:
    benchmark = webshop_benchmark(MADE_UP)
    assert benchmark.world.startswith("made-up catalogue, seed 0: 1,056 products, 500 made-up wishes; nouns by ")
    assert (benchmark.of, benchmark.metric, benchmark.step_limit, len(benchmark.cases)) == (
        None,
        "success_rate",
        14,
        500,
    )
    assert benchmark.made_up
    assert len({case.id for case in benchmark.cases}) == 500


def test_whatever_changes_scores_changes_the_fingerprint(
    tmp_path: Path, released: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "react-prompts").mkdir()
    (tmp_path / "react-prompts/webshop.jsonl").write_text('{"name": "react", "prompt": "Webshop \\n"}\n')
    options = [MADE_UP, AgentOptions(pages="text"), AgentOptions(agents_dir=tmp_path)]
    seen = [webshop_benchmark(one).fingerprint for one in options]
    seen.append(webshop_benchmark(AgentOptions(agents_dir=released)).fingerprint)
    shop = made_shop()
    with monkeypatch.context() as patch:
        other = replace(shop, goals=[replace(shop.goals[0], price_upper=1.0), *shop.goals[1:]])
        patch.setattr(webshop, "made_shop", lambda: other)
        seen.append(webshop_benchmark(MADE_UP).fingerprint)
        other = replace(shop, nouns=webshop.Nouns("another tagger", lambda: str.split))
        seen.append(webshop_benchmark(MADE_UP).fingerprint)
    monkeypatch.setattr(webshop, "STEP_LIMIT", 13)
    seen.append(webshop_benchmark(MADE_UP).fingerprint)
    assert len(set(seen)) == len(seen)


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


def test_product_files_are_taken_where_they_are(released: Path) -> None:
    benchmark = webshop_benchmark(AgentOptions(agents_dir=released))
    assert benchmark.world.startswith(
        "items_shuffle_1000.json: 1,056 products, 500 wishes, not those of the official test; nouns by "
    )
    assert [case.data for case in benchmark.cases] == made_shop().goals[:500]
    assert (benchmark.of, benchmark.made_up) == (None, False)
    assert rate(play(benchmark, "oracle", benchmark.cases[:20])) == 1.0


def test_missing_product_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(XmodelError, match=r"items_shuffle_1000\.json: no such file.*eval fetch"):
        webshop_benchmark(AgentOptions(catalogue=tmp_path))
    write_released(made_catalogue(), tmp_path)
    (tmp_path / "items_human_ins.json").write_text("{}")
    with pytest.raises(XmodelError, match=r"items_human_ins\.json has no instruction"):
        webshop_benchmark(AgentOptions(catalogue=tmp_path))


def test_scores_of_product_files_are_not_called_made_up(
    tmp_path: Path, released: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = evaluate(
        Baseline("oracle"), ["webshop"], tmp_path, None, limit=2, agents=AgentOptions(agents_dir=released)
    )
    assert (results["tasks"]["webshop"]["made_up"], results["tasks"]["webshop"]["of"]) == (False, None)
    print_evaluation(results, tmp_path)
    page = write_result_page(tmp_path).read_text(encoding="utf-8")
    for shown in (page, (tmp_path / "results.md").read_text(encoding="utf-8"), capsys.readouterr().out):
        assert "items_shuffle_1000.json: 1,056 products" in shown.replace("\\", "")
        assert "ade up" not in shown
        assert "made-up tasks" not in shown


def test_the_index_of_a_large_catalogue_is_kept_for_the_next_run(
    tmp_path: Path, released: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = AgentOptions(agents_dir=released)
    made_shop()
    monkeypatch.setattr(product_search, "SMALL", 100)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = webshop_benchmark(options)
    assert [file.suffix for file in (tmp_path / "xmodel2/products").iterdir()] == [".npz"]
    with monkeypatch.context() as without:
        without.setattr(product_search, "searched_text", lambda _: pytest.fail("the index is there"))
        assert rate(play(webshop_benchmark(options), "oracle", first.cases[:3])) == 1.0
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))  # nothing can be written below it
    assert rate(play(webshop_benchmark(options), "oracle", first.cases[:3])) == 1.0


@pytest.mark.parametrize("pages", ["react", "text", "text_rich"])
@pytest.mark.parametrize(
    "wish", ["", " ", "[]", "Instruction:", "a\nb", "x, and price lower than 1.2.3 dollars", "$5 off [SEP]", "?!"]
)
def test_players_go_on_whatever_the_pages_say(pages: PageStyle, wish: str) -> None:
    products = [replace(made_catalogue().products[0], asin="B000000001", title="LAMP\n$5 off", options={})]
    goal = replace(made_shop().goals[0], instruction=wish)
    for player in (random_shopper, scripted):
        for found in (products, []):
            shop = ShopEnvironment(goal, found, lambda query, found=found: range(len(found)), lambda *_: 0.5, pages)
            moves, observation = player(shop, random.Random(1)), shop.reset()
            for _ in range(20):
                observation = shop.step(moves.move(observation).action).observation
    assert moves.move("").action
    assert scripted(shop, random.Random(1)).move("").action
