"""What an evaluation leaves in its folder: results.json, and items/TASK.jsonl with a line an item."""

from pathlib import Path
from typing import Any

from xmodel2.errors import XmodelError
from xmodel2.files import read_json, read_json_lines

RESULTS_FILE, ITEMS_FOLDER = "results.json", "items"
_NEEDED = ("id", "prompt", "output", "answer", "scores", "correct")


def read_results(folder: Path) -> dict[str, Any]:
    """Return results.json. Raises `XmodelError` if the folder has none, or one that no evaluation wrote."""
    results = read_json(folder / RESULTS_FILE)
    if results is None:
        raise XmodelError(
            f"{folder}: no {RESULTS_FILE}; give the folder that `xmodel2 eval MODEL --out` wrote to its end"
        )
    missing = [key for key in ("model", "settings", "tasks") if not isinstance(results, dict) or key not in results]
    if missing:
        raise XmodelError(f"{folder / RESULTS_FILE}: has no {missing[0]!r}; evaluate the model again, with --overwrite")
    return dict(results)


def item_tasks(folder: Path) -> list[str]:
    """Return the tasks whose items were kept, those of results.json in its order. Raises `XmodelError` if there are none."""
    tasks = read_results(folder)["tasks"]
    files = {path.stem for path in (folder / ITEMS_FOLDER).glob("*.jsonl")}
    if not files:
        raise XmodelError(f"{folder / ITEMS_FOLDER}: no items; evaluate the model again, with --out {folder}")
    return [task for task in tasks if task in files]


def read_items(folder: Path, task: str) -> list[dict[str, Any]]:
    """Return the items of a task. Raises `XmodelError` naming file, line and field of one that lacks something."""
    path = folder / ITEMS_FOLDER / f"{task}.jsonl"
    items = read_json_lines(path)
    for number, item in enumerate(items, 1):
        missing = [key for key in _NEEDED if key not in item]
        if missing:
            raise XmodelError(f"{path}, line {number}: has no {missing[0]!r}; evaluate {task} again")
    return items
