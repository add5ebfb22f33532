"""The command that copies benchmark sets and the agents' data into a folder."""

from pathlib import Path
from typing import Any

from xmodel2.arguments import Flag
from xmodel2.commands import importing_harness
from xmodel2.output import print_json, progress_bars


def eval_fetch(
    out: Path,
    suite: str = "",
    tasks: str = "",
    wiki_pages: Flag = False,
    all_products: Flag = False,
    json: Flag = False,
) -> None:
    """Copy benchmark sets into a folder that --data-dir reads on a machine without a network; a stopped one goes on.

    Example: xmodel2 eval fetch --suite commonsense --out data/eval

    The agents' data (100 MB): xmodel2 eval fetch --suite agents --out data/eval

    Args:
        out: folder to write; what is there whole is left as it is
        suite: comma-separated from commonsense, reasoning (default, with no tasks: both, and wikitext), agents
        tasks: comma-separated single tasks
        wiki_pages: of fever, fetch all 5.4 million articles, too (1.7 GB)
        all_products: of webshop, fetch all 1.18 million products (5.7 GB) instead of 1,000
        json: print the record of each file as one JSON object
    """
    from xmodel2.errors import XmodelError
    from xmodel2.eval.tasks import AGENTS, resolve

    names = resolve(filter(None, suite.split(",")), filter(None, tasks.split(",")))
    if not names:
        names = resolve(["commonsense", "reasoning"], ["wikitext"])
    for option, given, needed in (("wiki-pages", wiki_pages, "fever"), ("all-products", all_products, "webshop")):
        if given and needed not in names:
            raise XmodelError(f"--{option} is of {needed}: give --tasks {needed}, or --suite agents")
    agents = [name for name in names if name in AGENTS]
    records = dict[str, dict[str, Any]]()
    with progress_bars() as progress:
        if others := [name for name in names if name not in AGENTS]:
            with importing_harness("eval fetch"):
                from xmodel2.eval.fetch import fetch
            records |= fetch(others, out, progress=progress)
        if agents:
            from xmodel2.eval.agents.fetch_files import fetch_agents

            records |= fetch_agents(agents, out, wiki_pages=wiki_pages, all_products=all_products, progress=progress)
    if json:
        print_json(records)
        return
    for name, record in records.items():
        print(f"{out / name}  {record['rows']:,} {record.get('unit', 'rows')}, {record['bytes']:,} bytes")
