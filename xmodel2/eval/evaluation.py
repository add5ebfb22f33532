"""An evaluation is a folder: what was asked, every answer, every score, and the tables and pages made of them.

    out/answers.jsonl  items/TASK.jsonl  results.json  results.html  results.md  items.html

Tasks are scored one after the other, each written when it is done; called again, with more tasks or after a kill, what has
been answered is not asked again.
"""

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from xmodel2.errors import XmodelError
from xmodel2.eval.agents.baselines import Baseline
from xmodel2.eval.agents.benchmarks import open_benchmark
from xmodel2.eval.agents.environment import Benchmark
from xmodel2.eval.agents.options import MADE_UP, AgentOptions
from xmodel2.eval.agents.outcome import OUTCOMES
from xmodel2.eval.agents.runner import AgentRun
from xmodel2.eval.answer_cache import AnswerCache
from xmodel2.eval.backend import Backend, Prompt
from xmodel2.eval.code_judge import CodeJudge
from xmodel2.eval.definitions import FEWSHOT_SEED, BuiltTask, build_tasks
from xmodel2.eval.harness import Items, Progress, Ran, run_task
from xmodel2.eval.intervals import Interval, average_interval, bootstrap_ratio, mean_interval
from xmodel2.eval.item_page import write_item_page
from xmodel2.eval.mirror import DataSource, Kept, MissingDataError
from xmodel2.eval.own_tasks import OwnTask
from xmodel2.eval.result_files import ITEMS_FOLDER, RESULTS_FILE, read_results
from xmodel2.eval.result_page import write_result_page
from xmodel2.eval.tasks import AGENTS, SUITES, TASKS
from xmodel2.files import LOCK_FILE, alone_in, is_marked, mark_folder, write_json_atomic, write_text_atomic

_MARK = "eval"


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
    agents: AgentOptions = MADE_UP,
    overwrite: bool = False,
    skip_missing: bool = False,
    own: Mapping[str, OwnTask] | None = None,
) -> dict[str, Any]:
    """Score a model on tasks by our names, write the evaluation's folder, and return results.json.

    ``data`` may be None without tasks of the harness; ``extra`` are results of another kind that go beside them; ``agents``
    are the worlds of the agent benchmarks, and ``own`` the user's tasks by name. ``overwrite`` discards what is in the folder,
    once data and worlds are there and the model answers. ``seed`` draws few-shot examples (and samples, where a task samples).
    ``limit`` is of items a task. ``insist`` runs generated programs where no isolation can be had. ``skip_missing`` leaves out
    tasks whose data is not there; ``skipped`` of the results says why each was.
    Raises `XmodelError` if the folder holds another model's evaluation or is being written, and as tasks, data and model do.
    """
    kept = Kept(data) if data else None
    worlds: dict[str, Benchmark] = {}
    built: dict[str, BuiltTask] = {}
    skipped: dict[str, str] = {}
    for name in names:  # before anything is asked, so that hours later nothing is missing
        if name in AGENTS:
            worlds[name] = open_benchmark(name, agents)
        else:
            try:
                if own and name in own:
                    built[name] = own[name].build(seed)
                else:
                    assert kept is not None
                    kept.load(TASKS[name])
            except MissingDataError as error:
                if not skip_missing:
                    raise
                skipped[name] = str(error)
    names = [name for name in names if name not in skipped]
    if skipped and not names and not extra:
        raise XmodelError(f"--skip-missing: no task's data is there: {next(iter(skipped.values()))}")
    model = backend.description  # once: it may read all weights for their fingerprint
    if overwrite and out.exists():
        if not isinstance(backend, Baseline):
            list(backend.generate([Prompt("1", (), 1)]))  # what does not answer must not cost what is there
        discard(out)
    with alone_in(out):
        settings = {"limit": limit, "seed": seed, "data": kept.description if kept else None}
        results = _begin(out, model, settings, names) | (extra or {})
        if skipped := {name: why for name, why in skipped.items() if name not in results["tasks"]}:
            results["skipped"] = {**results.get("skipped", {}), **skipped}
        write_json_atomic(out / RESULTS_FILE, results)
        cache = AnswerCache(out, model["fingerprint"])
        for name in names:
            started = time.perf_counter()
            if name in worlds:
                items, summary = _play(worlds[name], backend, cache, out, limit, seed, progress)
            elif name in built:
                assert own is not None
                with own[name].blamed():
                    ran = run_task(built[name], backend, cache, limit, progress, seed=seed)
                    items = ran.items
                    own[name].check_scores(items, built[name].task.metric)
                    summary = task_summary(built[name], ran)
            else:
                assert kept is not None
                items, summary = _ask(name, kept, backend, cache, limit, seed, progress, insist)
            _write_items(out, name, items)
            results["tasks"][name] = {**summary, "seconds": round(time.perf_counter() - started, 2)}
            results.get("skipped", {}).pop(name, None)  # its data has come
            ordered = dict.fromkeys((*TASKS, *AGENTS, *results["tasks"]))
            results["tasks"] = {task: results["tasks"][task] for task in ordered if task in results["tasks"]}
            results["suites"] = suite_summaries(results["tasks"])
            write_json_atomic(out / RESULTS_FILE, results)
        if results["tasks"]:
            write_pages(out)
        return results


