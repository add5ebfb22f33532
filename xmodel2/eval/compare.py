"""Two evaluations item by item: what one model answers and the other does not, and whether that is more than chance.

    items of A, items of B --same task, part, number, prompt, options and target--> pairs --> B minus A

Episodes of agents pair only if both were played in the same world, after the same examples.

Right-or-wrong scores: McNemar's exact test. Other scores, and the mean over tasks: sign flips. Intervals: bootstrap of pairs
within each task. p-values of single tasks are corrected for their number (Holm, 1979).
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xmodel2.errors import XmodelError
from xmodel2.eval.agent_tables import origin
from xmodel2.eval.intervals import bootstrap_average
from xmodel2.eval.paired import flip_p, flipped_means, holm, mcnemar
from xmodel2.eval.result_files import ITEMS_FOLDER, item_tasks, read_items, read_results
from xmodel2.eval.tasks import SUITES

Key = tuple[str | None, int | str]
_SURROUNDINGS = ("world", "data_fingerprint", "examples")  # of agents: not in a prompt, and change what it asks


@dataclass(frozen=True)
class _Pairs:
    """Items of a task that both models were asked in the same words."""

    a: np.ndarray
    """Scores of A [N]."""
    b: np.ndarray
    """Scores of B [N]."""
    share: bool = True
    """Whether a score is a share; else it is a log-probability, and no part of means over tasks."""

    @property
    def difference(self) -> np.ndarray:
        """B minus A, by item [N]."""
        return self.b - self.a

    @property
    def binary(self) -> bool:
        """Whether every item is right or wrong."""
        return bool(np.isin([self.a, self.b], (0, 1)).all())


@dataclass(frozen=True)
class _Compared:
    difference: np.ndarray
    """B minus A, by item [N]."""
    flips: np.ndarray
    """Their mean, had each sign been thrown by a coin [draws]."""


def compare(folder_a: Path, folder_b: Path, draws: int = 10_000, seed: int = 0) -> dict[str, Any]:
    """Return both models, differences (B minus A) by task, by suite and over all tasks, and the items that differ.

    Raises `XmodelError` for a folder without items, or two without an item in common.
    """
    folders = (Path(folder_a), Path(folder_b))
    tasks = [item_tasks(folder) for folder in folders]
    results = [read_results(folder) for folder in folders]
    common = [task for task in tasks[0] if task in tasks[1]]
    if not common:
        raise XmodelError(
            f"{folders[0] / ITEMS_FOLDER} has {', '.join(tasks[0])} and {folders[1] / ITEMS_FOLDER} has "
            f"{', '.join(tasks[1])}: no task in common; evaluate one model on the other's tasks"
        )
    rng = np.random.default_rng(seed)
    rows: dict[str, dict[str, Any]] = {}
    compared: dict[str, _Compared] = {}
    for task in common:
        entries = [result["tasks"][task] for result in results]
        worlds = _worlds(*entries)
        items_a, items_b = (read_items(folder, task) for folder in folders)
        rows[task], pairs = _match(task, entries[0]["metric"], items_a, items_b, other_world=worlds is not None)
        rows[task] |= {"worlds": worlds} if worlds else {}
        if pairs is not None:
            flips = flipped_means(pairs.difference, draws, rng)
            rows[task] |= _task(pairs, flips, draws, seed)
            if pairs.share:
                compared[task] = _Compared(pairs.difference, flips)
    paired = [task for task, row in rows.items() if row["items"]]
    if not paired:
        reasons = "; ".join(f"{task}: {why_left_out(row)}" for task, row in rows.items())
        raise XmodelError(f"{folders[0]} and {folders[1]} have no item in common ({reasons})")
    for task, p in zip(paired, holm([rows[task]["p"] for task in paired]), strict=True):
        rows[task]["p_holm"] = p
    suites = {name: [task for task in tasks if task in compared] for name, tasks in SUITES.items()}
    return {
        "a": {"folder": str(folders[0]), **results[0]["model"]},
        "b": {"folder": str(folders[1]), **results[1]["model"]},
        "tasks": rows,
        "suites": {n: _mean([compared[task] for task in names], draws, seed) for n, names in suites.items() if names},
        "overall": _mean(list(compared.values()), draws, seed) if compared else None,
        "only_a": [task for task in tasks[0] if task not in common],
        "only_b": [task for task in tasks[1] if task not in common],
    }


def _mean(tasks: Sequence[_Compared], draws: int, seed: int) -> dict[str, Any]:
    """Return the difference of the mean over tasks, each counting the same whatever its number of items."""
    difference = float(np.mean([task.difference.mean() for task in tasks]))
    return {
        "tasks": len(tasks),
        "items": sum(len(task.difference) for task in tasks),
        "difference": difference,
        "interval": list(bootstrap_average([task.difference for task in tasks], draws=draws, seed=seed)),
        "p": flip_p(difference, np.mean([task.flips for task in tasks], axis=0)),
    }


def _match(
    task: str,
    metric: str,
    items_a: Sequence[dict[str, Any]],
    items_b: Sequence[dict[str, Any]],
    other_world: bool = False,
) -> tuple[dict[str, Any], _Pairs | None]:
    """Pair the items of a task; return what is said of them, and the scores, None if no pair is left."""
    of_a, of_b = _by_key(items_a), _by_key(items_b)
    both = [key for key in of_a if key in of_b]
    other_question = [key for key in both if other_world or _asked(of_a[key]) != _asked(of_b[key])]
    changed = set(other_question)
    same = [key for key in both if key not in changed]
    found = [[_score(of[key], metric, task) for key in same] for of in (of_a, of_b)]
    share = all(count is None for side in found for _, count in side)
    scores = [[value for value, _ in side] if share else _by_word(side) for side in found]
    row = {
        "metric": metric,
        "unit": "share" if share else f"nats a {'byte' if 'byte' in metric else 'word'}",
        "items": len(same),
        "only_in_a": len(of_a) - len(both),
        "only_in_b": len(of_b) - len(both),
        "other_question": [{"part": part, "id": number} for part, number in other_question],
        "differ": [
            {
                "part": key[0],
                "id": key[1],
                "target": of_a[key].get("target"),
                "a": {"score": a, "answer": of_a[key]["answer"]},
                "b": {"score": b, "answer": of_b[key]["answer"]},
            }
            for key, a, b in zip(same, *scores, strict=True)
            if a != b
        ],
    }
    return row, _Pairs(np.array(scores[0]), np.array(scores[1]), share) if same else None


def _worlds(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, str] | None:
    """Return what two agents were played in, by side, if it differs."""
    if ("world" not in a and "world" not in b) or all(a.get(key) == b.get(key) for key in _SURROUNDINGS):
        return None
    return {"a": origin(a), "b": origin(b)}


def _by_key(items: Sequence[dict[str, Any]]) -> dict[Key, dict[str, Any]]:
    return {(item.get("part"), item.get("doc_id", item["id"])): item for item in items}


def _asked(item: dict[str, Any]) -> bytes:
    """Return a digest of all that the model was asked."""
    asked = [item["prompt"], item.get("options"), item.get("target")]
    return hashlib.sha256(json.dumps(asked).encode()).digest()


def _score(item: dict[str, Any], metric: str, task: str) -> tuple[float, float | None]:
    """Return a share and None, or of a perplexity the text's log-probability and its words or bytes."""
    value = item["scores"].get(metric)
    match value:
        case int() | float():
            return float(value), None
        case [float() | int() as log_probability, int() | float() as count] if count > 0:
            return float(log_probability), float(count)
    raise XmodelError(f"items of {task}, id {item['id']}: no number for {metric!r} in 'scores'; evaluate {task} again")


