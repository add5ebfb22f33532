"""The report's tables are complete, equal to the transcription they come from, and their averages are checked."""

import json
from pathlib import Path

import pytest

from xmodel2.errors import XmodelError
from xmodel2.eval.paper import COLUMNS, PAPER, SUITES, XMODEL2, paper_row, scores_of, table_tasks

TRANSCRIPTION = Path(__file__).parents[3] / "shared" / "paper-tables.json"
OTHER_SPELLINGS = {"Phi-1.5 1.3B": "Phi-1.5-1.3B", "OpenELM-1-1B": "OpenELM-1.1B"}


@pytest.mark.parametrize(("table", "rows", "tasks"), [(2, 15, 8), (3, 15, 6), (4, 14, 4)])
def test_tables_are_complete_and_in_order(table: int, rows: int, tasks: int) -> None:
    found = [row for row in PAPER if row.table == table]
    assert len(found) == rows == len({row.model for row in found})
    assert all(tuple(row.scores) == table_tasks(table) and len(row.scores) == tasks for row in found)
    assert all(0 <= score <= 100 for row in found for score in row.scores.values())
    rivals = [row.average for row in found if row.model != XMODEL2]
    assert rivals == sorted(rivals)
    assert found[-1].model == XMODEL2
    assert found[0].source == f"arXiv 2412.19638, Table {table}"


def test_one_name_a_model() -> None:
    models = {table: {row.model for row in PAPER if row.table == table} for table in SUITES.values()}
    assert models[2] == models[3]
    assert models[2] - models[4] == {"Qwen2-1.5B"}
    assert models[4] < models[2]


def test_averages_that_do_not_follow_from_their_row() -> None:
    differing = {(row.table, row.model): round(row.average_as_computed, 2) for row in PAPER if row.average_differs}
    assert differing == {(4, "OLMo-1B"): 5.31, (4, "MiniCPM-1.2B"): 12.54, (4, XMODEL2): 14.17}
    assert paper_row(4, "OLMo-1B").average == 4.32  # printed figures stay


def test_the_reports_own_rows() -> None:
    assert paper_row(2, XMODEL2).average == 61.79
    assert paper_row(3, XMODEL2).scores["gsm8k"] == 55.88
    assert scores_of("humaneval")["Qwen2.5-1.5B"] == 5.49
    assert list(scores_of("webshop"))[-1] == XMODEL2


def test_settings_of_the_columns() -> None:
    assert {column.metric for column in COLUMNS.values() if column.table == 2} == {"acc"}
    fewshot = {task: COLUMNS[task].num_fewshot for task in table_tasks(3)}
    assert fewshot == {"gsm8k": 5, "math": 4, "bbh": 3, "mmlu": 0, "humaneval": None, "mbpp": None}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: paper_row(2, "OLMo-1"), "Did you mean 'OLMo-1B'"),
        (lambda: paper_row(4, "Qwen2-1.5B"), "Table 4 of the report has no row 'Qwen2-1.5B'"),
        (lambda: scores_of("arc_eazy"), "Did you mean 'arc_easy'"),
    ],
)
def test_what_is_not_there_is_named(call, message: str) -> None:
    with pytest.raises(XmodelError, match=message):
        call()


def test_equal_to_the_transcription() -> None:
    """Cell by cell, where the transcription lies beside the repository."""
    if not TRANSCRIPTION.is_file():
        return
    tables = json.loads(TRANSCRIPTION.read_text(encoding="utf-8"))
    for table, key in ((2, "table2_commonsense"), (3, "table3_reasoning"), (4, "table4_agents")):
        rows = {OTHER_SPELLINGS.get(name, name): row for name, row in tables[key]["rows"].items()}
        for model, row in rows.items():
            ours = paper_row(table, model)
            assert [*ours.scores.values(), ours.average] == [row[column] for column in tables[key]["columns"]]
        assert list(rows) == [row.model for row in PAPER if row.table == table]
