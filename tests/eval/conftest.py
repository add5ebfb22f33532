"""A small evaluation, as its folder looks when it has ended."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def option_items() -> Callable[..., list[dict[str, Any]]]:
    """Return what makes items with options A to D: what was chosen and what is right, a letter an item."""
    return _option_items


def _option_items(answers: str, rights: str, part: str | None = None) -> list[dict[str, Any]]:
    items = []
    for number, (answer, right) in enumerate(zip(answers, rights, strict=True)):
        correct = int(answer == right)
        items.append(
            {
                "id": number,
                "part": part,
                "prompt": f"Question {number}\nAnswer:",
                "options": [" A", " B", " C", " D"],
                "target": "ABCD".index(right),
                "output": [-1.0 if letter == answer else -3.0 for letter in "ABCD"],
                "answer": "ABCD".index(answer),
                "scores": {"acc": float(correct)},
                "correct": correct,
            }
        )
    return items


@pytest.fixture
def episodes() -> Callable[..., list[dict[str, Any]]]:
    """Return what makes items of an agent benchmark, one for each outcome given; an observation may be given, too."""
    return _episodes


def _episodes(outcomes: Sequence[str], observation: str = "Milhouse is a character.") -> list[dict[str, Any]]:
    items = []
    for number, outcome in enumerate(outcomes):
        solved = int(outcome == "solved")
        valid = outcome != "malformed actions"
        steps = [
            {
                **{"step": 1, "thought": "I search for him.", "action": "Search[Milhouse]", "observation": observation},
                **{"reward": 0.0, "done": False, "valid": True},
            },
            {
                **{
                    "step": 2,
                    "thought": "",
                    "action": "Finish[Nixon]" if valid else "Finish[",
                    "observation": "Ended.",
                },
                **{"reward": float(solved), "done": outcome != "out of steps", "valid": valid},
            },
        ]
        items.append(
            {
                **{"id": number, "part": "bridge", "doc_id": f"case-{number}", "prompt": f"Question: {number}?"},
                **{"options": None, "target": "Nixon", "output": " Finish[Nixon]", "answer": "Nixon"},
                **{"scores": {"exact_match": float(solved), "f1": float(solved)}, "correct": solved},
                **{"outcome": outcome, "steps": steps, "error": None},
            }
        )
    return items


@pytest.fixture
def evaluation(tmp_path: Path) -> Callable[..., Path]:
    """Return what writes an evaluation of given items by task into a folder."""

    def played(outcomes: dict[str, int]) -> dict[str, Any]:
        """Return what the entry of an agent benchmark has beside, and does not have."""
        world = "made-up encyclopedia, seed 0: 400 articles, 200 questions"
        said = {"world": world, "made_up": True, "examples": "the oracle in a made-up encyclopedia"}
        return {**said, "outcomes": outcomes, "mean_steps": 2.0, "of": None, "num_fewshot": 6, "version": None}

    def write(name: str, items: dict[str, list[dict[str, Any]]], **changes: Any) -> Path:
        folder = tmp_path / name
        (folder / "items").mkdir(parents=True)
        tasks = {}
        for task, rows in items.items():
            (folder / "items" / f"{task}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            metric = next(iter(rows[0]["scores"]))
            score = sum(row["correct"] or 0 for row in rows) / len(rows)
            tasks[task] = {
                "metric": metric,
                "score": score,
                "interval": [0.0, 1.0],
                "items": len(rows),
                "of": len(rows),
            }
            tasks[task] |= {"num_fewshot": 0, "version": 1.0, "metrics": {metric: score}}
            if "steps" in rows[0]:
                tasks[task] |= played(Counter(row["outcome"] for row in rows))
        results = {
            "model": {"name": name, "backend": "transformers", "fingerprint": "0123abcd", "parameters": 12_000_000}
            | {"dtype": "float32", "source": name},
            "settings": {"limit": None, "seed": 0, "data": "mirror"},
            "tasks": tasks,
            "suites": {},
            "seconds": 1.5,
            "xmodel2": "0",
            "lm_eval": "0",
        }
        (folder / "results.json").write_text(json.dumps({**results, **changes}))
        return folder

    return write