def _ask(
    name: str,
    data: Kept,
    backend: Backend,
    cache: AnswerCache,
    limit: int | None,
    seed: int,
    progress: Progress | None,
    insist: bool,
) -> tuple[Items, dict[str, Any]]:
    """Run a task of the harness; return its items and its entry in results.json."""
    judge = CodeJudge(name, cache, insist)
    built = build_tasks([name], data, judge.passes, seed)[name]
    ran = run_task(built, backend, cache, limit, progress, judge.run if judge.needed else None, seed)
    return ran.items, task_summary(built, ran)


def _play(
    benchmark: Benchmark,
    backend: Backend,
    cache: AnswerCache,
    out: Path,
    limit: int | None,
    seed: int,
    progress: Progress | None,
) -> tuple[Items, dict[str, Any]]:
    """Play an agent benchmark; return its items and its entry in results.json."""
    run = AgentRun(benchmark, backend, cache, out, progress)
    items = run.play(limit, seed)
    return items, {**agent_summary(benchmark, items, run.examples_shown), "cut": run.cut}


def discard(out: Path) -> None:
    """Remove an evaluation's folder. Raises `XmodelError` if it is something else, or another process writes to it."""
    if not out.exists():
        return
    with alone_in(out):
        if not is_marked(out, _MARK) and _others(out):
            raise XmodelError(f"{out}: was not made by `xmodel2 eval`, so it is not overwritten; choose another --out")
        shutil.rmtree(out)


def write_pages(out: Path) -> None:
    """Write the tables and the item browser of an evaluation's folder anew."""
    write_result_page(out)
    write_item_page(out)


def _others(out: Path) -> list[str]:
    return [path.name for path in out.iterdir() if path.name != LOCK_FILE]


