"""What commands print: tables for people, one JSON object for machines."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.status import Status
from rich.table import Table

from xmodel2.files import in_utf


class Unfailing:
    """A file; what it does not take, since its reader is gone or the disk full, is lost, and nothing else."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def write(self, text: str) -> int:
        with suppress(OSError):
            self._file.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._file.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def busy(what: str) -> Status:
    """Show on a terminal, and only there, that something is going on."""
    return Console(stderr=True).status(f"{what} ...")


def print_json(value: Any) -> None:
    """Print one JSON object."""
    print(json.dumps(value, ensure_ascii=not in_utf(sys.stdout)))


def print_sources(sources: dict[str, Any]) -> None:
    """Print what a preparation made of each source, a row a source."""
    from xmodel2.data.inspect import removed_documents

    extra = ("skipped", "filtered", "copies", "near", "tainted")
    table = _wide_table("source", "kind", "documents", "tokens", "bytes", "held out", *extra)
    for name, source in sources.items():
        counts = [source["train"][key] for key in ("documents", "tokens", "bytes")]
        counts.append(source["heldout"]["documents"])
        counts += [sum(source["skipped"].values()), sum(map(removed_documents, source["removed"].values()))]
        counts += [source["duplicates"]["exact"], source["duplicates"]["near"]]
        counts.append(source["contaminated"].get("documents", 0))
        table.add_row(escape(name), source["kind"], *(f"{count:,}" for count in counts))
    print_wide(table)


def _wide_table(*head: str) -> Table:
    table = Table(*head, box=None, pad_edge=False)
    for column in table.columns:
        column.no_wrap = True
        column.justify = "left" if column.header in ("source", "kind") else "right"
    return table


def print_wide(table: Table) -> None:
    """Print a table whole: into a file, or a window too narrow, its lines are longer instead of cut."""
    needed = Console(width=1000).measure(table).maximum
    Console(width=max(needed, Console().width)).print(table)


def print_inspection(sources: dict[str, Any]) -> None:
    """Print what `inspect_data` found, a row a source."""
    from xmodel2.data.inspect import INSPECTION_HEAD, inspection_rows

    table = _wide_table(*INSPECTION_HEAD)
    for row in inspection_rows(sources):
        table.add_row(*map(escape, row))
    print_wide(table)


@contextmanager
def progress_bars() -> Iterator[Callable[[str, int, int], None] | None]:
    """Yield what shows (step, tasks finished, tasks) as bars with the time left on a terminal; None elsewhere."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bars:
        shown: dict[str, TaskID] = {}

        def show(step: str, done: int, total: int) -> None:
            if step not in shown:
                shown[step] = bars.add_task(step, total=total)
            bars.update(shown[step], completed=done, total=total)

        yield show


def print_results(results: dict[str, Any]) -> None:
    """Print what `evaluate_run` returns: held-out losses and accuracies by task."""
    steps = results.get("steps", {})
    for stage, losses in results.get("heldout", {}).items():
        rows: list[Sequence[Any]] = [
            (name, row["loss"], row["perplexity"], row.get("bits_per_byte"), row["tokens"])
            for name, row in losses.items()
        ]
        head = ("source", "loss (nats a token)", "perplexity", "bits a byte", "tokens")
        _print_rows(f"held-out loss, step {steps[stage]} ({stage})", head, rows)
    for stage, outcome in results.get("questions", {}).items():
        named = {**outcome["by_task"], "all": outcome}
        counted = [(name, f"{row['accuracy']:.1%}", row["count"]) for name, row in named.items()]
        _print_rows(
            f"questions answered exactly, step {steps[stage]} ({stage})", ("task", "accuracy", "questions"), counted
        )


_WORLD = 40  # letters of a world in a table; the whole of it stands below


def print_evaluation(results: dict[str, Any], folder: Path) -> None:
    """Print an evaluation's scores by task and suite, with intervals and coverage, and where its pages are."""
    from xmodel2.eval.agent_tables import endings, examples_left_out, origin, played, world_in_short
    from xmodel2.eval.result_tables import is_share
    from xmodel2.eval.tasks import SUITES
    from xmodel2.page import printable

    rows: list[Sequence[Any]] = []
    for name, task in results["tasks"].items():
        percent = 100.0 if is_share(task["metric"]) else 1.0
        low, high = (percent * end for end in task["interval"])
        few = "" if task.get("num_fewshot") is None else f", {task['num_fewshot']}-shot"
        items = f"{task['items']:,}" if task.get("of") is None else f"{task['items']:,} of {task['of']:,}"
        cut = f"{task['cut']:,} requests cut" if task.get("cut") else ""
        coverage = "; ".join(filter(None, [items, cut, examples_left_out(task), world_in_short(task, _WORLD)]))
        rows.append(
            (name, f"{task['metric']}{few}", f"{percent * task['score']:.2f}", f"{low:.2f}..{high:.2f}", coverage)
        )
    for name, suite in results["suites"].items():
        low, high = (100 * end for end in suite["interval"])
        tasks = [results["tasks"][task] for task in SUITES[name] if task in results["tasks"]]
        said = [f"without {', '.join(suite['missing'])}"] if suite["missing"] else []
        if any(task.get("made_up") for task in tasks):
            said.append("made-up tasks")
        elif not said:
            said.append("whole" if all(task["items"] == task["of"] for task in tasks) else "parts of its sets")
        rows.append(
            (f"{name}, average", "", f"{100 * suite['average']:.2f}", f"{low:.2f}..{high:.2f}", ", ".join(said))
        )
    if rows:
        _print_rows(
            printable(results["model"]["name"]), ("task", "metric", "score", "95% interval", "items"), rows, wide=True
        )
    for name, task in played(results).items():
        print(f"{name}: {origin(task)}")
        print(f"{' ' * len(name)}  {endings(task)}")
    print(f"{folder / 'results.html'}" if rows else f"{folder / 'results.json'}")


def _print_rows(title: str, head: Sequence[str], rows: Sequence[Sequence[Any]], wide: bool = False) -> None:
    table = Table(*head, title=escape(title), title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        table.add_row(*("" if cell is None else escape(_flatten("", cell)[0][1]) for cell in row))
    print_wide(table) if wide else Console().print(table)


def print_dict(value: dict[str, Any], as_json: bool) -> None:
    """Print nested results, a row a figure, or as JSON."""
    if as_json:
        return print_json(value)
    table = Table(show_header=False)
    for key, text in _flatten("", value):
        table.add_row(escape(key), escape(text))
    Console().print(table)


def _flatten(prefix: str, value: Any) -> list[tuple[str, str]]:
    if isinstance(value, dict):
        return [row for key, inner in value.items() for row in _flatten(f"{prefix}{key} ", inner)]
    if isinstance(value, float):
        return [(prefix.strip(), f"{value:,.6g}")]
    if isinstance(value, int) and not isinstance(value, bool):
        return [(prefix.strip(), f"{value:,}")]
    return [(prefix.strip(), str(value))]
