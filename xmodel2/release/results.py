"""All that was measured of a run: its own results.json, and the evaluations below RUN/evaluation, later steps over earlier."""

from pathlib import Path
from typing import Any

from xmodel2.eval.calibration_page import calibration_section
from xmodel2.eval.result_files import ITEMS_FOLDER, RESULTS_FILE, read_results
from xmodel2.eval.result_page import result_sections
from xmodel2.eval.test_time import RESULT_FILE as SCALING_FILE
from xmodel2.eval.test_time_figure import scaling_section
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


def benchmark_sections(run_dir: Path) -> list[str]:
    """Return the HTML of benchmarks, calibration and test-time scaling, each from the last step that has it."""
    tables, calibration, scaling = "", "", ""
    for folder in step_folders(run_dir):
        if (folder / RESULTS_FILE).exists() and (results := read_results(folder))["tasks"]:
            there = (folder / ITEMS_FOLDER).is_dir()
            tables = result_sections(results, f"evaluation/{folder.name}/items.html" if there else None)
        calibration = calibration_section(folder) or calibration
    for folder in step_folders(run_dir, "scaling"):
        scaling = scaling_section(folder) if (folder / SCALING_FILE).exists() else scaling
    return [section for section in (tables, calibration, scaling) if section]
