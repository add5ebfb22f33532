"""Episodes of the agent benchmarks: of each environment one that was solved, if any was, and one that was not."""

from collections.abc import Sequence
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

from xmodel2.eval.result_files import ITEMS_FOLDER, read_items
from xmodel2.eval.tasks import AGENTS
from xmodel2.release.reporting.faults import told
from xmodel2.release.reporting.samples import text_of
from xmodel2.release.reporting.section import Section
from xmodel2.release.results import step_folders

_MOST_STEPS, _MOST_LETTERS = 12, 600


def agents_section(run_dir: Path) -> Section | None:
    """Return episodes of a run's newest evaluation of each environment, None if it played none."""
    newest: dict[str, Path] = {}
    for folder in step_folders(run_dir):
        newest |= {task: folder for task in AGENTS if (folder / ITEMS_FOLDER / f"{task}.jsonl").exists()}
    files = {task: folder / ITEMS_FOLDER / f"{task}.jsonl" for task, folder in newest.items()}
    parts = [told(partial(_task, task, folder), files[task]) for task, folder in newest.items()]
    if not parts:
        return None
    return Section("agents", "Agent transcripts", "\n".join(parts))


def _task(task: str, folder: Path) -> str:
    items = read_items(folder, task)
    shown = [episode for episode in (_first(items, solved=True), _first(items, solved=False)) if episode]
    link = f"evaluation/{folder.name}/items.html"
    episodes = "".join(_episode(task, episode) for episode in shown)
    return f'{episodes}<p>All {len(items):,} episodes of {escape(task)}: <a href="{link}">{link}</a></p>'


def _first(items: Sequence[dict[str, Any]], solved: bool) -> dict[str, Any] | None:
    """Return the first item that was (not) solved and has steps, a longer rather than a shorter one of those not solved."""
    found = [item for item in items if bool(item["correct"]) == solved and item.get("steps")]
    return min(found, key=lambda item: not any(step["valid"] for step in item["steps"]), default=None)


def _episode(task: str, item: dict[str, Any]) -> str:
    steps = "".join(
        f"<li>{_part('thought', step['thought'])}{_part('action', step['action'])}{_part('observation', step['observation'])}</li>"
        for step in item["steps"][:_MOST_STEPS]
    )
    count = len(item["steps"])
    rest = f"<p>{count - _MOST_STEPS} of its steps are left out</p>" if count > _MOST_STEPS else ""
    title = f"{task}, {item['doc_id']}: {item['outcome']} after {count} step{'s'[: count != 1]}"
    return (
        f'<details class="sample"><summary>{text_of(title)}</summary><pre>{_clipped(item["prompt"].strip())}</pre>'
        f'<ol class="episode">{steps}</ol>{rest}</details>'
    )


def _part(name: str, text: str) -> str:
    return f"<pre><b>{name}</b> {_clipped(text)}</pre>" if text else ""


def _clipped(text: str) -> str:
    return text_of(text if len(text) <= _MOST_LETTERS else f"{text[:_MOST_LETTERS]} ...")
