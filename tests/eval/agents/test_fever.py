"""FEVER: which claims the articles can judge, and that its players do what they are for."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.eval.agents.few_articles import FewArticles, Unlisted
from tests.eval.agents.search_games import check_players, play
from xmodel2.errors import XmodelError
from xmodel2.eval.agents.fever import LABELS, fever_benchmark
from xmodel2.eval.agents.options import MADE_UP, AgentOptions

SHARED = Path(__file__).parents[4] / "shared" / "data" / "agents"
NAMES = ("Soul Food (film)", "Vell", "Ostby", "Beyoncé", "Åland", "Orm: the river")
ARTICLES = FewArticles({name: f"{name} is there." for name in NAMES})
SUPPORTED = {
    "claim": "Soul Food is a film.",
    "label": "SUPPORTS",
    "evidence": [
        [[1, 2, "Gone", 0]],
        [[1, 2, "Vell", 0], [1, 3, "Ostby", 1], [1, 3, "Ostby", 4]],
        [[1, 4, "Soul_Food_-LRB-film-RRB-", 0]],
    ],
}
REFUTED = {
    "claim": "The Orm is a hill.",
    "label": "REFUTES",
    "evidence": [[[1, 2, "Orm-COLON-_the_river", 0], [1, 2, "Vell", 0]]],
}
BEYOND = {"claim": "Nothing.", "label": "REFUTES", "evidence": [[[1, 2, "Vell", 0], [1, 2, "Gone", 0]]]}
UNKNOWN = {"claim": "Ostby is pink.", "label": "NOT ENOUGH INFO", "evidence": [[[1, None, None, None]]]}
NAMELESS = {**UNKNOWN, "claim": "Elsewhere is pink."}
LONGER_NAME = {**UNKNOWN, "claim": "The New Ostby is pink, and so is Vell Street."}
ROWS = [BEYOND, SUPPORTED, NAMELESS, REFUTED, UNKNOWN, LONGER_NAME]


def write(folder: Path, rows: list[Any]) -> AgentOptions:
    (folder / "fever").mkdir(exist_ok=True)
    (folder / "fever" / "paper-dev.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return AgentOptions(agents_dir=folder)


def test_players_of_the_made_up_claims() -> None:
    benchmark = fever_benchmark(MADE_UP)
    assert benchmark.of is None
    assert {case.part for case in benchmark.cases} == set(LABELS)
    assert len({case.id for case in benchmark.cases}) == len(benchmark.cases) >= 200
    assert "made-up" in benchmark.world
    check_players(benchmark, list(benchmark.cases[:90]))
    assert play(benchmark, "oracle", list(benchmark.cases)) == 1


def test_made_up_examples_have_each_label_once_and_are_not_scored() -> None:
    benchmark = fever_benchmark(MADE_UP)
    trajectories = benchmark.examples(benchmark.cases[0]).trajectories
    assert {label for label in LABELS for text in trajectories if f"Finish[{label}]" in text} == set(LABELS)
    assert len(trajectories) == 3
    assert not {case.task for case in benchmark.cases} & {text.splitlines()[0] for text in trajectories}


def test_claims_are_asked_whose_evidence_is_there(tmp_path: Path) -> None:
    benchmark = fever_benchmark(write(tmp_path, ROWS), ARTICLES)
    told = [(case.id, case.target, [hop.title for hop in case.data.hops]) for case in benchmark.cases]
    assert told == [
        ("1", "SUPPORTS", ["Soul Food (film)"]),
        ("3", "REFUTES", ["Orm: the river", "Vell"]),
        ("4", "NOT ENOUGH INFO", ["Ostby"]),
    ]
    assert benchmark.world == (
        "FEVER paper_dev, 3 of 9,999 claims (those whose evidence is there: SUPPORTS 1 of 3,333, REFUTES 1 of 3,333, NOT"
        " ENOUGH INFO 1 of 3,333); few articles"
    )
    assert benchmark.step_limit == 5
    assert play(benchmark, "oracle", list(benchmark.cases)) == 1


def test_every_claim_is_asked_on_demand(tmp_path: Path) -> None:
    write(tmp_path, ROWS)
    benchmark = fever_benchmark(AgentOptions(agents_dir=tmp_path, uncovered=True), ARTICLES)
    assert [case.id for case in benchmark.cases] == ["0", "1", "2", "3", "4", "5"]
    assert "6 of 9,999 claims (evidence is there for SUPPORTS 1 of 3,333" in benchmark.world
    assert play(benchmark, "oracle", list(benchmark.cases)) == 1


def test_articles_whose_titles_are_not_known_are_asked_every_claim(tmp_path: Path) -> None:
    benchmark = fever_benchmark(write(tmp_path, ROWS), Unlisted(dict.fromkeys((*NAMES, "Gone"), "x")))
    assert benchmark.world == "FEVER paper_dev, 6 of 9,999 claims (coverage not checked); few articles"
    assert [[hop.title for hop in case.data.hops] for case in benchmark.cases[:3]] == [["Vell", "Gone"], ["Gone"], []]
    assert play(benchmark, "oracle", list(benchmark.cases)) == 1


@pytest.mark.parametrize(
    ("claim", "there"),
    [
        ("Ostby is pink.", True),
        ("The Ostby is pink.", True),
        ("New Ostby is pink.", False),
        ("New Ostby is not Ostby.", True),
        ("The Ostbyer is in  New_Ostby and at Ostby", True),
        ("Ostbyers went to New Ostby.", False),
    ],
)
def test_a_name_is_looked_for_at_every_place(tmp_path: Path, claim: str, there: bool) -> None:
    options = write(tmp_path, [SUPPORTED, {**UNKNOWN, "claim": claim}])
    assert len(fever_benchmark(options, ARTICLES).cases) == 1 + there


def test_the_oracle_needs_no_more_than_five_steps(tmp_path: Path) -> None:
    many = {"claim": "All are there.", "label": "SUPPORTS", "evidence": [[[1, 2, name, 0] for name in NAMES]]}
    benchmark = fever_benchmark(write(tmp_path, [many]), ARTICLES)
    assert play(benchmark, "oracle", list(benchmark.cases)) == 1


def test_the_whole_set_is_in_the_order_of_reacts_notebook(tmp_path: Path) -> None:
    benchmark = fever_benchmark(write(tmp_path, [UNKNOWN] * 9999), ARTICLES)
    # As its output tells; it draws from the first 7,405 claims only.
    assert [case.id for case in benchmark.cases[:5]] == ["3687", "6238", "5388", "3522", "3824"]
    assert [case.id for case in benchmark.cases[7405:7407]] == ["7405", "7406"]


def test_reacts_prompt_brings_its_instruction(tmp_path: Path) -> None:
    options = write(tmp_path, ROWS)
    prompt = "\nTell what it is. \nClaim: A.\nThought 1: t\nAction 1: Finish[REFUTES]\n\nClaim: B.\nThought 1: t\n\n"
    (tmp_path / "react-prompts").mkdir()
    (tmp_path / "react-prompts" / "fever.jsonl").write_text(json.dumps({"name": "webthink_simple3", "prompt": prompt}))
    benchmark = fever_benchmark(options, ARTICLES)
    examples = benchmark.examples(benchmark.cases[0])
    assert (len(examples.trajectories), examples.source) == (2, "ReAct")
    assert "".join((examples.instruction, *examples.trajectories)) == prompt


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([UNKNOWN, {**SUPPORTED, "claim": 3}], "claim 2: field 'claim'"),
        ([{**SUPPORTED, "label": "MAYBE"}], "claim 1: field 'label' must be SUPPORTS, REFUTES or NOT ENOUGH INFO"),
        ([{**SUPPORTED, "evidence": [[[1, 2, None, None]]]}], "claim 1: field 'evidence'"),
        ([{**SUPPORTED, "evidence": "Vell"}], "claim 1: field 'evidence'"),
        ([{**SUPPORTED, "evidence": []}], "claim 1: field 'evidence'"),
        ([BEYOND, NAMELESS], "no claim has its evidence among the few articles.*--uncovered"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, rows: list[Any], told: str) -> None:
    with pytest.raises(XmodelError, match=told):
        fever_benchmark(write(tmp_path, rows), ARTICLES)


def test_missing_claims_and_articles_are_named(tmp_path: Path) -> None:
    with pytest.raises(XmodelError, match=r"paper-dev.jsonl.gz: no such file; `xmodel2 eval fetch"):
        fever_benchmark(AgentOptions(agents_dir=tmp_path))
    with pytest.raises(XmodelError, match="no articles to search"):
        fever_benchmark(write(tmp_path, ROWS))


def test_players_of_the_real_claims() -> None:
    if not SHARED.is_dir():  # the tests above play made-up ones
        return
    benchmark = fever_benchmark(AgentOptions(agents_dir=SHARED))
    assert all(f"{label} " in benchmark.world for label in LABELS)
    assert benchmark.examples(benchmark.cases[0]).source == "ReAct"
    check_players(benchmark, list(benchmark.cases))
