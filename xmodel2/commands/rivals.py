"""The command that lists the models of the report's tables."""

from typing import TYPE_CHECKING, Any

import tyro
from rich.table import Table

from xmodel2.arguments import Flag
from xmodel2.output import print_dict, print_json, print_wide

if TYPE_CHECKING:
    from xmodel2.eval.rivals import Rival


def rivals(name: tyro.conf.Positional[str | None] = None, /, json: Flag = False) -> None:
    """List the fourteen models the report compares itself with: hub ids, sizes, averages, and what they need to load.

    Example: xmodel2 rivals

    Everything about one, with its scores: xmodel2 rivals Phi-1.5-1.3B

    Args:
        name: a rival's name or hub id
        json: print one JSON object
    """
    from xmodel2.eval.rivals import RIVALS, find_rival

    if name is not None:
        return print_dict(_describe(find_rival(name)), json)
    if json:
        return print_json({"rivals": [_describe(rival) for rival in RIVALS]})
    table = Table("model", "hub id", "parameters", "commonsense", "reasoning", "agents", "class")
    for column in table.columns[2:6]:
        column.justify = "right"
    for rival in RIVALS:
        averages = _describe(rival)["paper"]
        table.add_row(
            rival.name,
            rival.hub,
            f"{rival.parameters / 1e9:.2f} B",
            *(
                f"{averages[suite]['average']:.2f}" if suite in averages else "-"
                for suite in ("commonsense", "reasoning", "agents")
            ),
            "transformers" if rival.native else rival.code,
        )
    # Into a file or a narrow window lines are longer instead of broken: hub ids are there to be copied.
    print_wide(table)


def _describe(rival: "Rival") -> dict[str, Any]:
    """Return a rival's entry, whether `transformers` has its class, and its rows of the report by suite (percent)."""
    from dataclasses import asdict

    from xmodel2.eval.paper import PAPER, SUITES

    rows = {row.table: row for row in PAPER if row.model == rival.name}
    paper = {
        suite: {**rows[table].scores, "average": rows[table].average, "source": rows[table].source}
        for suite, table in SUITES.items()
        if table in rows
    }
    return {**asdict(rival), "native": rival.native, "paper": paper}
