"""All that was measured of a run: its own results.json, and the evaluations below RUN/evaluation, later steps over earlier."""

from pathlib import Path
from typing import Any

from xmodel2.eval.result_files import RESULTS_FILE
from xmodel2.files import read_json
from xmodel2.train.checkpoint import step_of


def step_folders(run_dir: Path, kind: str = "evaluation") -> list[Path]:
    """Return the folders of what was measured of a run, by step."""
    steps = {path: step_of(path, "step-") for path in (run_dir / kind).glob("step-*")}
    found = {path: step for path, step in steps.items() if step is not None}
    return sorted(found, key=found.__getitem__)


def run_results(run_dir: Path) -> dict[str, Any]:
    """Return ``steps``, ``heldout``, ``questions`` and ``baselines`` by stage, as far as they were measured."""
    results: dict[str, Any] = read_json(run_dir / RESULTS_FILE) or {}
    for folder in step_folders(run_dir):
        found = read_json(folder / RESULTS_FILE) or {}
        for part in ("steps", "heldout", "questions"):
            results[part] = {**results.get(part, {}), **found.get(part, {})}
    return results
