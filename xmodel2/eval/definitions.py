"""The harness's own task definitions, on rows of ours: its prompts, options, stop strings, examples, filters and metrics.

    built = build_tasks(["arc_easy", "mmlu"], Mirror(data_dir))
    built["mmlu"].parts["anatomy"]  -> an lm_eval task, ready for build_all_requests
    harness_tasks(built)            -> {harness's name: task} for lm_eval.evaluator.evaluate

Each packaged YAML is read from the installed lm_eval by itself (its 14,000 others are not). Only where its rows come from is
replaced. HumanEval and MBPP load a metric from the network when their code is imported, so that code is not: their metric is
``passes``, which runs a program in our sandbox.
"""

import ast
import importlib
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import lm_eval
import lm_eval.utils
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks._yaml_loader import load_yaml

from xmodel2.errors import XmodelError, nearest
from xmodel2.eval.mirror import DataSource, TaskData, of_part
from xmodel2.eval.row_checks import Row
from xmodel2.eval.tasks import TASKS, Task

_PACKAGED = Path(lm_eval.__file__).resolve().parent / "tasks"
FEWSHOT_SEED = 1234
"""The harness's default: which of GSM8K's training questions are shown."""

Passes = Callable[[str, Row, str], bool]
"""(task, row, generated text) -> whether the program made of them passes its tests."""


@dataclass(frozen=True)
class BuiltTask:
    """A task with its rows, as the harness runs it."""

    task: Task
    data: TaskData
    parts: dict[str | None, ConfigurableTask]
    """By name of the part, those that have rows; a task without parts stands under None."""

    @property
    def version(self) -> float | None:
        """Version of the harness's definition."""
        return getattr(next(iter(self.parts.values())), "VERSION", None)


class HarnessTask(ConfigurableTask):
    """A task of the harness that is given its rows, and loads nothing."""

    def __init__(self, definition: dict[str, Any], splits: dict[str, list[Row]]) -> None:
        process: Callable[[Rows], Rows] | None = definition.get("process_docs")
        # Processed once here, where the harness would do it each time that it looks at its documents.
        self._splits = {split: process(Rows(rows)) if process else Rows(rows) for split, rows in splits.items()}
        super().__init__(config={**definition, "process_docs": None})

    def download(self, *_: Any, **__: Any) -> None:
        """Take the rows that are there."""
        self.dataset = self._splits


class Rows(list[Row]):
    """Rows with as much of a `datasets.Dataset` as definitions use."""

    @property
    def features(self) -> dict[str, None]:
        """Names of the fields."""
        return dict.fromkeys(self[0])

    def map(self, function: Callable[[Row], Row]) -> "Rows":
        """Return rows with the fields that the function gives added or replaced."""
        return Rows({**row, **function(row)} for row in self)


def build_tasks(
    names: Sequence[str], data: DataSource, passes: Passes | None = None, fewshot_seed: int = FEWSHOT_SEED
) -> dict[str, BuiltTask]:
    """Return the tasks by our names.

    Without ``passes`` HumanEval and MBPP make their prompts, and raise `XmodelError` when an answer is to be scored.
    Raises `XmodelError` as `DataSource.load`, and if what MATH is scored with is not installed.
    """
    compile_templates_once()
    return {name: _build(TASKS[name], data.load(TASKS[name]), passes, fewshot_seed) for name in names}


def compile_templates_once() -> None:
    """Let the harness keep its compiled templates: it compiles each anew for every document (1.4 ms, rendering 0.07)."""
    environment: Any = lm_eval.utils.env
    if not hasattr(environment.from_string, "cache_info"):
        environment.from_string = lru_cache(maxsize=1024)(environment.from_string)


def _build(task: Task, data: TaskData, passes: Passes | None, fewshot_seed: int) -> BuiltTask:
    built: dict[str | None, ConfigurableTask] = {}
    with errors_only():
        for part in _parts_with_rows(task, data):
            splits = {split: of_part(rows, task, part) for split, rows in data.splits.items()}
            built[part] = HarnessTask(definition(task, part, passes), splits)
            built[part].set_fewshot_seed(fewshot_seed)
    return BuiltTask(task, data, built)


