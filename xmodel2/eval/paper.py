"""The report's Tables 2, 3 and 4 as data: what every result of ours is shown beside.

Source: arXiv 2412.19638, Tables 2 (commonsense), 3 (complex reasoning) and 4 (agents). Scores are percent, averages are
those printed; ``average_differs`` marks the rows whose printed average is not the mean of their scores.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from xmodel2.errors import XmodelError, nearest

XMODEL2 = "Xmodel-2-1.2B"


@dataclass(frozen=True)
class Column:
    """A benchmark as the report measured it."""

    task: str
    title: str
    """Head of the column in the report."""
    table: int
    metric: str
    """The harness's name where it has one; its plain ``acc`` (not ``acc_norm``) reproduces Table 2's published rivals."""
    num_fewshot: int | None
    """None where the report names no number of examples."""
    harness: str | None
    """Definition in lm-evaluation-harness; None for the agents, which it lacks."""


@dataclass(frozen=True)
class PaperRow:
    """One model in one table."""

    model: str
    """As Tables 2 and 3 spell it; Table 4's other spellings are folded into these."""
    table: int
    scores: Mapping[str, float]
    """Percent by task, in the order of the columns."""
    average: float
    """As printed, percent."""

    @property
    def average_as_computed(self) -> float:
        """Mean of the scores, percent."""
        return sum(self.scores.values()) / len(self.scores)

    @property
    def average_differs(self) -> bool:
        """Whether the printed average is further from the mean of the row than rounding to 0.01 explains."""
        return abs(self.average - self.average_as_computed) > 0.005 + 1e-9

    @property
    def source(self) -> str:
        """Report and table."""
        return f"arXiv 2412.19638, Table {self.table}"


SUITES = MappingProxyType({"commonsense": 2, "reasoning": 3, "agents": 4})
"""Table of the report by suite."""

COLUMNS: Mapping[str, Column] = MappingProxyType(
    {
        column.task: column
        for column in (
            Column("arc_challenge", "ARC-c", 2, "acc", 0, "arc_challenge"),
            Column("arc_easy", "ARC-e", 2, "acc", 0, "arc_easy"),
            Column("boolq", "Boolq", 2, "acc", 0, "boolq"),
            Column("hellaswag", "HS.", 2, "acc", 0, "hellaswag"),
            Column("openbookqa", "OB.", 2, "acc", 0, "openbookqa"),
            Column("piqa", "PiQA", 2, "acc", 0, "piqa"),
            Column("sciq", "SciQ", 2, "acc", 0, "sciq"),
            Column("winogrande", "Wino.", 2, "acc", 0, "winogrande"),
            Column("gsm8k", "GSM8K", 3, "exact_match", 5, "gsm8k"),
            Column("math", "MATH", 3, "exact_match", 4, "minerva_math"),
            Column("bbh", "BBH", 3, "exact_match", 3, "bbh_cot_fewshot"),
            Column("mmlu", "MMLU", 3, "acc", 0, "mmlu"),
            Column("humaneval", "HumanEval", 3, "pass@1", None, "humaneval"),
            Column("mbpp", "MBPP", 3, "pass@1", None, "mbpp"),
            Column("hotpotqa", "HotpotQA", 4, "exact_match", None, None),
            Column("fever", "FEVER", 4, "exact_match", None, None),
            Column("alfworld", "AlfWorld", 4, "success_rate", None, None),
            Column("webshop", "WebShop", 4, "success_rate", None, None),
        )
    }
)
"""Benchmarks by task, in the order of the tables."""

