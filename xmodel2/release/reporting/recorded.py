"""A run's metrics.jsonl as columns, read on from where it was read to: a long run's file is read once.

metrics.jsonl --new lines--> a row a step of each column; lines of other kinds by step; marks where the run went astray
"""

import json
import os
from array import array
from bisect import bisect_left
from dataclasses import dataclass, field
from math import isfinite, nan
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from xmodel2.train.metrics import METRICS_FILE

COLUMNS = ("loss", "learning_rate", "grad_norm", "tokens_per_second", "mfu", "memory_bytes", "seconds")
MOST_STEPS = 10**12
"""Of a run; a line of a later step is damaged."""


class Mark(NamedTuple):
    """Something at a step that a curve alone does not show."""

    step: int
    text: str


@dataclass
class _Read:
    """What the lines so far say."""

    offset: int = 0
    lines: int = 0
    file: tuple[int, int] = (0, 0)
    damaged: list[int] = field(default_factory=list)
    steps: array = field(default_factory=lambda: array("q"))
    columns: dict[str, array] = field(default_factory=lambda: {name: array("d") for name in COLUMNS})
    skipped: dict[int, str] = field(default_factory=dict)
    repeats: dict[int, int] = field(default_factory=dict)
    others: dict[str, dict[int, dict[str, Any]]] = field(default_factory=dict)
    last: int = 0


class Recorded:
    """What a run has written down so far; of a step written twice the last line counts, as `read_metrics` has it."""

    def __init__(self, run_dir: Path) -> None:
        self.path = run_dir / METRICS_FILE
        self._read = _Read()
        self.read_on()

    def read_on(self) -> bool:
        """Take the lines that were added; tell whether there were any. A file that was replaced is read from its start."""
        try:
            handle = open(self.path, "rb")
        except FileNotFoundError:
            changed, self._read = bool(self._read.offset), _Read()
            return changed
        with handle:
            status = os.fstat(handle.fileno())
            file = status.st_dev, status.st_ino
            if file != self._read.file or status.st_size < self._read.offset:
                self._read = _Read(file=file)
            before = self._read.offset
            handle.seek(before)
            for line in handle:
                if not line.endswith(b"\n"):
                    break  # it is being written
                self._read.offset += len(line)
                self._read.lines += 1
                self._take(line)
        return self._read.offset != before

    @property
    def steps(self) -> np.ndarray:
        """Steps that were made, ascending."""
        return np.array(self._read.steps, dtype=np.int64)

    @property
    def last_step(self) -> int:
        """The step of the file's last line of a step, 0 if none was made."""
        return self._read.last

    @property
    def damaged(self) -> list[int]:
        """Numbers of the lines that cannot be read."""
        return self._read.damaged

    def column(self, name: str) -> np.ndarray:
        """Return one of `COLUMNS` by step; NaN where it was not written."""
        return np.array(self._read.columns[name])

    def lines(self, kind: str) -> list[dict[str, Any]]:
        """Return the lines of another kind (heldout, evaluation) by step."""
        return [line for _, line in sorted(self._read.others.get(kind, {}).items())]

    def marks(self) -> list[Mark]:
        """Return where the guard skipped a step, and where a run went on from an earlier one, by step."""
        marks = [Mark(step, f"skipped: {reason}") for step, reason in self._read.skipped.items()]
        for step, came_from in self._read.repeats.items():
            marks.append(Mark(step, f"went on here again, after step {came_from:,}"))
        return sorted(marks)

    def _take(self, line: bytes) -> None:
        if not line.strip():
            return
        try:
            row = json.loads(line)
            step, kind = int(row["step"]), str(row.get("kind", "train"))
            values = {name: _number(row.get(name)) for name in COLUMNS}
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
            step = -1
        if not 0 <= step <= MOST_STEPS:
            self._read.damaged.append(self._read.lines)
            return
        if kind not in ("train", "skipped"):
            self._read.others.setdefault(kind, {})[step] = row
            return
        if step <= self._read.last:
            self._read.repeats[step] = self._read.last
        self._read.last = step
        if kind == "skipped":
            self._read.skipped[step] = str(row.get("reason", "no reason given"))
            self._put(step, {})
        else:
            self._read.skipped.pop(step, None)
            self._put(step, values)

    def _put(self, step: int, row: dict[str, float]) -> None:
        steps, columns = self._read.steps, self._read.columns
        at = len(steps) if not steps or step > steps[-1] else bisect_left(steps, step)
        new = at == len(steps) or steps[at] != step
        if new and not row:
            return
        if new:
            steps.insert(at, step)
        for name, values in columns.items():
            if new:
                values.insert(at, row[name])
            else:
                values[at] = row.get(name, nan)


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) and isfinite(value) else nan
