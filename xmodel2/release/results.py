"""All that was measured of a run: its own results.json, and the evaluations below RUN/evaluation, later steps over earlier."""

from pathlib import Path
from typing import Any

from xmodel2.eval.result_files import RESULTS_FILE
from xmodel2.files import read_json


def step_folders(run_dir: Path, kind: str = "evaluation") -> list[Path]:
    """Return the folders of what was measured of a run, by step."""
    found = [path for path in (run_dir / kind).glob("step-*") if path.name[5:].isdigit()]
    return sorted(found, key=lambda path: int(path.name[5:]))


def run_results(run_dir: Path) -> dict[str, Any]:
    """Return ``steps``, ``heldout``, ``questions`` and ``baselines`` by stage, as far as they were measured."""
    results: dict[str, Any] = read_json(run_dir / RESULTS_FILE) or {}
    for folder in step_folders(run_dir):
        found = read_json(folder / RESULTS_FILE) or {}
        for part in ("steps", "heldout", "questions"):
            results[part] = {**results.get(part, {}), **found.get(part, {})}
    return results
