"""results.html and results.md: Tables 2, 3 and 4 with our row on top, Figure 1 with our point, and what the numbers rest on."""

from collections.abc import Mapping, Sequence
from functools import cache
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from xmodel2.eval.agent_tables import column_title, origin, outcome_table, played, world_in_short
from xmodel2.eval.item_page import ITEM_PAGE
from xmodel2.eval.paper import XMODEL2, PaperRow
from xmodel2.eval.result_files import ITEMS_FOLDER, read_results
from xmodel2.eval.result_tables import TITLES, Cell, SuiteTable, measured_part, other_tasks, shown, suite_table
from xmodel2.eval.rivals import RIVALS
from xmodel2.eval.size_figure import Point, size_figure
from xmodel2.files import write_text_atomic
from xmodel2.model.count import parameter_count
from xmodel2.page import page, printable, table
from xmodel2.recipe import PRESETS, ModelSettings

RESULT_PAGE, RESULT_TABLES = "results.html", "results.md"
_COMMA = ", "
_DIFFERS = "Not what the report measured"
_OTHER_WORLDS = (
    "Each score holds for the tasks and the world in its cell, given in full below the table, and not for the report's."
)
_LONG = 36  # letters of a name that a figure has room for

_STYLE = """<style>
.paper { font-size: .9rem; } .paper th, .paper td { padding: .3rem .4rem; } .paper th { font-weight: 600; }
.paper tbody th { font-weight: inherit; text-align: left; white-space: nowrap; }
.paper small { display: block; color: var(--soft); font-weight: normal; white-space: nowrap; }
.paper tr.ours { background: var(--card); font-weight: 700; border-top: 2px solid #d9822b; border-bottom: 2px solid #d9822b; }
.paper tr.xmodel2 { font-weight: 700; } .paper td.other { background: color-mix(in srgb, #d9822b 20%, transparent); }
.paper td.other small { white-space: normal; color: var(--ink); overflow-wrap: anywhere; }
.paper caption span { position: sticky; left: 0; display: inline-block; max-width: min(100%, 100vw - 3.6rem); }
.agents td.other { min-width: 8rem; } .worlds li { overflow-wrap: anywhere; }
</style>"""


def write_result_page(folder: Path) -> Path:
    """Write results.html and results.md into an evaluation's folder and return the page's path.

    Raises `XmodelError` if the folder holds no results of an evaluation.
    """
    results = read_results(folder)
    items = ITEM_PAGE if any((folder / ITEMS_FOLDER).glob("*.jsonl")) else None
    name = printable(str(results["model"]["name"]))
    write_text_atomic(folder / RESULT_TABLES, markdown_tables(results))
    body = f"<h1>Evaluation: {escape(name)}</h1>\n{result_sections(results, items)}"
    write_text_atomic(folder / RESULT_PAGE, page(f"Evaluation: {name}", body))
    return folder / RESULT_PAGE


def result_sections(results: Mapping[str, Any], items: str | None = None) -> str:
    """Return the body of the page, for other pages too; ``items``: address of the item browser."""
    parts = [_STYLE]
    if items:
        parts.append(
            f'<p><a href="{escape(items)}">Every item</a>: prompt, answer or steps, and score, to browse and search.</p>'
        )
    for suite in TITLES:
        if found := suite_table(results, suite):
            parts += [f"<h2>{found.title}</h2>", _warning(found), _suite(found, items)]
            parts += [_worlds(results, items) if suite == "agents" else "", _figure(found, results)]
    if absent := [title for suite, title in TITLES.items() if suite_table(results, suite) is None]:
        parts.append(f"<p>Not evaluated: {_COMMA.join(absent)}.</p>")
    if others := other_tasks(results):
        rows = [_measured(name, task, results) for name, task in others.items()]
        parts += ["<h2>Other tasks</h2>", table(_MEASURED, rows, "Not in the report's tables.")]
    rows = [_measured(name, task, results) for name, task in results["tasks"].items()]
    parts += ["<h2>What was measured</h2>", table(_MEASURED, rows, "Intervals are 95%. Shares in percent.")]
    parts += [_parts(name, task) for name, task in results["tasks"].items() if task.get("parts")]
    parts += ["<h2>Model and settings</h2>", table(["", ""], _settings(results), "What is needed to repeat it.")]
    return "\n".join(parts)