def _begin(out: Path, model: dict[str, Any], settings: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Return the results so far, in a folder that is an evaluation's from now on.

    Raises `XmodelError` if it is something else, or holds another model's results, tasks of another limit or seed, or damaged ones.
    """
    if not is_marked(out, _MARK):
        if others := _others(out):
            raise XmodelError(f"{out}: holds {others[0]}, and was not made by `xmodel2 eval`; choose another --out")
        mark_folder(out, _MARK)
    if not (out / RESULTS_FILE).exists():
        return {"model": model, "settings": settings, "tasks": {}, "suites": {}, "xmodel2": version("xmodel2")}
    before = read_results(out)
    if before["model"]["fingerprint"] != model["fingerprint"]:
        raise XmodelError(
            f"{out}: holds the evaluation of {before['model']['source']} ({before['model']['fingerprint']}), and this is"
            f" {model['source']} ({model['fingerprint']}); choose another --out, or give --overwrite"
        )
    if not before["tasks"]:
        return {**before, "settings": settings}
    if not names:  # the settings are the tasks'
        return before
    # A table is of one limit and one seed.
    if any(before["settings"][key] != settings[key] for key in ("limit", "seed")):
        said = " and ".join(f"{key} {before['settings'][key]}" for key in ("limit", "seed"))
        raise XmodelError(f"{out}: holds results with {said}; give the same ones, another --out, or --overwrite")
    return {**before, "settings": settings}


def _write_items(out: Path, name: str, items: Items) -> None:
    (out / ITEMS_FOLDER).mkdir(exist_ok=True)
    lines = (json.dumps(item) + "\n" for item in items)
    write_text_atomic(out / ITEMS_FOLDER / f"{name}.jsonl", "".join(lines))


def task_summary(built: BuiltTask, ran: Ran) -> dict[str, Any]:
    """Return a task's entry in results.json; of a task in parts it is the mean over items, as the harness weighs its groups."""
    task, items = built.task, ran.items
    if len(built.parts) > 1:
        metrics = {name: _mean(items, name) for name in items[0]["scores"]}
    else:
        (report,) = ran.reports.values()
        aggregated = {name: value for name, value in report.items() if "," in name and "_stderr," not in name}
        metrics = {name.removesuffix(f",{task.filter}"): float(value) for name, value in aggregated.items()}
    score = metrics[task.metric]
    values = [item["scores"][task.metric] for item in items]
    interval = _ratio_interval(task.metric, values) if isinstance(values[0], list) else mean_interval(np.array(values))
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
        "lm_eval": version("lm_eval"),
        "cut": ran.cut,
        "metrics": metrics,
    }
    if len(built.parts) > 1:
        names = dict.fromkeys(item["part"] for item in items)
        summary["parts"] = {name: _part(items, name, task.metric) for name in names}
    return summary


def agent_summary(benchmark: Benchmark, items: Items, shown: float | None) -> dict[str, Any]:
    """Return an agent benchmark's entry in results.json: what was played, in which world, and how episodes ended.

    ``shown`` are the examples that stood in a prompt, on average; None if no model was asked.
    """
    metric = benchmark.metric
    examples = benchmark.examples(benchmark.cases[0]) if shown is not None else None
    parts = dict.fromkeys(item["part"] for item in items)
    summary = {
        "metric": metric,
        "score": _mean(items, metric),
        "interval": list(mean_interval(np.array([item["scores"][metric] for item in items]))),
        "items": len(items),
        "of": benchmark.of,
        "world": benchmark.world,
        "made_up": benchmark.made_up,
        "data_fingerprint": benchmark.fingerprint[:16],
        "num_fewshot": len(examples.trajectories) if examples else None,
        "examples": examples.source if examples else None,
        "examples_shown": shown,
        "version": None,
        "metrics": {
            name: _mean(items, name) for name in dict.fromkeys(name for item in items for name in item["scores"])
        },
        "mean_steps": float(np.mean([len(item["steps"]) for item in items])),
        "outcomes": {kind: count for kind in OUTCOMES if (count := sum(item["outcome"] == kind for item in items))},
    }
    if len(parts) > 1:
        summary["parts"] = {name: _part(items, name, metric) for name in parts}
    return summary


def _mean(items: Items, name: str) -> float:
    # An episode whose world broke has the headline metric only.
    return float(np.mean([item["scores"].get(name, 0.0) for item in items]))


def _part(items: Items, part: str, metric: str) -> dict[str, Any]:
    scores = [item["scores"][metric] for item in items if item["part"] == part]
    return {"score": float(np.mean(scores)), "items": len(scores)}


def _ratio_interval(metric: str, values: Sequence[Sequence[float]]) -> Interval:
    """Return the interval of a perplexity or of bits a byte from each document's (log-probability, words or bytes)."""
    pairs = np.array(values)
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
