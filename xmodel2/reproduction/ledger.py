"""What a reproduction leaves to be read: the ledger of claims, and the small files that every figure in it comes from.

OUT/ledger.md      claims, verdicts, stages with their commands and times
OUT/results/       the stages' result files and figures, without weights and text
OUT/report.html    all of it in one page
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from xmodel2.files import publish_folder, write_json_atomic, write_text_atomic
from xmodel2.release.markdown import fenced, table
from xmodel2.release.reporting.build import build_report
from xmodel2.release.reporting.claims import ledger
from xmodel2.reproduction.cost import cost_rows
from xmodel2.reproduction.road import Road
from xmodel2.reproduction.stage import Records
from xmodel2.train.metrics import METRICS_FILE

LEDGER_FILE, RESULTS_FOLDER, PAGE = "ledger.md", "results", "report.html"
HEAD = ("claim of the report", "verdict", "measured here", "at the scale of", "command")
_MOST_BYTES = 400_000
"""Of one file among the results."""
_KEPT = (".json", ".jsonl", ".svg", ".toml", ".md")
_LEFT_OUT = (
    "checkpoints",
    "tensorboard",
    "runs",
    "trials",
    "workers",
    "decays",
    "stable",
    "locks",
    "samples",
    "profile",
)


def write_ledger(road: Road) -> list[list[str]]:
    """Write the ledger, the results and the page of what is done so far, in this order; return a row a claim."""
    folders = road.result_folders
    if not folders:
        return []
    rows = ledger(folders)
    write_text_atomic(road.out / LEDGER_FILE, _markdown(road, rows))
    write_json_atomic(road.out / "ledger.json", [dict(zip(HEAD, row, strict=True)) for row in rows])
    collect(road)
    build_report(folders, road.out / PAGE)
    return rows


def collect(road: Road) -> None:
    """Put the small files of all results into OUT/results."""
    beside = road.out / f".{RESULTS_FOLDER}.tmp"
    shutil.rmtree(beside, ignore_errors=True)
    for folder in (*road.result_folders, road.out / "data", road.out / "stages", road.out / "recipes"):
        for path in _small_files(folder):
            target = beside / path.relative_to(road.out)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    for name in (LEDGER_FILE, "ledger.json"):
        shutil.copyfile(road.out / name, beside / name)
    publish_folder(beside, road.out / RESULTS_FOLDER)


def plan_rows(road: Road, states: Mapping[str, str], flops_per_second: float) -> list[dict[str, Any]]:
    """Return a row a stage: state, purpose, and what it will take."""
    cost = {row["stage"]: row for row in cost_rows(road.scale, flops_per_second)}
    rows = []
    for stage in road.stages:
        row = cost.get(stage.name, {})
        taken = {key: row.get(key, 0) for key in ("runs", "tokens", "flops", "seconds", "bytes")}
        rows.append({"stage": stage.name, "state": states[stage.name], "purpose": stage.purpose, **taken})
    return rows


def _small_files(folder: Path) -> Iterator[Path]:
    if not folder.is_dir():
        return
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name in _LEFT_OUT:
            continue
        if path.is_dir():
            yield from _small_files(path)
        elif path.suffix in _KEPT and (path.stat().st_size <= _MOST_BYTES or path.name == METRICS_FILE):
            yield path


def _markdown(road: Road, rows: Sequence[Sequence[str]]) -> str:
    records = Records(road.out, road.stages)
    stages = []
    commands = []
    for stage in road.stages:
        record = records.read(stage.name)
        if record.get("finished"):
            stages.append([stage.name, stage.purpose, f"{record['seconds'] / 60:.1f}", record["finished"][:10]])
            commands += record["commands"]
    parts = [
        f"# The claims, measured at scale {road.scale.name}",
        "A verdict is said of its scale alone. Every figure comes from the files in `results/`, which the commands below made.",
        table(HEAD, rows, numbers=False),
        "## Stages",
        table(["stage", "what it does", "minutes", "done"], stages, numbers=False),
        fenced("\n".join(commands), "sh"),
    ]
    return "\n\n".join(parts) + "\n"
