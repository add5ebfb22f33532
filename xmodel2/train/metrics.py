"""What a run writes down: `metrics.jsonl` (a line a step, append-only, the truth), and the same to trackers.

A line without `kind` is a step's; kinds are `skipped` (the guard did not apply the step), `heldout`, `samples`, `norms` and
`evaluation`. A run that resumes or goes back writes repeated steps again: a reader keeps the last line of a step, and passes
over a torn one.
"""

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from xmodel2.errors import XmodelError
from xmodel2.recipe import Recipe
from xmodel2.train.trackers import Tracker, open_trackers

METRICS_FILE = "metrics.jsonl"


class MetricsWriter:
    """Append lines to a run's metrics, flushed one by one; on ranks other than 0 it does nothing."""

    def __init__(
        self,
        run_dir: Path,
        start_step: int,
        trackers: Sequence[str] = ("tensorboard",),
        recipe: Recipe | None = None,
        rank: int = 0,
    ) -> None:
        """Go on after ``start_step``. Raises `XmodelError` if the package of a tracker is not installed."""
        self._file: TextIO | None = None
        self._trackers: list[Tracker] = []
        if rank:
            return
        path = run_dir / METRICS_FILE
        torn = path.exists() and path.stat().st_size > 0 and path.read_bytes()[-1:] != b"\n"
        self._trackers = open_trackers(trackers, run_dir, recipe or Recipe(), start_step)
        self._file = open(path, "a", encoding="utf-8")
        if torn:
            self._file.write("\n")

    def write(self, line: dict[str, Any]) -> None:
        """Append one line; trackers get its numbers under their key, nested ones under key/key."""
        if self._file is None:
            return
        try:
            self._file.write(json.dumps(_strict(line), allow_nan=False) + "\n")
            self._file.flush()
        except OSError as error:
            raise XmodelError(
                f"{self._file.name}: cannot be written ({error}); free some space and --resume"
            ) from error
        numbers = {name: value for name, value in _numbers("", _tracked(line)) if name != "step"}
        for tracker in self._trackers:
            tracker.write(line["step"], numbers)

    def close(self) -> None:
        """Flush and close the file and the trackers."""
        if self._file is not None:
            with suppress(OSError):  # what could not be flushed was reported by `write`
                self._file.close()
        for tracker in self._trackers:
            tracker.close()


def _strict(value: Any) -> Any:
    """Return a value as JSON has it, which knows no number that is not finite: such a one is text."""
    if isinstance(value, dict):
        return {key: _strict(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_strict(inner) for inner in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _numeric(value: Any) -> Any:
    """Return a value that `_strict` made text as it was."""
    if isinstance(value, dict):
        return {key: _numeric(inner) for key, inner in value.items()}
    return float(value) if isinstance(value, str) and value in ("nan", "inf", "-inf") else value


def _tracked(line: dict[str, Any]) -> dict[str, Any]:
    """Return what trackers get of a line: an evaluation's seconds are no step's."""
    if line.get("kind") == "evaluation":
        return {"eval": {**line.get("scores", {}), "seconds": line["seconds"]}}
    return line


def _numbers(prefix: str, value: Any) -> Iterator[tuple[str, float]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _numbers(f"{prefix}/{key}" if prefix else key, inner)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield prefix, value


def read_metrics(run_dir: Path) -> list[dict[str, Any]]:
    """Return the lines of a run in step order; of a step written twice, or once skipped and once made, the last."""
    lines: dict[tuple[int, str], dict[str, Any]] = {}
    for line in written_lines(run_dir):
        kind = line.get("kind", "train")
        lines[line["step"], "train" if kind == "skipped" else kind] = line
    return [lines[key] for key in sorted(lines)]


def written_lines(run_dir: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of a run as they were written, without torn ones."""
    path = Path(run_dir) / METRICS_FILE
    if not path.exists():
        return
    for text in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        with suppress(json.JSONDecodeError):
            line = json.loads(text)
            if isinstance(line, dict) and isinstance(line.get("step"), int) and isinstance(line.get("kind", ""), str):
                if "heldout" in line:
                    line["heldout"] = _numeric(line["heldout"])
                yield line