def _by_word(side: Sequence[tuple[float, float | None]]) -> list[float]:
    """Return log-probabilities over the mean number of words, so that their mean is that of all words."""
    mean = float(np.mean([count or 1.0 for _, count in side]))
    return [value / mean for value, _ in side]


def _task(pairs: _Pairs, flips: np.ndarray, draws: int, seed: int) -> dict[str, Any]:
    difference = float(pairs.difference.mean())
    row: dict[str, Any] = {
        "a": float(pairs.a.mean()),
        "b": float(pairs.b.mean()),
        "difference": difference,
        "interval": list(bootstrap_average([pairs.difference], draws=draws, seed=seed)),
        "won": int((pairs.b > pairs.a).sum()),
        "lost": int((pairs.b < pairs.a).sum()),
    }
    if pairs.binary:
        row |= {"both": int((pairs.a * pairs.b).sum()), "neither": int(((1 - pairs.a) * (1 - pairs.b)).sum())}
        return {**row, "test": "McNemar exact", "p": mcnemar(row["won"], row["lost"])}
    return {**row, "test": "sign flips", "p": flip_p(difference, flips)}


def why_left_out(row: dict[str, Any]) -> str:
    """Return why items of a task, of which none was compared, were left out."""
    if worlds := row.get("worlds"):
        if worlds["a"] == worlds["b"]:
            return f"played with other data or settings, though both say {worlds['a']}"
        return f"played in other worlds, A in {worlds['a']}, B in {worlds['b']}"
    if row["other_question"]:
        return f"{len(row['other_question'])} items with other prompts, such as few-shot examples"
    return f"{row['only_in_a']} items only in the first, {row['only_in_b']} only in the second"
