"""An evaluation is a folder: what was asked, every answer, every score, and the tables and pages made of them.

    out/answers.jsonl  items/TASK.jsonl  results.json  results.html  results.md  items.html

Tasks are scored one after the other, each written when it is done; called again, with more tasks or after a kill, what has
been answered is not asked again.
"""

import json
import shutil
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from xmodel2.errors import XmodelError
from xmodel2.eval.answer_cache import AnswerCache
from xmodel2.eval.backend import Backend
from xmodel2.eval.code_judge import CodeJudge
from xmodel2.eval.definitions import FEWSHOT_SEED, BuiltTask, build_tasks
from xmodel2.eval.harness import Items, Progress, run_task
from xmodel2.eval.intervals import Interval, average_interval, bootstrap_ratio, mean_interval
from xmodel2.eval.item_page import write_item_page
from xmodel2.eval.mirror import DataSource
from xmodel2.eval.result_files import ITEMS_FOLDER, RESULTS_FILE
from xmodel2.eval.result_page import write_result_page
from xmodel2.eval.tasks import SUITES, TASKS
from xmodel2.files import alone_in, read_json, write_json_atomic, write_text_atomic


def evaluate(
    backend: Backend,
    names: Sequence[str],
    out: Path,
    data: DataSource | None,
    *,
    limit: int | None = None,
    seed: int = FEWSHOT_SEED,
    progress: Progress | None = None,
    insist: bool = False,
    extra: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Score a model on tasks by our names, write the evaluation's folder, and return results.json.

    ``data`` may be None without tasks; ``extra`` are results of another kind that go beside them.
    ``seed`` draws few-shot examples (and samples, where a task samples). ``limit`` is of items a task. ``insist`` runs
    generated programs where no isolation can be had.
    Raises `XmodelError` if the folder holds another model's evaluation or is being written, and as tasks, data and model do.
    """
    with alone_in(out):
        settings = {"limit": limit, "seed": seed, "data": data.description if data else None}
        results = _begin(out, backend.description, settings, names) | (extra or {})
        write_json_atomic(out / RESULTS_FILE, results)
        cache = AnswerCache(out)
        for name in names:
            started = time.perf_counter()
            judge = CodeJudge(name, cache, insist)
            assert data is not None
            built = build_tasks([name], data, judge.passes, seed)[name]
            reports, items = run_task(built, backend, cache, limit, progress, judge.run if judge.needed else None, seed)
            _write_items(out, name, items)
            summary = task_summary(built, items, reports)
            results["tasks"][name] = {**summary, "seconds": round(time.perf_counter() - started, 2)}
            results["tasks"] = {task: results["tasks"][task] for task in TASKS if task in results["tasks"]}
            results["suites"] = suite_summaries(results["tasks"])
            write_json_atomic(out / RESULTS_FILE, results)
        if results["tasks"]:
            write_pages(out)
        return results


def discard(out: Path) -> None:
    """Remove an evaluation's folder. Raises `XmodelError` if it is something else, or another process writes to it."""
    if not out.exists():
        return
    with alone_in(out):
        before = read_json(out / RESULTS_FILE)
        if any(path.name != ".lock" for path in out.iterdir()) and not (isinstance(before, dict) and "model" in before):
            raise XmodelError(f"{out}: is not an evaluation's folder, so it is not overwritten; choose another --out")
        shutil.rmtree(out)


def write_pages(out: Path) -> None:
    """Write the tables and the item browser of an evaluation's folder anew."""
    write_result_page(out)
    write_item_page(out)


def _begin(out: Path, model: dict[str, Any], settings: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Return the results so far. Raises `XmodelError` if they are another model's, or of other settings."""
    before = read_json(out / RESULTS_FILE)
    if isinstance(before, dict) and "model" in before:
        if before["model"]["fingerprint"] != model["fingerprint"]:
            raise XmodelError(
                f"{out}: holds the evaluation of {before['model']['source']} ({before['model']['fingerprint']}), and this is"
                f" {model['source']} ({model['fingerprint']}); choose another --out"
            )
        if not names or before["settings"] == settings or not before["tasks"]:
            return {**before, "settings": settings if names else before["settings"]}
        # A table is of one limit, one seed and one data set; answers that fit are found again.
        if others := [name for name in before["tasks"] if name not in names]:
            said = ", ".join(f"{key} {value}" for key, value in before["settings"].items())
            raise XmodelError(f"{out}: holds {', '.join(others)} with {said}; give the same ones, or another --out")
        return {**before, "settings": settings, "tasks": {}}
    if isinstance(before, dict):
        raise XmodelError(f"{out / RESULTS_FILE}: is not an evaluation's; choose another --out")
    versions = {"xmodel2": version("xmodel2"), "lm_eval": version("lm_eval")}
    return {"model": model, "settings": settings, "tasks": {}, "suites": {}, **versions}


def _write_items(out: Path, name: str, items: Items) -> None:
    (out / ITEMS_FOLDER).mkdir(exist_ok=True)
    lines = (json.dumps(item) + "\n" for item in items)
    write_text_atomic(out / ITEMS_FOLDER / f"{name}.jsonl", "".join(lines))


def task_summary(built: BuiltTask, items: Items, reports: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return a task's entry in results.json; a score is the mean over items, as the harness weighs its groups."""
    task = built.task
    metrics = {name: _mean(items, name) for name in items[0]["scores"] if _is_number(items[0]["scores"][name])}
    if task.metric in metrics:
        score = metrics[task.metric]
        interval = mean_interval(np.array([item["scores"][task.metric] for item in items]))
    else:
        (report,) = reports.values()
        metrics = {name.removesuffix(",none"): value for name, value in report.items() if _is_number(value)}
        score, interval = metrics[task.metric], _ratio_interval(task.metric, items)
    summary = {
        "metric": task.metric,
        "score": score,
        "interval": list(interval),
        "items": len(items),
        "of": task.rows,
        "data": built.data.coverage.source,
        "data_fingerprint": built.data.fingerprint[:16],
        "num_fewshot": task.num_fewshot,
        "version": built.version,
        "metrics": metrics,
    }
    if len(built.parts) > 1:
        names = dict.fromkeys(item["part"] for item in items)
        summary["parts"] = {name: _part(items, name, task.metric) for name in names}
    return summary


def _mean(items: Items, name: str) -> float:
    return float(np.mean([item["scores"][name] for item in items]))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def _part(items: Items, part: str, metric: str) -> dict[str, Any]:
    scores = [item["scores"][metric] for item in items if item["part"] == part]
    return {"score": float(np.mean(scores)), "items": len(scores)}


def _ratio_interval(metric: str, items: Items) -> Interval:
    """Return the interval of a perplexity or of bits a byte from each document's (log-probability, words or bytes)."""
    pairs = np.array([item["scores"][metric] for item in items])
    low, high = bootstrap_ratio(-pairs[:, 0], pairs[:, 1])
    convert: Callable[[float], float] = (lambda nats: nats / np.log(2)) if metric == "bits_per_byte" else np.exp
    return float(convert(low)), float(convert(high))


def suite_summaries(tasks: dict[str, Any]) -> dict[str, Any]:
    """Return average and interval of each suite of which a task is there, and which of its tasks are missing."""
    summaries = {}
    for suite, names in SUITES.items():
        there = [name for name in names if name in tasks]
        if there:
            scores = [tasks[name]["score"] for name in there]
            intervals = [tuple(tasks[name]["interval"]) for name in there]
            summaries[suite] = {
                "average": float(np.mean(scores)),
                "interval": list(average_interval(scores, intervals)),
                "missing": [name for name in names if name not in tasks],
            }
    return summaries
