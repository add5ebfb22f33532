"""On what a run was made, and the recipe that repeats it."""

from html import escape
from pathlib import Path
from typing import Any

from xmodel2.files import read_json_lines
from xmodel2.page import printable, table
from xmodel2.recipe import load_recipe, recipe_to_toml
from xmodel2.release.reporting.faults import told
from xmodel2.release.reporting.samples import text_of
from xmodel2.release.reporting.section import Section
from xmodel2.release.trained import without_paths
from xmodel2.train.environment import ENVIRONMENT_FILE
from xmodel2.train.run_dir import RECIPE_FILE


def environment_section(run_dir: Path) -> Section:
    """Return hardware, versions and recipe of a run; the recipe names no paths of its machine, since reports are passed on."""
    path = run_dir / ENVIRONMENT_FILE
    text = recipe_to_toml(without_paths(load_recipe(run_dir / RECIPE_FILE)))
    recipe = (
        f"<details><summary>Recipe: <code>xmodel2 train {escape(RECIPE_FILE)}</code> repeats the run</summary>"
        f"<pre>{text_of(text)}</pre></details>"
    )
    return Section("environment", "Environment and recipe", f"{told(lambda: _starts(path), path)}\n{recipe}")


def _starts(path: Path) -> str:
    rows = [_row(line) for line in read_json_lines(path)]
    head = ["from step", "began", "device", "ranks", "threads", "system", "versions"]
    return table(head, rows, "Each start of the run") if rows else "<p>What it was made on was not recorded.</p>"


def _row(line: dict[str, Any]) -> list[str]:
    versions = {"xmodel2": line["xmodel2"], "Python": line["python"], **line["packages"]}
    if line["cuda"]:
        versions["CUDA"] = line["cuda"]
    cells = [
        f"{line['step']:,}",
        line["time"],
        line["device"],
        str(line["ranks"]),
        f"{line['threads']} of {line['cores']} cores",
        line["system"],
        ", ".join(f"{name} {value}" for name, value in versions.items()),
    ]
    return [printable(cell) for cell in cells]
