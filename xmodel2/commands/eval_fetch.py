"""The command that copies benchmark sets from the Hub into a folder."""

from pathlib import Path

from xmodel2.arguments import Flag
from xmodel2.commands import importing_harness
from xmodel2.output import print_json, progress_bars


def eval_fetch(out: Path, suite: str = "", tasks: str = "", json: Flag = False) -> None:
    """Copy benchmark sets from the Hugging Face Hub into a folder that --data-dir reads on a machine without a network.

    Example: xmodel2 eval fetch --suite commonsense --out data/eval

    Args:
        out: folder to write; what is there whole is left as it is
        suite: comma-separated from commonsense, reasoning (default, with no tasks: both, and wikitext)
        tasks: comma-separated single tasks
        json: print the record of each file as one JSON object
    """
    from xmodel2.eval.tasks import resolve

    names = resolve(filter(None, suite.split(",")), filter(None, tasks.split(",")))
    if not names:
        names = resolve(["commonsense", "reasoning"], ["wikitext"])
    with importing_harness("eval fetch"):
        from xmodel2.eval.fetch import fetch
    with progress_bars() as progress:
        records = fetch(names, out, progress=progress)
    if json:
        print_json(records)
        return
    for name, record in records.items():
        print(f"{out / name}  {record['rows']:,} rows, {record['bytes']:,} bytes")