def markdown_tables(results: Mapping[str, Any]) -> str:
    """Return the tables as Markdown, our row on top, with the same notes."""
    parts = [f"# Evaluation: {_plain(printable(str(results['model']['name'])))}"]
    for found in filter(None, (suite_table(results, suite) for suite in TITLES)):
        head = ["model", *(column.title for column in found.columns), "Avg", *_extra_head(found)]
        ours = [f"**{_plain(found.model)}**", *map(_markdown, found.ours.values()), _markdown(found.average)]
        rows = [ours + [_markdown(cell) for cell in _extra_ours(found)]]
        for row in found.paper:
            name = f"**{row.model}**" if row.model == XMODEL2 else row.model
            rows.append([name, *_printed(row), *_extra(found, row)])
        parts += [f"## {found.title}", _plain(_warning_text(found)), _markdown_table(head, rows)]
        if found.suite == "agents":
            origins = [f"- {_plain(f'{column_title(name)}: {origin(task)}')}" for name, task in played(results).items()]
            head, outcomes = outcome_table(played(results))
            parts += ["\n".join(origins), _markdown_table(head, outcomes) if outcomes else ""]
    rows = [[_plain(cell) for cell in _measured(name, task, results)] for name, task in results["tasks"].items()]
    parts += ["## What was measured", _markdown_table(_MEASURED, rows), "## Model and settings"]
    parts.append(_markdown_table(["", ""], [[_plain(cell) for cell in row] for row in _settings(results)]))
    return "\n\n".join(filter(None, parts)) + "\n"


def _warning_text(found: SuiteTable) -> str:
    """Return what keeps our row from being the report's measurement, in a sentence each; empty if nothing does."""
    said = []
    if found.made_up:
        said.append(
            f"Made up: {_COMMA.join(found.made_up)}. None of these tasks is an official one, so these scores compare with "
            "no other row."
        )
    if found.missing:
        without = (
            "" if len(found.measured) == 1 else f"; '{_extra_head(found)[0]}' is each row's mean over the same tasks"
        )
        said.append(f"Not run: {_COMMA.join(found.missing)}. Our average leaves that out{without}.")
    noted = {c.title: found.ours[c.task].notes for c in found.columns if found.ours[c.task].notes}
    if noted:
        what = "; ".join(f"{title}: {_COMMA.join(notes)}" for title, notes in noted.items())
        said.append(_OTHER_WORLDS if found.suite == "agents" else f"{_DIFFERS}: {what}.")
    return " ".join(said)


def _warning(found: SuiteTable) -> str:
    text = _warning_text(found)
    return f'<p class="sample" role="note">{escape(text)}</p>' if text else ""


def _extra_head(found: SuiteTable) -> list[str]:
    return [f"Avg of the {len(found.measured)}"] if found.missing else []


def _extra(found: SuiteTable, row: PaperRow) -> list[str]:
    return [f"{found.comparable(row.scores):.2f}"] if found.missing else []


def _extra_ours(found: SuiteTable) -> list[Cell]:
    return [Cell(f"{found.values[0]:.2f}", notes=found.average.notes[1:])] if found.missing else []


def _printed(row: PaperRow) -> list[str]:
    """Return a row's scores and average as printed; a dagger if the average is not the mean of the scores."""
    return [
        *(f"{score:.2f}" for score in row.scores.values()),
        f"{row.average:.2f}{'†' if row.average_differs else ''}",
    ]


