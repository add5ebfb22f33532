"""Table 4: no score of an agent without its world, none of a made-up one as if it were the report's, and every ending."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from xmodel2.eval.agent_tables import endings, origin, outcome_table, played, world_in_short
from xmodel2.eval.paper import PAPER, table_tasks
from xmodel2.eval.result_files import read_results
from xmodel2.eval.result_page import markdown_tables, result_sections, write_result_page
from xmodel2.eval.result_tables import suite_table

Evaluation = Callable[..., Path]
Episodes = Callable[..., list[dict[str, Any]]]

MADE_UP = "made-up encyclopedia, seed 0: 400 articles, 200 questions"
REAL = (
    "HotpotQA dev, 100 of 7,405 questions (those whose articles are there); 991 articles of a/dev-distractor.jsonl.gz"
)


def entry(**changes: Any) -> dict[str, Any]:
    found = {"metric": "exact_match", "score": 0.5, "interval": [0.3, 0.7], "items": 20, "of": None, "version": None}
    found |= {"metrics": {"exact_match": 0.5, "f1": 0.6}, "world": MADE_UP, "made_up": True, "examples": "the oracle"}
    return {**found, "outcomes": {"solved": 10, "wrong": 7, "out of steps": 3}, "mean_steps": 4.25, **changes}


def results(tasks: dict[str, Any], limit: int | None = None) -> dict[str, Any]:
    model = {"name": "runs/nano", "backend": "transformers", "fingerprint": "0123", "parameters": 12_000_000}
    return {"model": model, "settings": {"limit": limit, "seed": 0}, "tasks": tasks, "suites": {}, "xmodel2": "0"}


def real(**changes: Any) -> dict[str, Any]:
    return entry(**{"items": 100, "of": 7405, "world": REAL, "made_up": False, "examples": "ReAct", **changes})


def test_every_score_has_its_world_beside_it() -> None:
    found = suite_table(results({"hotpotqa": real(), "fever": entry()}, limit=100), "agents")
    assert found is not None
    # What part of the set it is, is said once.
    assert found.ours["hotpotqa"].notes == ("HotpotQA dev, 100 of 7,405 questions; 991 articles of …",)
    assert found.ours["fever"].notes == ("20 items (--limit)", MADE_UP)
    assert found.ours["alfworld"].text == "not run"
    assert found.made_up == ["FEVER"]
    assert found.average.notes == ("2 of 4 tasks", "over made-up tasks")
    less = suite_table(results({"hotpotqa": real(items=20)}, limit=20), "agents")
    assert less is not None
    assert less.ours["hotpotqa"].notes[0] == "20 of 7,405 items (--limit)"
    assert less.average.notes == ("1 of 4 tasks", "over marked tasks")


def test_the_table_has_the_reports_rows_and_says_what_ours_is_not() -> None:
    tasks = dict.fromkeys(table_tasks(4), real()) | {"webshop": entry(world="1,000 products", metric="success_rate")}
    markdown = markdown_tables(results(tasks))
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    rows = [[cell.strip(" *†") for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    assert rows[0] == ["model", "HotpotQA", "FEVER", "AlfWorld", "WebShop", "Avg"]
    assert "made up: 1,000 products" in rows[2][4]
    paper = [row for row in PAPER if row.table == 4]
    assert len(paper) == 14
    assert [row[0] for row in rows[3:17]] == [row.model for row in paper]
    page = result_sections(results(tasks))
    for text in (markdown, page):
        assert "Made up: WebShop. None of these tasks is an official one" in text
        assert "991 articles of a/dev-distractor.jsonl.gz; examples by ReAct" in text
        assert "Not what the report measured: " not in text
    assert "fill: #ffffff; stroke: #d9822b" in page  # hollow in the figure, though three are of real sets
    assert "average of 4 agent tasks, %" in page
    assert "Not evaluated: Commonsense (Table 2), Complex reasoning (Table 3)." in page
    assert "None" not in page.replace("None of these", "")


def test_a_comparable_average_of_made_up_tasks_is_marked_too() -> None:
    page = result_sections(results({"fever": entry()}))
    assert '<td class="other">50.00<small>over made-up tasks</small></td>' in page


def test_a_player_without_parameters_is_a_line_in_the_figure() -> None:
    found = results({"fever": entry()})
    found["model"] |= {"name": "oracle", "backend": "baseline", "parameters": None}
    page = result_sections(found)
    assert "oracle, size unknown" in page
    assert "oracle as an orange line, for it has no known size; not what the report measured." in page


def test_endings_are_counted_and_lead_to_the_episodes(evaluation: Evaluation, episodes: Episodes) -> None:
    items = episodes(["solved", "wrong", "out of steps", "out of steps"])
    folder = evaluation("run", {"hotpotqa": items, "fever": episodes(["repeats itself"])})
    tasks = played(read_results(folder))
    head, rows = outcome_table(tasks)
    assert head == ["task", "episodes", "solved", "wrong", "out of steps", "repeats itself", "mean steps"]
    assert rows == [["HotpotQA", "4", "1", "1", "2", "0", "2.0"], ["FEVER", "1", "0", "0", "0", "1", "2.0"]]
    page = write_result_page(folder).read_text(encoding="utf-8")
    assert '<td><a href="items.html#task=hotpotqa&amp;outcome=out+of+steps">2</a></td>' in page
    assert "<td>0</td>" in page
    assert endings(tasks["fever"]) == "1 repeats itself; 2.0 steps on average"


@pytest.mark.parametrize("text", ["<b>|x", "\x1b[2J", "\u202eolleh", "a\x00b", "\ud800"])
def test_hostile_names_are_harmless_in_tables(text: str, evaluation: Evaluation, episodes: Episodes) -> None:
    tasks = {"fever": entry(world=text, examples=text, parts={text: {"score": 0.5, "items": 20}})}
    folder = evaluation("run", {"fever": episodes(["solved"])}, tasks=tasks)
    page = write_result_page(folder).read_text(encoding="utf-8")
    markdown = (folder / "results.md").read_text(encoding="utf-8")
    assert text not in page
    assert text not in markdown
    assert text not in origin(tasks["fever"]) or text.isprintable()


def test_a_long_world_is_short_beside_a_number() -> None:
    assert len(world_in_short({"world": "word " * 100})) <= 70
    assert world_in_short({"metric": "acc"}) == ""
    assert world_in_short(entry(), 40) == "made-up encyclopedia, seed 0: 400 …"
