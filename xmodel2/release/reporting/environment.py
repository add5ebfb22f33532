"""On what a run was made, and the recipe that repeats it."""

from html import escape
from pathlib import Path
from typing import Any

from xmodel2.files import read_json_lines
from xmodel2.page import printable, table
from xmodel2.release.reporting.section import Section
from xmodel2.train.environment import ENVIRONMENT_FILE
from xmodel2.train.run_dir import RECIPE_FILE


def environment_section(run_dir: Path) -> Section:
    """Return hardware, versions and recipe of a run."""
    rows = [_row(line) for line in read_json_lines(run_dir / ENVIRONMENT_FILE)]
    head = ["from step", "began", "device", "ranks", "threads", "system", "versions"]
    parts = [table(head, rows, "Each start of the run")] if rows else ["<p>What it was made on was not recorded.</p>"]
    text = (run_dir / RECIPE_FILE).read_text(encoding="utf-8")
    parts.append(
        f"<details><summary>Recipe: <code>xmodel2 train {escape(RECIPE_FILE)}</code> repeats the run</summary>"
        f"<pre>{escape(text)}</pre></details>"
    )
    return Section("environment", "Environment and recipe", "\n".join(parts))


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