def _suite(found: SuiteTable, items: str | None) -> str:
    head = ['<th scope="col">model</th>']
    for column in found.columns:
        few = "" if column.num_fewshot is None else f"<small>{column.num_fewshot}-shot</small>"
        title = escape(column.title)
        if items and column.task in found.measured:
            title = f'<a href="{escape(items)}#task={quote(column.task)}">{title}</a>'
        head.append(f'<th scope="col">{title}{few}</th>')
    head += [f'<th scope="col">{escape(name)}</th>' for name in ("Avg", *_extra_head(found))]
    ours = [_cell(cell) for cell in (*found.ours.values(), found.average, *_extra_ours(found))]
    rows = [
        f'<tr class="ours"><th scope="row">{escape(found.model)}<small>this evaluation</small></th>{"".join(ours)}</tr>'
    ]
    for row in found.paper:
        kind = ' class="xmodel2"' if row.model == XMODEL2 else ""
        cells = "".join(f"<td>{text}</td>" for text in (*_printed(row), *_extra(found, row)))
        rows.append(f'<tr{kind}><th scope="row">{escape(row.model)}</th>{cells}</tr>')
    source = found.paper[0].source
    caption = f"Percent; ours with 95% intervals. Other rows as printed in {source}; †: the printed average is not the row's mean."
    return (
        f'<div class="scroll"><table class="paper {found.suite}"><caption><span>{escape(caption)}</span></caption>'
        f"<thead><tr>{''.join(head)}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _worlds(results: Mapping[str, Any], items: str | None) -> str:
    """Return what each score of Table 4 holds in, and how its episodes ended, with links to those that ended so."""
    tasks = played(results)
    if not tasks:
        return ""
    lines = [f"<li><b>{escape(column_title(name))}</b>: {escape(origin(task))}</li>" for name, task in tasks.items()]
    head, rows = outcome_table(tasks)
    top = "".join(f'<th scope="col">{escape(kind)}</th>' for kind in head)
    body = "".join(f"<tr>{_outcomes(name, head, row, items)}</tr>" for name, row in zip(tasks, rows, strict=True))
    return (
        f'<ul class="worlds">{"".join(lines)}</ul><div class="scroll"><table><caption>How the episodes ended.</caption>'
        f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _outcomes(task: str, head: Sequence[str], row: Sequence[str], items: str | None) -> str:
    cells = [escape(cell) for cell in row]
    for i in range(2, len(row) - 1):
        if items and row[i] != "0":
            address = f"{items}#{urlencode({'task': task, 'outcome': head[i]})}"
            cells[i] = f'<a href="{escape(address)}">{cells[i]}</a>'
    return "".join(f"<td>{cell}</td>" for cell in cells)


def _cell(cell: Cell) -> str:
    small = "".join(f"<small>{escape(text)}</small>" for text in (cell.interval, *cell.notes) if text)
    kind = ' class="other"' if cell.notes else ""
    return f"<td{kind}>{escape(cell.text)}{small}</td>"


def _markdown(cell: Cell) -> str:
    return "<br>".join(filter(None, [f"**{cell.text}**", cell.interval, *map(_plain, cell.notes)]))


def _plain(text: str) -> str:
    """Return a text that Markdown leaves as it is, in one cell."""
    return "".join(f"\\{c}" if c in "\\|*_`<>[]" else c for c in " ".join(text.split()))


def _markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _figure(found: SuiteTable, results: Mapping[str, Any]) -> str:
    """Return Figure 1 for a suite; over part of it, every model's average is over the same part."""
    rows = [
        Point(row.model, sizes()[row.model], found.comparable(row.scores) if found.missing else row.average)
        for row in found.paper
    ]
    parameters = results["model"].get("parameters")
    billions = None if parameters is None else parameters / 1e9
    name = found.model if len(found.model) <= _LONG else f"…{found.model[1 - _LONG :]}"
    ours = Point(name, billions, found.values[0], found.values[1:], found.whole)
    count = f"{len(found.measured)} of {len(found.columns)}" if found.missing else f"{len(found.columns)}"
    kind = found.suite.removesuffix("s")
    drawing = size_figure(rows, XMODEL2, ours, f"average of {count} {kind} tasks, %")
    caption = (
        "Average against size (as Figure 1): the report's models with all their parameters, Xmodel-2 in blue, "
        f"{found.model} {_drawn(ours)}."
        + (f" All averages are without {_COMMA.join(found.missing)}." if found.missing else "")
    )
    return f'<figure role="img" aria-label="{escape(caption)}">{drawing}<figcaption>{escape(caption)}</figcaption></figure>'


def _drawn(ours: Point) -> str:
    """Return how our average is drawn, and why so."""
    if ours.billions is None:
        return "as an orange line, for it has no known size" + ("" if ours.whole else f"; {_DIFFERS.lower()}")
    return "in orange with its 95% interval" + ("" if ours.whole else f", hollow: {_DIFFERS.lower()}")


@cache
def sizes() -> dict[str, float]:
    """Return billions of parameters of every model in the report's tables."""
    ours = parameter_count(ModelSettings(**PRESETS["xl"]))
    return {XMODEL2: ours / 1e9, **{rival.name: rival.parameters / 1e9 for rival in RIVALS}}


_MEASURED = ("task", "metric", "score", "interval", "items", "few-shot", "version", "all metrics")


def _measured(name: str, task: Mapping[str, Any], results: Mapping[str, Any]) -> list[str]:
    items = measured_part(task, results["settings"]) or f"{task['items']:,}{_whole(task)}"
    items = "; ".join(filter(None, [items, world_in_short(task)]))
    metrics = _COMMA.join(f"{metric} {value:.4g}" for metric, value in task.get("metrics", {}).items())
    few, version = ("" if task.get(key) is None else str(task[key]) for key in ("num_fewshot", "version"))
    return [name, task["metric"], *shown(task), items, few, version, metrics]


def _whole(task: Mapping[str, Any]) -> str:
    return ", the whole set" if task["items"] == task.get("of") else ""


def _parts(name: str, task: Mapping[str, Any]) -> str:
    rows = [
        [printable(part), "" if entry["score"] is None else shown({**task, **entry})[0], f"{entry['items']:,}"]
        for part, entry in task["parts"].items()
    ]
    inner = table(["part", task["metric"], "items"], rows, f"Parts of {name}.")
    return f"<details><summary>{escape(name)}: {len(rows)} parts</summary>{inner}</details>"


def _settings(results: Mapping[str, Any]) -> list[list[str]]:
    rows = [*results["model"].items(), *results["settings"].items()]
    rows += [(key, results[key]) for key in ("seconds", "xmodel2", "lm_eval") if key in results]
    return [[key, _value(value)] for key, value in rows]


def _value(value: Any) -> str:
    if value is None:
        return "none"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else printable(str(value))