def _parts_with_rows(task: Task, data: TaskData) -> list[str | None]:
    if not task.part_fields:
        return [None]
    found = {task.part_of(row) for row in data.splits[task.split]}
    known = part_files(task)
    if unknown := sorted(map(str, found - known.keys())):
        named = f"{data.coverage.source}: {unknown[0]!r} in field {task.part_fields[0]!r}"
        raise XmodelError(f"{named} is none of the {len(known)} parts of {task.name}.{nearest(unknown[0], known)}")
    return [part for part in known if part in found]


def harness_tasks(built: dict[str, BuiltTask]) -> dict[str, ConfigurableTask]:
    """Return every part of every task by the harness's name."""
    return {part.config.task: part for task in built.values() for part in task.parts.values()}


@cache
def part_files(task: Task) -> dict[str, Path]:
    """Return the packaged YAML of each part, in the harness's order; the part is named as its data set is."""
    files = sorted(_PACKAGED.glob(task.definition))
    return {load_yaml(file, resolve_func=False, recursive=False)["dataset_name"]: file for file in files}


def definition(task: Task, part: str | None = None, passes: Passes | None = None) -> dict[str, Any]:
    """Return a packaged definition with the scored split, and those of its examples, as the only ones.

    ``part`` is a name of `part_files`, None in a task without parts.
    """
    packaged = packaged_definition(task, part)
    replaced: dict[str, Any] = {f"{split}_split": None for split in ("training", "validation", "test")}
    replaced |= {f"{task.split}_split": task.split, "fewshot_split": task.fewshot_split}
    replaced |= {"num_fewshot": task.num_fewshot, "tag": None}
    if task.runs_code:
        packaged = {name: value for name, value in packaged.items() if name != "filter_list"}
        replaced |= {
            "unsafe_code": False,  # the harness itself runs nothing
            "metric_list": [{"metric": task.metric, "aggregation": "mean", "higher_is_better": True}],
            "process_results": _code_score(task, passes),
        }
        return _resolve({**packaged, **replaced}, _literal)
    return _resolve({**packaged, **replaced}, _function)


def packaged_definition(task: Task, part: str | None = None) -> dict[str, Any]:
    """Return the YAML with what it includes; a function in it is a text, its path below lm_eval/tasks and its name."""
    file = _PACKAGED / task.definition if part is None else part_files(task)[part]
    loaded: dict[str, Any] = load_yaml(file, resolve_func=False)
    return loaded


def _code_score(task: Task, passes: Passes | None) -> Callable[[Row, list[str]], dict[str, float]]:
    def process_results(doc: Row, results: list[str]) -> dict[str, float]:
        if passes is None:
            raise XmodelError(f"--tasks {task.name}: its answers are programs, which need the sandbox to be run in")
        return {task.metric: float(passes(task.name, doc, results[0]))}

    return process_results


def _resolve(value: Any, load: Callable[[str, str], Any]) -> Any:
    """Put what ``load`` returns for (module below lm_eval/tasks, name) in the place of every function's text."""
    if isinstance(value, dict):
        return {name: _resolve(inner, load) for name, inner in value.items()}
    if isinstance(value, list):
        return [_resolve(inner, load) for inner in value]
    if isinstance(value, str) and value.startswith(f"{_PACKAGED}/"):
        module, _, name = value.removeprefix(f"{_PACKAGED}/").rpartition(".")
        return load(module, name)
    return value


def _function(module: str, name: str) -> Any:
    try:
        return getattr(importlib.import_module(f"lm_eval.tasks.{module.replace('/', '.')}"), name)
    except (ImportError, AssertionError) as error:  # minerva_math asserts a version
        needed = "the harness's rules for it need a package that is not installed"
        raise XmodelError(f"{module}: {needed} ({error}): pip install 'xmodel2[eval]'") from None


def _literal(module: str, name: str) -> Any:
    """Return what a function without arguments returns, a literal, without running its module."""
    source = (_PACKAGED / f"{module}.py").read_text(encoding="utf-8")
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef) and node.name == name and isinstance(node.body[-1], ast.Return):
            return ast.literal_eval(node.body[-1].value or ast.Constant(None))
    raise XmodelError(f"lm_eval: {module}.py has no {name}() as xmodel2 knows it; install the pinned lm_eval")


@contextmanager
def errors_only() -> Iterator[None]:
    """The harness warns of what its own definitions leave to defaults."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
