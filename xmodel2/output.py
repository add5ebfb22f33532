"""What commands print: tables for people, one JSON object for machines."""

import json
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.status import Status
from rich.table import Table


def busy(what: str) -> Status:
    """Show on a terminal, and only there, that something is going on."""
    return Console(stderr=True).status(f"{what} ...")


def print_json(value: Any) -> None:
    """Print one JSON object."""
    print(json.dumps(value, ensure_ascii=False))


def print_sources(sources: dict[str, Any]) -> None:
    """Print what each source of a data directory holds, a row a source."""
    extra = [key for key in ("skipped", "duplicates") if key in next(iter(sources.values()))]
    table = Table("source", "kind", "documents", "tokens", "bytes", "held out", *extra, box=None, pad_edge=False)
    for column in table.columns[2:]:
        column.justify = "right"
    for name, source in sources.items():
        counts = [source["train"][key] for key in ("documents", "tokens", "bytes")]
        counts += [source["heldout"]["documents"], *(source[key] for key in extra)]
        table.add_row(escape(name), source["kind"], *(f"{count:,}" for count in counts))
    Console().print(table)


def print_results(results: dict[str, Any]) -> None:
    """Print what `evaluate_model` returns: held-out losses, accuracies by task, harness metrics."""
    steps = results["steps"]
    for stage, losses in results.get("heldout", {}).items():
        rows: list[Sequence[Any]] = [
            (name, row["loss"], row["perplexity"], row.get("bits_per_byte"), row["tokens"])
            for name, row in losses.items()
        ]
        head = ("source", "loss (nats a token)", "perplexity", "bits a byte", "tokens")
        _print_rows(f"held-out loss, step {steps[stage]} ({stage})", head, rows)
    for stage, outcome in results.get("reasoning", {}).items():
        named = {**outcome["by_task"], "all": outcome}
        counted = [(name, f"{row['accuracy']:.1%}", row["count"]) for name, row in named.items()]
        _print_rows(
            f"questions answered exactly, step {steps[stage]} ({stage})", ("task", "accuracy", "questions"), counted
        )
    for task, metrics in results.get("harness", {}).items():
        _print_rows(task, ("metric", "value"), list(metrics.items()))


def _print_rows(title: str, head: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    table = Table(*head, title=escape(title), title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        table.add_row(*("" if cell is None else escape(_flatten("", cell)[0][1]) for cell in row))
    Console().print(table)


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
