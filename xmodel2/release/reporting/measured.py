"""What was measured of a run's checkpoints: held-out losses, questions, Tables 2 to 4 with Figure 1, Figures 4 and 5."""

import re
from collections.abc import Sequence
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

from xmodel2.eval.calibration_page import calibration_section
from xmodel2.eval.item_page import ITEM_PAGE
from xmodel2.eval.paper import XMODEL2
from xmodel2.eval.result_files import RESULTS_FILE, read_results
from xmodel2.eval.result_page import result_sections
from xmodel2.eval.result_tables import TITLES, Cell, SuiteTable, suite_table
from xmodel2.eval.test_time import RESULT_FILE as SCALING_FILE
from xmodel2.eval.test_time_figure import scaling_section
from xmodel2.page import table
from xmodel2.release.reporting.faults import told
from xmodel2.release.reporting.runs import ReportedRun
from xmodel2.release.reporting.section import Section
from xmodel2.release.results import run_results, step_folders

_STAGES = {"stable": "stable", "decay": "decay", "majority": "commonest answer"}


def heldout_sections(run: ReportedRun) -> list[Section]:
    """Return held-out losses and accuracies before and after the decay, none if they were not measured."""
    body = told(lambda: _heldout(run_results(run.path)), run.path / RESULTS_FILE)
    return [Section("heldout", "Held-out text and questions", body)] if body else []


def _heldout(results: dict[str, Any]) -> str:
    parts = []
    heldout, baselines = results.get("heldout", {}), results.get("baselines", {})
    at = {stage: f"{stage}, step {step:,}" for stage, step in results.get("steps", {}).items()}
    if heldout:
        rows = []
        for name in dict.fromkeys(name for stage in heldout.values() for name in stage):
            before, after = (heldout.get(stage, {}).get(name, {}) for stage in ("stable", "decay"))
            numbers = [before.get("loss"), after.get("loss"), after.get("bits_per_byte")]
            numbers += [baselines.get(kind, {}).get(name) for kind in ("five_gram", "unigram")]
            rows.append([name, *map(_number, numbers)])
        losses = [f"loss at {at.get('stable', 'stable')}", f"at {at.get('decay', 'decay')}"]
        head = ["held-out source", *losses, "bits a byte", "5-gram loss", "unigram loss"]
        measured = [column for column, name in enumerate(head) if any(row[column] for row in rows)]
        note = " (5-gram and unigram on the same training tokens)" if baselines else ""
        rows = [[row[column] for column in measured] for row in rows]
        parts.append(table([head[column] for column in measured], rows, f"Held-out loss, nats a token{note}"))
    if questions := results.get("questions", {}):
        stages = [stage for stage in _STAGES if stage in questions]
        rows = [["all", *(f"{questions[stage]['accuracy']:.1%}" for stage in stages)]]
        for task in dict.fromkeys(task for stage in stages for task in questions[stage]["by_task"]):
            found = [questions[stage]["by_task"].get(task) for stage in stages]
            rows.append([task, *(f"{entry['accuracy']:.1%}" if entry else "" for entry in found)])
        head = ["reasoning task", *(at.get(stage, _STAGES[stage]) for stage in stages)]
        parts.append(table(head, rows, "Exact match, greedy generation"))
    return "\n".join(parts)


def _number(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else "" if value is None else str(value)


def benchmark_sections(run: ReportedRun) -> list[Section]:
    """Return the benchmark tables of the last step that has them; links to its items are as seen from the run."""
    for folder in reversed(step_folders(run.path)):
        if not (folder / RESULTS_FILE).exists():
            continue
        body = told(partial(_benchmarks, folder), folder / RESULTS_FILE)
        if body:
            return [Section("benchmarks", "Benchmarks (Tables 2 to 4, Figure 1)", body)]
    return []


def _benchmarks(folder: Path) -> str:
    results = read_results(folder)
    if not results["tasks"]:
        return ""
    items = f"evaluation/{folder.name}/{ITEM_PAGE}" if (folder / ITEM_PAGE).exists() else None
    return demoted(result_sections(results, items))


def compared(runs: Sequence[ReportedRun]) -> str:
    """Return, of several runs with benchmarks, a table of each suite with a row of each run; else nothing."""
    found = []
    for run in runs:
        for folder in reversed(step_folders(run.path)):
            if (folder / RESULTS_FILE).exists() and (results := read_results(folder))["tasks"]:
                found.append((run.label, results))
                break
    parts = []
    for suite, title in TITLES.items():
        tables = [(label, made) for label, results in found if (made := suite_table(results, suite))]
        if len(tables) > 1:
            parts.append(f"<h3>{escape(title)}: the runs side by side</h3>{_side_by_side(tables)}")
    return "".join(parts)


def _side_by_side(tables: Sequence[tuple[str, SuiteTable]]) -> str:
    """Return a suite's table with a row of each run above the report's rows."""
    first = tables[0][1]
    rows = []
    for label, of in tables:
        cells = "".join(_cell(of.ours[column.task]) for column in first.columns) + _cell(of.average)
        rows.append(f'<tr class="ours"><th scope="row">{escape(label)}</th>{cells}</tr>')
    for row in first.paper:
        cells = "".join(f"<td>{score:.2f}</td>" for score in (*row.scores.values(), row.average))
        kind = ' class="xmodel2"' if row.model == XMODEL2 else ""
        rows.append(f'<tr{kind}><th scope="row">{escape(row.model)}</th>{cells}</tr>')
    heads = ("model", *(column.title for column in first.columns), "Avg")
    top = "".join(f'<th scope="col">{escape(head)}</th>' for head in heads)
    caption = "Percent, with 95% intervals; shaded: not what the report measured, each run's own table below says why."
    return (
        f'<div class="scroll"><table class="paper"><caption><span>{caption}</span></caption>'
        f"<thead><tr>{top}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _cell(cell: Cell) -> str:
    interval = f"<small>{escape(cell.interval)}</small>" if cell.interval else ""
    kind = ' class="other"' if cell.notes else ""
    return f"<td{kind}>{escape(cell.text)}{interval}</td>"


def calibration_sections(run: ReportedRun) -> list[Section]:
    """Return the calibration of the last step that has one (Figure 4)."""
    for folder in reversed(step_folders(run.path)):
        if found := sorted(folder.glob("calibration*.json")):
            body = told(partial(calibration_section, folder), found[0] if len(found) == 1 else folder)
            return [Section("calibration", "Calibration (Figure 4)", demoted(body))]
    return []


def test_time_sections(run: ReportedRun) -> list[Section]:
    """Return the test-time scaling law of the last step that has one (Figure 5)."""
    for folder in reversed(step_folders(run.path, "scaling")):
        if (path := folder / SCALING_FILE).exists():
            body = told(partial(scaling_section, folder), path).removeprefix("<h2>Test-time scaling law</h2>")
            return [Section("test-time", "Test-time scaling law (Figure 5)", demoted(body))]
    return []


def demoted(html: str) -> str:
    """Return a page's body with its headings one level lower, to stand within a section."""
    for level in (3, 2):
        html = re.sub(rf"(</?h){level}(?=[ >])", rf"\g<1>{level + 1}", html)
    return html
