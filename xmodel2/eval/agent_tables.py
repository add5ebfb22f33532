"""What stands beside an agent's score: the world that it holds in, who wrote the examples, and how the episodes ended."""

import re
from collections.abc import Mapping
from textwrap import shorten
from typing import Any

from xmodel2.eval.agents.outcome import OUTCOMES
from xmodel2.eval.paper import COLUMNS
from xmodel2.eval.tasks import AGENTS
from xmodel2.page import printable

_SHORT = 70  # letters of a world beside a number


def world(task: Mapping[str, Any]) -> str:
    """Return what an agent's score was made in, a sentence; "" for other tasks."""
    said = printable(str(task.get("world") or ""))
    return f"made up: {said}" if task.get("made_up") and "made-up" not in said else said


def world_in_short(task: Mapping[str, Any], letters: int = _SHORT) -> str:
    """Return the beginning of `world`, without what is in brackets.

    >>> world_in_short({"world": "HotpotQA dev, 100 of 7,405 questions (those there are); 991 articles of a/b.jsonl"}, 60)
    'HotpotQA dev, 100 of 7,405 questions; 991 articles of …'
    """
    return shorten(re.sub(r" \([^()]*\)", "", world(task)), letters, placeholder=" …", break_on_hyphens=False)


def played(results: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the entries of the agent benchmarks that were played."""
    return {name: results["tasks"][name] for name in AGENTS if "outcomes" in results["tasks"].get(name, {})}


def column_title(name: str) -> str:
    """Return the head of an agent benchmark's column in Table 4."""
    return COLUMNS[name].title


def origin(task: Mapping[str, Any]) -> str:
    """Return a whole world and who wrote the examples."""
    examples = printable(str(task.get("examples") or ""))
    return f"{world(task)}; examples by {examples}" if examples else world(task)


def examples_left_out(task: Mapping[str, Any]) -> str:
    """Return how many examples a prompt held on average, where the context had no room for all; "" where it had.

    >>> examples_left_out({"num_fewshot": 6, "examples_shown": 0.5})
    '0.5 of 6 examples fitted'
    """
    shots, held = task.get("num_fewshot"), task.get("examples_shown")
    return f"{held:.1f} of {shots} examples fitted" if shots and held is not None and held < shots else ""


def outcome_table(tasks: Mapping[str, Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Return head and rows: a task's episodes by how they ended, and their mean number of steps."""
    seen = {kind for task in tasks.values() for kind, count in task["outcomes"].items() if count}
    kinds = [kind for kind in OUTCOMES if kind in seen] + sorted(seen.difference(OUTCOMES))
    head = ["task", "episodes", *map(printable, kinds), "mean steps"]
    rows = []
    for name, task in tasks.items():
        counts = [f"{task['outcomes'].get(kind, 0):,}" for kind in kinds]
        steps = task.get("mean_steps")
        rows.append([column_title(name), f"{task['items']:,}", *counts, "" if steps is None else f"{steps:.1f}"])
    return head, rows


def endings(task: Mapping[str, Any]) -> str:
    """Return how a task's episodes ended, in words.

    >>> endings({"outcomes": {"solved": 3, "wrong": 0, "out of steps": 1}, "mean_steps": 4.25})
    '3 solved, 1 out of steps; 4.2 steps on average'
    """
    counts = ", ".join(f"{count:,} {printable(kind)}" for kind, count in task["outcomes"].items() if count)
    steps = task.get("mean_steps")
    return counts if steps is None else f"{counts}; {steps:.1f} steps on average"
