"""A plan as people read it: what the run is, what a device holds, which layouts fit, how long it takes and what it costs."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from xmodel2.train.out_of_memory import HEADROOM, size_text

LEGEND = """\
layout: parallel.data_parallel_replicate x data_parallel_shard
        x context_parallel x tensor_parallel
rows:   train.micro_batch_size, x so many a step on each data-parallel rank
kept:   train.activation_memory_budget"""


def print_plan(plan: dict[str, Any]) -> None:
    """Print what `plan_run` returns."""
    console = Console()
    for title, rows in _sections(plan).items():
        table = Table(
            show_header=False, box=None, title=title, title_justify="left", title_style="bold", pad_edge=False
        )
        for name, text in rows:
            table.add_row(f"  {escape(name)}", escape(text))
        console.print(table, "")
    if plan["alternatives"]:
        console.print(_layouts(plan))
        first = plan["alternatives"][0]["settings"]
        console.print(f"{LEGEND}\nfirst:  {escape(first) if first else 'the recipe as it is'}", highlight=False)
    if plan["advice"]:
        console.print(f"[bold red]{escape(plan['advice'])}[/]")


def _sections(plan: dict[str, Any]) -> dict[str, list[tuple[str, str]]]:
    model, memory, speed, kept = plan["model"], plan["memory"], plan["speed"], plan["checkpoints"]
    stages = [
        (f"{name} stage", f"{stage['steps']:,} steps, {_count(stage['tokens'])} tokens")
        for name, stage in plan["stages"].items()
        if stage["steps"]
    ]
    parts = [(name, size_text(size)) for name, size in memory["parts"].items()]
    verdict = "fits" if memory["fits"] else "does not fit"
    room = f"{verdict} in {size_text(memory['device'])} with {HEADROOM:.0%} left free"
    host = [(f"{name}, CPU memory", size_text(size)) for name, size in memory["host"].items() if size]
    per_token = model["FLOPs a token"], model["FLOPs a token, full attention"]
    what = "of the data sheet, full attention" if plan["device"] != "cpu" else "of a measured product, causal attention"
    own = plan["layout"]
    return {
        plan["recipe"]: [
            ("parameters", f"{model['parameters']:,}, {model['parameters in blocks']:,} of them in blocks"),
            ("FLOPs a token", f"{_count(per_token[0])}; with full attention {_count(per_token[1])}"),
            *stages,
            ("FLOPs in all", f"{plan['FLOPs']:.3g}"),
        ],
        f"Memory of each {plan['device']}, in the {memory['phase']}": [
            *parts,
            ("peak", f"{size_text(memory['peak'])}: {room}"),
            *host,
        ],
        f"Time and cost on {plan['devices']} x {plan['device']}, {plan['precision']}": [
            ("layout", f"{_mesh(own)} (replicate x shard x context x tensor)"),
            ("MFU", f"{speed['mfu']:.1%} {what} ({speed['mfu from']})"),
            ("tokens/s", f"{speed['tokens per second']:,.0f}, sending between devices not counted"),
            ("days", f"{speed['days']:,.2f}"),
            ("device hours", f"{speed['device hours']:,.1f}"),
            (
                "cost",
                f"${speed['dollars']:,.2f} at ${speed['dollars a device hour']:,.2f} an hour ({speed['price from']})",
            ),
            ("checkpoint", f"{size_text(kept['bytes'])}; {kept['kept']} kept are {size_text(kept['bytes kept'])}"),
            ("disk here", f"has room for {kept['fit on the disk here']:,} more"),
        ],
    }


def _layouts(plan: dict[str, Any]) -> Table:
    table = Table(box=None, title="Layouts that fit", title_justify="left", title_style="bold", pad_edge=False)
    for head in ("layout", "rows", "x", "kept", "memory", "tokens/s", "days"):
        table.add_column(head, justify="right", no_wrap=True)
    for option in plan["alternatives"]:
        table.add_row(*_row(option))
    return table


def _row(option: dict[str, Any]) -> Sequence[str]:
    return (
        _mesh(option),
        str(option["micro_batch_size"]),
        str(option["accumulation"]),
        f"{option['activation_memory_budget']:.0%}",
        size_text(option["bytes"]),
        f"{option['tokens per second']:,.0f}",
        f"{option['days']:,.2f}",
    )


def _mesh(option: dict[str, Any]) -> str:
    return " x ".join(str(option[axis]) for axis in ("replicate", "shard", "context", "tensor"))


def _count(value: float) -> str:
    """Return a large count for a reader.

    >>> _count(1_500_000_000_000), _count(40_000)
    ('1.5T', '40,000')
    """
    for unit, size in (("T", 1e12), ("B", 1e9), ("M", 1e6)):
        if value >= size:
            return f"{value / size:,.4g}{unit}"
    return f"{value:,.0f}"
