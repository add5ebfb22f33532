"""Tables 2, 3 and 4 with our row on top, before they are HTML or Markdown: every cell says what its number is not.

    results.json + the report's rows --> SuiteTable: tasks, our cells with intervals and notes, the report's rows as printed

A number over part of a set, with another metric or another number of examples, carries a note, and so does every score of an
agent: the world that it holds in. An average over part of a suite stands beside the report's averages over the same tasks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xmodel2.eval.agent_tables import examples_left_out, world, world_in_short
from xmodel2.eval.intervals import average_interval
from xmodel2.eval.paper import COLUMNS, PAPER, SUITES, Column, PaperRow, table_tasks
from xmodel2.page import printable

TITLES = {
    "commonsense": "Commonsense (Table 2)",
    "reasoning": "Complex reasoning (Table 3)",
    "agents": "Agents (Table 4)",
}
MARKED = "over marked tasks"
_RAW = ("perplexity", "bits_per_byte", "loss")  # in the name of a metric that is no share


@dataclass(frozen=True)
class Cell:
    """One number of ours."""

    text: str
    interval: str = ""
    notes: tuple[str, ...] = ()
    """Why it is not what the report measured; empty if it is."""


@dataclass(frozen=True)
class SuiteTable:
    """One table of the report and our row of it. Averages are percent."""

    suite: str
    model: str
    columns: Sequence[Column]
    ours: Mapping[str, Cell]
    """By task, what was not evaluated too."""
    average: Cell
    measured: Sequence[str]
    """Tasks that our average is over."""
    values: tuple[float, float, float]
    """Our average, and the ends of its interval."""
    paper: Sequence[PaperRow]
    """The report's rows, in its order."""
    made_up: Sequence[str]
    """Heads of the columns whose tasks are none of the official ones."""

    @property
    def title(self) -> str:
        """Suite, and table of the report."""
        return TITLES[self.suite]

    @property
    def whole(self) -> bool:
        """Whether our average is what the report measured."""
        return not self.average.notes

    @property
    def missing(self) -> list[str]:
        """Heads of the columns that were not evaluated."""
        return [column.title for column in self.columns if column.task not in self.measured]

    def comparable(self, scores: Mapping[str, float]) -> float:
        """Return the mean of a row's scores over the tasks that ours is over, percent."""
        return sum(scores[task] for task in self.measured) / len(self.measured)


def suite_table(results: Mapping[str, Any], suite: str) -> SuiteTable | None:
    """Return a suite's table, or None if none of its tasks was evaluated."""
    columns = [COLUMNS[task] for task in table_tasks(SUITES[suite])]
    tasks = results["tasks"]
    measured = [column.task for column in columns if column.task in tasks]
    if not measured:
        return None
    ours = {c.task: _cell(c, tasks[c.task], results) if c.task in tasks else Cell("not run") for c in columns}
    scores = [tasks[task]["score"] for task in measured]
    said = results.get("suites", {}).get(suite) or {}
    low, high = said.get("interval") or average_interval(scores, [tasks[task]["interval"] for task in measured])
    mean = said.get("average", sum(scores) / len(scores))
    notes = [f"{len(measured)} of {len(columns)} tasks"] if len(measured) < len(columns) else []
    made_up = [COLUMNS[task].title for task in measured if tasks[task].get("made_up")]
    if any(ours[task].notes for task in measured):
        notes.append("over made-up tasks" if made_up else MARKED)
    values = (100 * mean, 100 * low, 100 * high)
    average = Cell(*_percent(*values), tuple(notes))
    paper = [row for row in PAPER if row.table == SUITES[suite]]
    name = printable(str(results["model"]["name"]))
    return SuiteTable(suite, name, columns, ours, average, measured, values, paper, made_up)


def _cell(column: Column, task: Mapping[str, Any], results: Mapping[str, Any]) -> Cell:
    notes = [measured_part(task, results["settings"])]
    if task.get("cut"):
        notes.append(f"{task['cut']:,} requests cut to the model's context")
    if task["metric"] != column.metric:
        notes.append(f"{task['metric']}, the report: {column.metric}")
    if column.num_fewshot not in (None, task.get("num_fewshot")):
        notes.append(f"{task['num_fewshot']}-shot, the report: {column.num_fewshot}-shot")
    notes += [examples_left_out(task), world_in_short(task)]
    return Cell(*shown(task), tuple(note for note in notes if note))


def part_of_set(task: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """Return which part of its set a task's score is over, or "" for the whole.

    >>> part_of_set({"items": 100, "of": 2376}, {"limit": 100})
    '100 of 2,376 items (--limit)'
    """
    items, of, limit = task["items"], task.get("of"), settings.get("limit")
    why = " (--limit)" if limit else ""
    if of is None:
        return f"{items:,} items{why}" if limit else ""
    return f"{items:,} of {of:,} items{why}" if items != of else ""


def measured_part(task: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """Return `part_of_set`, or "" where the task's world says as much.

    >>> measured_part({"items": 100, "of": 7405, "world": "100 of 7,405 questions"}, {"limit": None})
    ''
    """
    part = part_of_set(task, settings)
    return "" if task.get("of") and part.split(" items")[0] in world(task) else part


def is_share(metric: str) -> bool:
    """Tell whether a metric is a share, shown in percent; perplexities and their kind are not."""
    return not any(word in metric for word in _RAW)


def shown(task: Mapping[str, Any]) -> tuple[str, str]:
    """Return a task's score and interval: percent, but for perplexities and their kind."""
    low, high = task["interval"]
    if not is_share(task["metric"]):
        return f"{task['score']:.4g}", f"{low:.4g} to {high:.4g}"
    return _percent(100 * task["score"], 100 * low, 100 * high)


def _percent(score: float, low: float, high: float) -> tuple[str, str]:
    return f"{score:.2f}", f"{low:.1f} to {high:.1f}"


def other_tasks(results: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the tasks that the report's tables do not have."""
    return {name: task for name, task in results["tasks"].items() if name not in COLUMNS}
