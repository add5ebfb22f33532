"""The command that compares two evaluations."""

from pathlib import Path
from typing import Any

import tyro

from xmodel2.arguments import Flag
from xmodel2.output import print_json, print_wide

_SHOWN = 40  # characters of an answer


def eval_compare(
    a: tyro.conf.Positional[Path],
    b: tyro.conf.Positional[Path],
    /,
    items: Flag = False,
    json: Flag = False,
) -> None:
    """Compare two evaluations item by item, with a paired test for each task and for the mean over tasks.

    Example: xmodel2 eval compare runs/nano/evaluation/step-1000 runs/nano/evaluation/step-2000 --items

    Args:
        a: folder that an evaluation wrote (--out)
        b: folder of another; differences are B minus A
        items: list the items on which the two differ
        json: print everything as one JSON object (with --items, their list too)
    """
    from xmodel2.eval.compare import compare

    result = compare(a, b)
    if json:
        if not items:
            for row in result["tasks"].values():
                row.pop("differ")
        return print_json(result)
    _print_tasks(result)
    if items:
        _print_items(result)


def _print_tasks(result: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    for side in ("a", "b"):
        print(f"{side.upper()}: {_short(result[side]['name'])}  ({result[side]['folder']})")
    head = ("task", "items", "A", "B", "B - A", "95% interval", "won", "lost", "p", "p, Holm")
    table = Table(*head, box=None, pad_edge=False)
    for column in table.columns:
        column.no_wrap = True
        column.justify = "left" if column.header == "task" else "right"
    compared = {task: row for task, row in result["tasks"].items() if row["items"]}
    for task, row in compared.items():
        cells = [
            f"{row['items']:,}",
            *_scores(row),
            f"{row['won']:,}",
            f"{row['lost']:,}",
            _p(row["p"]),
            _p(row["p_holm"]),
        ]
        name = task if row["unit"] == "share" else f"{task}, {row['unit']}"
        table.add_row(escape(name), *cells)
    means = {f"mean of {name}": mean for name, mean in result["suites"].items() if mean["tasks"] > 1}
    if result["overall"]:
        means["mean of all tasks"] = result["overall"]
    for name, mean in means.items():
        table.add_row(name, f"{mean['items']:,}", "", "", *_difference(mean), "", "", _p(mean["p"]))
    print_wide(table)
    for line in _left_out(result):
        Console().print(line, markup=False, highlight=False, style="yellow", soft_wrap=True)


def _scores(row: dict[str, Any]) -> list[str]:
    if row["unit"] == "share":
        return [f"{row['a']:.2%}", f"{row['b']:.2%}", *_difference(row)]
    low, high = row["interval"]
    return [f"{row['a']:.3f}", f"{row['b']:.3f}", f"{row['difference']:+.4f}", f"{low:+.4f} .. {high:+.4f}"]


def _difference(row: dict[str, Any]) -> tuple[str, str]:
    """Return difference and interval of shares in points (hundredths)."""
    low, high = row["interval"]
    return f"{100 * row['difference']:+.2f}", f"{100 * low:+.2f} .. {100 * high:+.2f}"


def _p(value: float) -> str:
    return "< 0.0001" if value < 1e-4 else f"{value:.4f}"


def _left_out(result: dict[str, Any]) -> list[str]:
    """Return what was not compared, and why."""
    from xmodel2.eval.compare import why_left_out

    lines = []
    for task, row in result["tasks"].items():
        if "worlds" in row:
            lines.append(f"{task}: left out {len(row['other_question']):,} episodes, {why_left_out(row)}")
        elif other := row["other_question"]:
            ids = ", ".join(_item(entry) for entry in other[:5])
            dots = ", ..." if len(other) > 5 else ""
            lines.append(f"{task}: left out {len(other):,} items that were asked in other words ({ids}{dots})")
        for side in ("a", "b"):
            if count := row[f"only_in_{side}"]:
                lines.append(f"{task}: left out {count:,} items that only {side.upper()} has")
    for side in ("a", "b"):
        if tasks := result[f"only_{side}"]:
            lines.append(f"only {side.upper()} has {', '.join(tasks)}")
    return lines


def _item(entry: dict[str, Any]) -> str:
    return f"{entry['part']} {entry['id']}" if entry["part"] else str(entry["id"])


def _print_items(result: dict[str, Any]) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table("task", "item", "A", "B", "A's answer", "B's answer", "target", box=None, pad_edge=False)
    for task, row in result["tasks"].items():
        for entry in row["differ"]:
            answers = [_short(entry["a"]["answer"]), _short(entry["b"]["answer"]), _short(entry["target"])]
            scores = [f"{entry[side]['score']:g}" for side in ("a", "b")]
            table.add_row(*map(escape, (task, _item(entry), *scores, *answers)))
    if table.row_count:
        print_wide(table)
    else:
        print("The two agree on every item.")


def _short(answer: Any) -> str:
    """Return an answer on one line, cut; characters that would move a terminal's cursor are written out."""
    from xmodel2.page import printable

    text = printable(" ".join(str(answer).split()))
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