_TABLE_2 = """
MobiLlama-1B            28.24 61.53 60.92 46.74 21.80 75.14 88.20 59.27  55.23
TinyLLaMA1.1-1.1B       30.97 61.66 55.99 46.70 25.20 72.63 89.30 59.43  55.24
OLMo-1B                 28.67 63.34 61.74 46.97 25.00 75.03 87.00 59.98  55.97
OpenELM-1.1B            28.84 62.37 63.58 48.36 25.40 74.76 90.60 61.72  56.95
Llama-3.2-1B            31.31 65.36 63.73 47.78 26.40 74.48 91.50 61.01  57.70
MiniCPM-1.2B            36.86 70.29 67.92 49.91 23.60 74.43 91.80 60.77  59.45
Fox-1-1.6B              34.73 69.91 71.77 46.33 24.60 75.24 93.20 60.77  59.57
InternLM2.5-1.8B        35.24 66.37 79.82 46.99 22.00 73.29 94.90 62.67  60.16
Qwen2-1.5B              33.11 66.41 72.60 48.57 27.00 75.57 94.60 65.75  60.45
StableLM-2-zephyr-1.6B  36.52 66.79 80.00 53.26 26.80 74.86 88.00 64.09  61.29
SmolLM-1.7B             43.43 76.47 65.93 49.58 30.00 75.79 93.20 60.93  61.92
Qwen2.5-1.5B            41.21 75.21 72.97 50.15 31.80 75.90 94.30 63.61  63.14
DCLM-1B                 41.30 74.79 71.41 53.59 32.20 76.93 94.00 66.22  63.81
Phi-1.5-1.3B            44.80 76.22 74.95 47.96 38.60 76.66 93.30 72.93  65.68
Xmodel-2-1.2B           39.16 71.55 74.65 47.45 29.20 74.81 93.60 63.93  61.79
"""
_TABLE_3 = """
OpenELM-1.1B             0.45  1.06  6.62 25.52  8.54  6.80   8.16
OLMo-1B                  2.35  1.46 25.60 24.46  5.49  0.20   9.93
TinyLLaMA1.1-1.1B        2.50  1.48 25.57 25.35  1.83  3.40  10.02
MobiLlama-1B             1.97  1.54 25.76 25.26  7.93  5.40  11.31
DCLM-1B                  4.93  2.14 30.70 46.43  8.54  6.80  16.59
Llama-3.2-1B             6.60  1.78 31.44 36.63 14.63 22.20  18.88
SmolLM-1.7B              7.51  3.18 29.21 27.73 21.34 31.80  20.13
Fox-1-1.6B              34.34  7.94 28.75 39.55 14.02  9.00  22.27
StableLM-2-zephyr-1.6B  41.32 10.12 32.71 41.30 25.61 19.40  28.41
Phi-1.5-1.3B            32.15  3.18 28.81 41.75 36.59 35.40  29.65
InternLM2.5-1.8B        27.90 16.68 41.76 46.30 27.40 29.60  31.61
MiniCPM-1.2B            40.11 10.98 35.42 43.99 43.90 36.80  35.20
Qwen2-1.5B              57.62 22.90 33.05 55.11 20.73 30.40  36.64
Qwen2.5-1.5B            62.40 28.28 43.99 59.72  5.49 40.00  39.98
Xmodel-2-1.2B           55.88 25.50 48.40 48.87 29.88 29.20  39.62
"""
_TABLE_4 = """
OLMo-1B                  2.67 18.58 0.00 0.00   4.32
Phi-1.5-1.3B             3.54 17.56 2.24 0.80   6.04
DCLM-1B                  4.92 24.39 0.75 0.00   7.52
MobiLlama-1B             0.00 30.43 0.00 0.00   7.61
TinyLLaMA1.1-1.1B        2.11 28.77 0.00 0.20   7.77
OpenELM-1.1B             2.70 28.37 0.00 0.40   7.87
StableLM-2-zephyr-1.6B   1.44 20.81 8.96 2.20   8.35
SmolLM-1.7B              2.28 31.31 0.00 0.60   8.55
Fox-1-1.6B               5.37 30.88 0.00 0.60   9.21
Llama-3.2-1B             4.87 27.67 8.21 3.20  10.99
Qwen2.5-1.5B            13.53 27.58 5.97 0.60  11.92
MiniCPM-1.2B            11.00 36.57 1.60 1.00  12.52
InternLM2.5-1.8B        12.84 34.02 2.99 1.00  12.71
Xmodel-2-1.2B           13.70 40.00 0.78 2.20  14.21
"""


def _rows(table: int, text: str) -> list[PaperRow]:
    tasks = table_tasks(table)
    rows = []
    for line in text.strip().splitlines():
        model, *figures = line.split()
        *scores, average = map(float, figures)
        rows.append(PaperRow(model, table, MappingProxyType(dict(zip(tasks, scores, strict=True))), average))
    return rows


def table_tasks(table: int) -> tuple[str, ...]:
    """Return the tasks of a table, in the order of its columns."""
    return tuple(task for task, column in COLUMNS.items() if column.table == table)


PAPER: tuple[PaperRow, ...] = (*_rows(2, _TABLE_2), *_rows(3, _TABLE_3), *_rows(4, _TABLE_4))
"""Every row of the three tables, in the order of the report (by average, Xmodel-2 last)."""


def paper_row(table: int, model: str) -> PaperRow:
    """Return a model's row of a table.

    >>> paper_row(2, "Xmodel-2-1.2B").scores["arc_easy"]
    71.55

    Raises `XmodelError` if the table has no such row; Table 4 leaves Qwen2-1.5B out.
    """
    rows = {row.model: row for row in PAPER if row.table == table}
    if model not in rows:
        raise XmodelError(f"Table {table} of the report has no row {model!r}.{nearest(model, rows)}")
    return rows[model]


def scores_of(task: str) -> dict[str, float]:
    """Return the percent of every model on a task, in the order of its table. Raises `XmodelError` for another task."""
    if task not in COLUMNS:
        raise XmodelError(f"{task!r} is not in the report's tables.{nearest(task, COLUMNS)}")
    return {row.model: row.scores[task] for row in PAPER if task in row.scores}
