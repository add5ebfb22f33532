"""HotpotQA: which questions are asked, in which order and articles, and that its players do what they are for."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.eval.agents.few_articles import FewArticles, Unlisted
from tests.eval.agents.search_games import check_players, play
from xmodel2.errors import XmodelError
from xmodel2.eval.agents.environment import Benchmark
from xmodel2.eval.agents.hotpotqa import hotpotqa_benchmark
from xmodel2.eval.agents.options import MADE_UP, AgentOptions

SHARED = Path(__file__).parents[4] / "shared" / "data" / "agents"
PLAIN = [{"question": f"Where is thing {n}?", "answer": f"Place {n}", "type": "bridge"} for n in range(4)]
FACTS = [["Thing 2", 0], ["Place 2", 1], ["Place 2", 9]]
PARAGRAPHS = [
    ["Place 2", ["It is old.", " Place 2 is far."]],
    ["Thing 2", ["It is kept at a place."]],
    ["Else", ["No."]],
]
DISTRACTOR = {**PLAIN[2], "supporting_facts": FACTS, "context": PARAGRAPHS}
COLUMNS = {
    **PLAIN[2],
    "supporting_facts": {"title": [title for title, _ in FACTS], "sent_id": [at for _, at in FACTS]},
    "context": {"title": [title for title, _ in PARAGRAPHS], "sentences": [text for _, text in PARAGRAPHS]},
}


def write(folder: Path, files: dict[str, Any]) -> AgentOptions:
    (folder / "hotpotqa").mkdir(exist_ok=True)
    for name, rows in files.items():
        lines = "".join(f"{json.dumps(row)}\n" for row in rows) if ".jsonl" in name else json.dumps(rows)
        content = lines.encode()
        (folder / "hotpotqa" / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return AgentOptions(agents_dir=folder)


def test_players_of_the_made_up_questions() -> None:
    benchmark = hotpotqa_benchmark(MADE_UP)
    assert benchmark.of is None
    assert {case.part for case in benchmark.cases} == {"bridge", "comparison"}
    assert len({case.id for case in benchmark.cases}) == len(benchmark.cases) >= 200
    assert "made-up" in benchmark.world
    assert "seed 0" in benchmark.world
    check_players(benchmark, list(benchmark.cases[:80]))
    assert play(benchmark, "oracle", list(benchmark.cases)) == 1


def test_made_up_examples_are_six_and_are_not_scored() -> None:
    benchmark = hotpotqa_benchmark(MADE_UP)
    examples = benchmark.examples(benchmark.cases[0])
    assert len(examples.trajectories) == 6
    assert "oracle" in examples.source
    for trajectory in examples.trajectories:
        assert trajectory.endswith("Episode finished, reward = 1\n")
        assert trajectory.splitlines()[0] not in {case.task for case in benchmark.cases}
    assert benchmark.fingerprint == hotpotqa_benchmark(MADE_UP).fingerprint


@pytest.mark.parametrize(
    "files",
    [
        {"dev-simplified.jsonl.gz": PLAIN, "dev-distractor-subset.jsonl": [COLUMNS]},
        {"hotpot_dev_v1_simplified.json": PLAIN, "hotpot_dev_distractor_v1.json": [DISTRACTOR]},
    ],
)
def test_only_questions_whose_articles_are_there_are_asked(tmp_path: Path, files: dict[str, Any]) -> None:
    options = write(tmp_path, files)
    benchmark = hotpotqa_benchmark(options)
    (case,) = benchmark.cases
    assert (case.id, case.task, case.target, case.part) == ("2", "Question: Where is thing 2?", "Place 2", "bridge")
    assert [(hop.title, hop.sentence) for hop in case.data.hops] == [
        ("Thing 2", "It is kept at a place."),
        ("Place 2", "Place 2 is far."),
    ]
    assert benchmark.world.startswith(
        "HotpotQA dev, 1 of 7,405 questions (those whose articles are there); 3 articles of "
    )
    assert play(benchmark, "oracle", [case]) == 1
    every = hotpotqa_benchmark(AgentOptions(agents_dir=tmp_path, uncovered=True))
    assert [case.id for case in every.cases] == ["0", "1", "2", "3"]
    assert "1 of them known to have their articles" in every.world
    assert play(every, "oracle", list(every.cases)) == 1


def test_the_whole_set_is_in_the_order_of_reacts_notebook(tmp_path: Path) -> None:
    rows = [{"question": f"Where is thing {n}?", "answer": "here", "type": "bridge"} for n in range(7405)]
    write(tmp_path, {"dev-simplified.jsonl": rows})
    benchmark = hotpotqa_benchmark(
        AgentOptions(agents_dir=tmp_path, uncovered=True), FewArticles({"Thing": "It is here."})
    )
    # As the output of its FEVER notebook tells, whose numbers are shuffled in the same way.
    assert [case.id for case in benchmark.cases[:5]] == ["3687", "6238", "5388", "3522", "3824"]
    assert benchmark.of == len(benchmark.cases) == 7405


def test_questions_of_another_file_are_in_their_own_order(tmp_path: Path) -> None:
    rows = [
        {"question": f"Where is thing {n}?", "answer": "here", "type": "bridge", "supporting_facts": [], "context": []}
        for n in range(7405)
    ]
    write(tmp_path, {"hotpot_dev_distractor_v1.json": rows})
    benchmark = hotpotqa_benchmark(AgentOptions(agents_dir=tmp_path, uncovered=True), FewArticles({"A": "It is."}))
    assert [case.id for case in benchmark.cases[:3]] == ["0", "1", "2"]


def test_articles_whose_titles_are_not_known_are_asked_every_question(tmp_path: Path) -> None:
    write(tmp_path, {"dev-simplified.jsonl": PLAIN, "dev-distractor.jsonl": [DISTRACTOR]})
    benchmark = hotpotqa_benchmark(AgentOptions(agents_dir=tmp_path), Unlisted({"Thing 2": "x", "Place 2": "y"}))
    assert benchmark.world == "HotpotQA dev, 4 of 7,405 questions (coverage not checked); few articles"
    assert play(benchmark, "oracle", list(benchmark.cases)) == 1


def test_reacts_prompt_stands_before_a_real_question_as_it_is(tmp_path: Path) -> None:
    options = write(tmp_path, {"dev-distractor.jsonl": [DISTRACTOR]})
    prompt = "\nQuestion: A?\nThought 1: t\nAction 1: Finish[a]\nQuestion: B?\nThought 1: t\nAction 1: Finish[b]\n"
    (tmp_path / "react-prompts").mkdir()
    file = tmp_path / "react-prompts" / "prompts_naive.jsonl"
    file.write_text(json.dumps({"name": "webthink_simple6", "prompt": prompt}))
    benchmark = hotpotqa_benchmark(options)
    examples = benchmark.examples(benchmark.cases[0])
    assert len(examples.trajectories) == 2
    assert "".join((examples.instruction, *examples.trajectories)).endswith(prompt)
    assert examples.source == "ReAct, with an instruction of ours"
    file.write_text(json.dumps({"name": "webthink_simple6", "prompt": "nothing"}))
    with pytest.raises(XmodelError, match="webthink_simple6"):
        hotpotqa_benchmark(options)


def _without(field: str) -> dict[str, Any]:
    return {name: value for name, value in DISTRACTOR.items() if name != field}


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({}, r"dev-simplified.jsonl.gz: no such file; `xmodel2 eval fetch"),
        ({"dev-simplified.jsonl": PLAIN}, r"no articles to search.*eval fetch"),
        (
            {"dev-distractor.jsonl": [DISTRACTOR, _without("answer")]},
            r"dev-distractor.jsonl, line 2: field 'answer'",
        ),
        ({"dev-distractor.jsonl": [_without("supporting_facts")]}, r"line 1: field 'supporting_facts'"),
        ({"dev-distractor.jsonl": [{**DISTRACTOR, "supporting_facts": [["A", "x"]]}]}, r"line 1: .*'sent_id' numbers"),
        ({"dev-distractor.jsonl": [{**DISTRACTOR, "context": [["Thing 2", 5]]}]}, r"line 1: 'sentences' must be lists"),
        ({"dev-distractor.jsonl": [{**DISTRACTOR, "context": {"title": None}}]}, r"line 1: field 'context'"),
        (
            {"dev-distractor.jsonl": [{**DISTRACTOR, "supporting_facts": [["Gone", 0]]}]},
            r"no question has its articles.*--uncovered",
        ),
        ({"hotpot_dev_distractor_v1.json": {"a": 1}}, r"hotpot_dev_distractor_v1.json, line 1: field 'question'"),
        ({"hotpot_dev_distractor_v1.json": [DISTRACTOR, 5]}, r"v1.json, entry 2: not a JSON object"),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, files: dict[str, Any], told: str) -> None:
    with pytest.raises(XmodelError, match=told):
        hotpotqa_benchmark(write(tmp_path, files))


def test_articles_without_questions_are_told(tmp_path: Path) -> None:
    with pytest.raises(XmodelError, match="made-up questions"):
        hotpotqa_benchmark(AgentOptions(articles="store.sqlite"))


@pytest.fixture
def real() -> Callable[[], Benchmark] | None:
    options = AgentOptions(agents_dir=SHARED)
    return (lambda: hotpotqa_benchmark(options)) if SHARED.is_dir() else None


def test_players_of_the_real_questions(real: Callable[[], Benchmark] | None) -> None:
    if real is None:  # the tests above play made-up ones
        return
    benchmark = real()
    assert len(benchmark.cases) == 100
    assert benchmark.examples(benchmark.cases[0]).source == "ReAct, with an instruction of ours"
    assert len(benchmark.examples(benchmark.cases[0]).trajectories) == 6
    check_players(benchmark, list(benchmark.cases))
