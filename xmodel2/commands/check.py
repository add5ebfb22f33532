"""The command that runs the project's own proofs."""

import tyro
from rich.console import Console
from rich.table import Table

from xmodel2.arguments import Flag
from xmodel2.output import print_json


def check(names: tyro.conf.Positional[tuple[str, ...]] = (), /, json: Flag = False) -> int:
    """Run the project's own proofs on the installed package and print a table.

    Example: xmodel2 check schedule params

    Args:
        names: which checks (default: all)
        json: print one JSON object
    """
    from xmodel2.checks import run_checks

    rows = run_checks(names)
    if json:
        print_json({"checks": rows})
    else:
        table = Table("check", "passed", "figure", "bound")
        for row in rows:
            table.add_row(row["name"], "yes" if row["passed"] else "NO", f"{row['figure']:.6g}", str(row["bound"]))
        Console().print(table)
    return 0 if all(row["passed"] for row in rows) else 1
