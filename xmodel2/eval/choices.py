"""The options of multiple-choice items as probabilities, from what an evaluation kept of each item.

    items/mmlu.jsonl -> read_choices -> log-likelihoods [items, options], nats -> softmax -> probability of each option

Items may have different numbers of options: a row is padded with minus infinity, which softmax makes a probability of 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xmodel2.errors import XmodelError
from xmodel2.eval.result_files import ITEMS_FOLDER, item_tasks, read_items


@dataclass(frozen=True)
class Choices:
    """N items with at most K options each."""

    loglikelihoods: np.ndarray
    """Less that of the chosen option, nats [N, K]."""
    targets: np.ndarray
    """Index of the right option [N]."""
    keys: tuple[str, ...]
    """What tells an item from all others of its task [N]."""
    parts: tuple[str, ...] = ()
    """Subject of each item [N]; empty for a task without."""

    @property
    def counts(self) -> np.ndarray:
        """Options of each item [N]."""
        return np.asarray(np.isfinite(self.loglikelihoods).sum(1))

    def probabilities(self, temperature: float | np.ndarray = 1.0) -> np.ndarray:
        """Return softmax(log-likelihoods / temperature) over the options [N, K]; one temperature for all, or for each [N]."""
        weights = np.exp(self.loglikelihoods / np.reshape(temperature, (-1, 1)))
        return np.asarray(weights / weights.sum(1, keepdims=True))

    def nats(self, temperature: float | np.ndarray = 1.0) -> np.ndarray:
        """Return -log of the right option's probability [N], also where that is too small to be told from 0."""
        scaled_NK = self.loglikelihoods / np.reshape(temperature, (-1, 1))
        own_N = scaled_NK[np.arange(len(self.targets)), self.targets]
        return np.asarray(np.logaddexp.reduce(scaled_NK, axis=1) - own_N)

    def subset(self, chosen: np.ndarray) -> "Choices":
        """Return the items of a mask [N] or of indices, in their order."""
        at = np.arange(len(self.targets))[chosen]
        return Choices(
            self.loglikelihoods[at],
            self.targets[at],
            tuple(self.keys[i] for i in at),
            tuple(self.parts[i] for i in at) if self.parts else (),
        )


def make_choices(
    option_loglikelihoods: Sequence[Sequence[float] | np.ndarray],
    targets: Sequence[int] | np.ndarray,
    parts: Sequence[str] = (),
    keys: Sequence[str] = (),
) -> Choices:
    """Return items from the log-likelihoods of each one's options, nats, and the index of the right one.

    Raises `XmodelError` naming an item with fewer than two options, a number that is not finite or a target out of range.
    """
    if not len(option_loglikelihoods):
        raise XmodelError("calibration: no items")
    names = tuple(keys) or tuple(str(i) for i in range(len(targets)))
    padded = np.full((len(targets), max(map(len, option_loglikelihoods))), -np.inf)
    for name, row, options, target in zip(names, padded, option_loglikelihoods, targets, strict=True):
        values = np.asarray(options, dtype=float)
        if len(values) < 2 or not np.isfinite(values).all():
            raise XmodelError(
                f"item {name}: needs finite log-likelihoods of two options or more, has {values.tolist()}"
            )
        if not 0 <= target < len(values):
            raise XmodelError(f"item {name}: the right option is number {target} of {len(values)}; they count from 0")
        row[: len(values)] = values - values.max()  # a constant that all options share is nothing
    return Choices(padded, np.asarray(targets, dtype=int), names, tuple(parts))


def read_choices(folder: Path, task: str) -> Choices:
    """Return the items of a task of an evaluation, sorted. Raises `XmodelError` for a task without options or that is absent."""
    path = folder / ITEMS_FOLDER / f"{task}.jsonl"
    if not path.is_file():
        raise XmodelError(f"{path}: no such items; the evaluation has {', '.join(item_tasks(folder))}")
    items = sorted(read_items(folder, task), key=lambda item: (item.get("part") or "", item["id"]))
    if not items:
        raise XmodelError(f"{path}: no items; evaluate {task} again")
    for item in items:
        if not item.get("options") or not isinstance(item["output"], list):
            raise XmodelError(f"{path}: {task} is not multiple choice: item {item['id']} has no options to choose from")
    parts = [_subject(item.get("part"), task) for item in items]
    keys = [f"{item.get('part') or task} {item['id']}" for item in items]
    try:
        targets = [_target(item) for item in items]
        return make_choices([item["output"] for item in items], targets, parts if any(parts) else (), keys)
    except (XmodelError, ValueError) as error:
        raise XmodelError(f"{path}: {error}; evaluate {task} again") from None


def _subject(part: str | None, task: str) -> str:
    """Return how a person reads the name of a subtask: "mmlu_high_school_physics" is "high school physics"."""
    return (part or "").removeprefix(f"{task}_").replace("_", " ")


def _target(item: dict[str, Any]) -> int:
    target, options = item["target"], item["options"]
    if isinstance(target, int):
        return target
    if target in options:
        return int(options.index(target))
    # WinoGrande's target is the end that both sentences share; which of the two is right follows from the score.
    if len(options) == 2 and item["correct"] is not None:
        return int(item["answer"] if item["correct"] else 1 - item["answer"])
    raise ValueError(f"item {item['id']}: the target {target!r} is none of its options")
