"""What a run writes down: `metrics.jsonl` (a line a step, append-only, the truth) and the same in TensorBoard.

A resumed run writes the repeated steps again; a reader keeps the last line of a step, and passes over a line torn by a kill.
"""

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from xmodel2.errors import XmodelError

METRICS_FILE = "metrics.jsonl"


class MetricsWriter:
    """Append lines to a run's metrics, flushed one by one."""

    def __init__(self, run_dir: Path, start_step: int) -> None:
        path = run_dir / METRICS_FILE
        torn = path.exists() and path.stat().st_size > 0 and path.read_bytes()[-1:] != b"\n"
        self._file = open(path, "a", encoding="utf-8")
        if torn:
            self._file.write("\n")
        self._board = SummaryWriter(str(run_dir / "tensorboard"), purge_step=start_step + 1, flush_secs=10)

    def write(self, line: dict[str, Any]) -> None:
        """Append one line; its numbers go to TensorBoard under their key, nested ones under key/key."""
        try:
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()
        except OSError as error:
            raise XmodelError(
                f"{self._file.name}: cannot be written ({error}); free some space and --resume"
            ) from error
        for name, value in _numbers("", line):
            if name != "step":
                self._board.add_scalar(name, value, line["step"])

    def close(self) -> None:
        """Flush and close both."""
        with suppress(OSError):  # what could not be flushed was reported by `write`
            self._file.close()
        with suppress(OSError):
            self._board.close()


def _numbers(prefix: str, value: Any) -> Iterator[tuple[str, float]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _numbers(f"{prefix}/{key}" if prefix else key, inner)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield prefix, value


def read_metrics(run_dir: Path) -> list[dict[str, Any]]:
    """Return the lines of a run in step order; of a step written twice, the last."""
    path = Path(run_dir) / METRICS_FILE
    lines: dict[tuple[int, str], dict[str, Any]] = {}
    if path.exists():
        for text in path.read_text(encoding="utf-8", errors="replace").split("\n"):
            try:
                line = json.loads(text)
                lines[line["step"], line.get("kind", "train")] = line
            except (json.JSONDecodeError, TypeError, KeyError):
                continue
    return [lines[key] for key in sorted(lines)]
