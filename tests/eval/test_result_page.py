"""results.html and results.md: the report's rows as printed, ours with intervals, and every difference said in words."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from xmodel2.errors import XmodelError
from xmodel2.eval.paper import PAPER, table_tasks
from xmodel2.eval.result_page import markdown_tables, result_sections, write_result_page
from xmodel2.eval.result_tables import suite_table

Evaluation = Callable[..., Path]
Items = Callable[..., list[dict[str, Any]]]


def task(score: float, items: int = 500, **changes: Any) -> dict[str, Any]:
    entry = {"metric": "acc", "score": score, "interval": [score - 0.02, score + 0.02], "items": items, "of": 500}
    return {**entry, "num_fewshot": 0, "version": 1.0, "metrics": {"acc": score}, **changes}


def results(tasks: dict[str, Any], limit: int | None = None, name: str = "runs/nano") -> dict[str, Any]:
    model = {"name": name, "backend": "transformers", "fingerprint": "0123", "parameters": 12_000_000}
    settings = {"limit": limit, "seed": 0, "data": None}
    return {"model": model, "settings": settings, "tasks": tasks, "suites": {}, "xmodel2": "0", "lm_eval": "0"}


WHOLE = {name: task(0.4) for name in table_tasks(2)}


def rows_of(markdown: str) -> list[list[str]]:
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def test_the_reports_rows_are_as_printed_with_ours_on_top() -> None:
    rows = rows_of(markdown_tables(results(WHOLE)))
    assert rows[0] == ["model", "ARC-c", "ARC-e", "Boolq", "HS.", "OB.", "PiQA", "SciQ", "Wino.", "Avg"]
    assert rows[2] == ["**runs/nano**", *["**40.00**<br>38.0 to 42.0"] * 8, "**40.00**<br>39.3 to 40.7"]
    paper = [row for row in PAPER if row.table == 2]
    assert len(paper) == 15
    for shown, row in zip(rows[3:18], paper, strict=True):
        assert shown[0].strip("*") == row.model
        assert [float(cell.strip("†")) for cell in shown[1:]] == [*row.scores.values(), row.average]
        assert shown[-1].endswith("†") == row.average_differs
    page = result_sections(results(WHOLE))
    assert 'role="note"' not in page
    assert "<p>Not evaluated: Complex reasoning (Table 3), Agents (Table 4).</p>" in page


def test_what_the_report_did_not_measure_is_marked() -> None:
    tasks = {
        "arc_easy": task(0.4, items=100),
        "piqa": task(0.7, metric="acc_norm"),
        "gsm8k": task(0.1, items=100, of=100, num_fewshot=8, metric="exact_match"),
        "boolq": task(0.6, items=100, of=None),
    }
    found = results(tasks, limit=100)
    table = suite_table(found, "commonsense")
    assert table is not None
    assert table.ours["arc_easy"].notes == ("100 of 500 items (--limit)",)
    assert table.ours["piqa"].notes == ("acc_norm, the report: acc",)
    assert table.ours["boolq"].notes == ("100 items (--limit)",)
    assert table.ours["sciq"].text == "not run"
    assert table.average.notes == ("3 of 8 tasks", "over marked tasks")
    page = result_sections(found)
    assert "GSM8K: 8-shot, the report: 5-shot" in page
    assert "Not run: ARC-c, HS., OB., SciQ, Wino." in page
    assert "fill: #ffffff; stroke: #d9822b" in page  # hollow in Figure 1


def test_an_average_over_part_stands_beside_the_reports_over_the_same_part() -> None:
    tasks = {name: task(0.4) for name in ("arc_easy", "piqa")}
    rows = rows_of(markdown_tables(results(tasks)))
    assert rows[0][-2:] == ["Avg", "Avg of the 2"]
    mobillama = next(row for row in rows if row[0] == "MobiLlama-1B")
    assert mobillama[-2:] == ["55.23", f"{(61.53 + 75.14) / 2:.2f}"]
    assert "average of 2 of 8 commonsense tasks, %" in result_sections(results(tasks))


def test_other_tasks_have_a_table_and_perplexities_are_no_percent() -> None:
    wikitext = task(31.27, 62, of=62, metric="word_perplexity", interval=[30.1, 32.6])
    page = result_sections(results({"wikitext": wikitext}))
    assert "Not in the report's tables." in page.replace("&#x27;", "'")
    assert "<td>31.27</td><td>30.1 to 32.6</td><td>62, the whole set</td>" in page


def test_the_page_links_to_the_items_and_escapes_names(evaluation: Evaluation, option_items: Items) -> None:
    folder = evaluation("run", {"arc_easy": option_items("AB", "AA")})
    written = json.loads((folder / "results.json").read_text())
    written["model"]["name"] = "<b>|a model"
    (folder / "results.json").write_text(json.dumps(written))
    page = write_result_page(folder).read_text(encoding="utf-8")
    assert 'href="items.html#task=arc_easy"' in page
    assert "<b>|a" not in page
    assert "&lt;b&gt;|a model" in page
    assert "<script" not in page
    assert "\\<b\\>\\|a model" in (folder / "results.md").read_text(encoding="utf-8")
    with pytest.raises(XmodelError, match=r"no results\.json"):
        write_result_page(folder.parent / "nothing")
    (folder / "results.json").write_text('{"heldout": {}}')
    with pytest.raises(XmodelError, match=r"has no 'model'"):
        write_result_page(folder)


def test_parts_are_listed() -> None:
    parts = {"algebra": {"score": 0.25, "items": 4}, "physics": {"score": None, "items": 0}}
    page = result_sections(results({"mmlu": task(0.25, 4, of=14042, parts=parts)}, limit=4))
    assert "mmlu: 2 parts" in page
    assert "<tr><td>algebra</td><td>25.00</td><td>4</td></tr>" in page
