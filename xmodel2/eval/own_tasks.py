"""Benchmarks of the user's own: task YAMLs of lm-evaluation-harness on local files, scored by the same engine.

    DIR/quiz.yaml: task, dataset_path: json, dataset_kwargs: data_files, ...  -> own_tasks(DIR)["quiz"].build() -> BuiltTask

Prompts, filters and metrics are the YAML's. Its functions (`!function`) are the user's code, and run. What cannot be scored
here is refused before anything is asked.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
from lm_eval.api.registry import get_aggregation
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks._yaml_loader import load_yaml

from xmodel2.errors import XmodelError
from xmodel2.eval.definitions import FEWSHOT_SEED, BuiltTask, compile_templates_once, errors_only
from xmodel2.eval.mirror import Coverage, MissingDataError, TaskData, read_rows
from xmodel2.eval.result_tables import is_share
from xmodel2.eval.row_checks import Row
from xmodel2.eval.tasks import AGENTS, SUITES, TASKS, Task
from xmodel2.files import read_json

_REFUSED = {
    "class": "is a class in Python",
    "custom_dataset": "makes its data by a function",
    "doc_to_image": "shows images",
    "doc_to_audio": "plays sounds",
    "unsafe_code": "runs generated programs",
}
"""Keys of what models here are not asked."""
_AGGREGATIONS = ("mean", "perplexity", "weighted_perplexity", "bits_per_byte")
"""What makes one number of the items' that is kept; an interval can be given to all but the second."""
_METRICS = (
    "acc",
    "acc_norm",
    "acc_bytes",
    "exact_match",
    "perplexity",
    "word_perplexity",
    "byte_perplexity",
    "bits_per_byte",
)
"""The harness's metrics that are a number, or a ratio, of each item."""
_RATIOS = {"weighted_perplexity": ("word_perplexity", "byte_perplexity"), "bits_per_byte": ("bits_per_byte",)}
"""Names that metrics of an aggregation may have, from which their units are known."""
_GENERATION = {
    "until",
    "max_gen_toks",
    "max_new_tokens",
    "max_tokens",
    "max_completion_tokens",
    "do_sample",
    "temperature",
    "top_p",
}
_SPLITS = ("test_split", "validation_split", "training_split", "fewshot_split")


@dataclass(frozen=True)
class OwnTask:
    """A task by its YAML."""

    name: str
    file: Path

    def build(self, fewshot_seed: int = FEWSHOT_SEED) -> BuiltTask:
        """Return the task with its rows.

        Raises `MissingDataError` for a file of rows that is not there, and `XmodelError` naming the YAML, or file and line of
        a row, for what cannot be used.
        """
        compile_templates_once()
        datasets.disable_progress_bars()
        with errors_only():
            definition = _load(self.file, functions=True)
            self._check(definition)
            files = self._files(definition)
            made = self._made(definition, {split: _dataset(names) for split, names in files.items()})
            split = str(definition.get("test_split") or definition.get("validation_split"))
            source = ", ".join(file.name for file in files[split])
            _check_targets(made, source)
            with self.blamed("no prompts can be made"):
                made.build_all_requests(rank=0, world_size=1)
            made.set_fewshot_seed(fewshot_seed)  # after these, which drew examples
            task = Task(
                self.name,
                self.name,
                str(self.file),
                split,
                len(made.eval_docs),
                self._headline(made),
                {},
                filter=(definition.get("filter_list") or [{"name": "none"}])[0]["name"],
                num_fewshot=made.config.num_fewshot or 0,
                multiple_choice=made.OUTPUT_TYPE == "multiple_choice",
            )
        digest = hashlib.sha256(b"".join(file.read_bytes() for names in files.values() for file in names))
        return BuiltTask(task, TaskData({}, Coverage(task.rows, task.rows, source), digest.hexdigest()), {None: made})

    @contextmanager
    def blamed(self, what: str = "cannot be scored") -> Iterator[None]:
        """Tell what its YAML, its rows or the user's functions make the harness raise as theirs."""
        try:
            yield
        except XmodelError:
            raise
        except Exception as error:
            raise self._refusal(f"{what} ({_said(error)})") from None

    def check_scores(self, items: Sequence[Mapping[str, Any]], metric: str) -> None:
        """Raise `XmodelError` for a mean of what is no share: its interval and its unit would be wrong."""
        if not is_share(metric):
            return
        values = [item["scores"][metric] for item in items]
        if strange := [value for value in values if isinstance(value, list) or not 0 <= value <= 1]:
            raise self._refusal(f"metric {metric!r}: gives {strange[0]}, and the score of an item must be from 0 to 1")

    def _check(self, definition: Mapping[str, Any]) -> None:
        """Raise `XmodelError` for what the harness would do and we do not."""
        if found := [key for key in _REFUSED if definition.get(key)]:
            raise self._refusal(f"`{found[0]}`: the task {_REFUSED[found[0]]}, which is not scored here")
        if definition.get("repeats", 1) != 1:
            raise self._refusal("`repeats`: each question is asked once here")
        if strange := set(definition.get("generation_kwargs") or ()) - _GENERATION:
            raise self._refusal(f"`generation_kwargs`: {min(strange)} is not followed here; leave it out")
        for key in ("metric_list", "filter_list"):
            if not all(isinstance(entry, dict) for entry in definition.get(key) or ()):
                raise self._refusal(f"`{key}`: write a list of keys and values, as the harness's tasks have it")
        for entry in definition.get("metric_list") or ():
            name = entry.get("metric")
            if entry.get("hf_evaluate") or not (
                name in _METRICS or callable(name) or definition.get("process_results")
            ):
                raise self._refusal(
                    f"metric {name!r}: is none that is kept here; give {', '.join(_METRICS)}, or a `!function` of yours"
                )

    def _files(self, definition: Mapping[str, Any]) -> dict[str, list[Path]]:
        """Return the files of each split, as `datasets.load_dataset` takes them."""
        given = definition.get("dataset_kwargs") or {}
        named = given.get("data_files") if isinstance(given, dict) else None
        if definition.get("dataset_path") != "json" or not named or set(given) - {"data_files", "cache_dir"}:
            raise self._refusal(
                "rows are read from local files: give `dataset_path: json` and `dataset_kwargs: {data_files: {test: rows.jsonl}}`"
            )
        by_split = named if isinstance(named, dict) else {"train": named}
        files = {
            split: [self._file(str(name)) for name in (names if isinstance(names, list) else [names])]
            for split, names in by_split.items()
        }
        asked = [definition[key] for key in _SPLITS if definition.get(key)]
        if absent := [split for split in asked if split not in files]:
            raise self._refusal(f"split {absent[0]!r}: `data_files` has {', '.join(files)}")
        if not any(definition.get(key) for key in _SPLITS[:2]):
            raise self._refusal("give `test_split`, the split that is scored")
        return files

    def _file(self, name: str) -> Path:
        """Return a file beside the YAML, else below the current folder, as the harness has it."""
        beside = self.file.parent / name
        for path in (beside, Path(name)):
            if path.is_file():
                return path
        raise MissingDataError(f"{beside}: no such file, which `data_files` of {self.file} names")

    def _made(self, definition: Mapping[str, Any], splits: dict[str, datasets.Dataset]) -> ConfigurableTask:
        config = {key: value for key, value in definition.items() if key not in ("tag", "group", "task_list")}
        with self.blamed("the harness makes no task of it"):
            config["metadata"] = {"version": None, **(config.get("metadata") or {})}
            return _LocalTask(config, splits)

    def _headline(self, made: ConfigurableTask) -> str:
        """Return the first metric that an interval can be given to."""
        known = {name: get_aggregation(name) for name in _AGGREGATIONS}
        for name, aggregation in made.aggregation().items():
            if aggregation not in known.values():
                raise self._refusal(
                    f"metric {name!r}: is no mean over the items, and others are not scored here; leave it out"
                )
            for kind, names in _RATIOS.items():
                if aggregation is known[kind] and name not in names:
                    raise self._refusal(f"metric {name!r}: is a {kind}; call it {' or '.join(names)}")
        for name, aggregation in made.aggregation().items():
            if aggregation is not known["perplexity"]:
                return str(name)
        raise self._refusal("`metric_list`: give a metric that is a mean over the items, such as acc, too")

    def _refusal(self, said: str) -> XmodelError:
        return XmodelError(f"{self.file}: {said}")


class _LocalTask(ConfigurableTask):
    """A task that is given its rows, and loads nothing."""

    def __init__(self, definition: dict[str, Any], splits: dict[str, datasets.Dataset]) -> None:
        self._local = splits
        super().__init__(config=definition)

    def download(self, *_: Any, **__: Any) -> None:
        """Take the rows that are there."""
        self.dataset = self._local


def own_tasks(folder: Path) -> dict[str, OwnTask]:
    """Return the tasks of the YAMLs in a folder and below, by name.

    Raises `XmodelError` naming a file that cannot be read, or whose name is taken.
    """
    if not folder.is_dir():
        raise XmodelError(f"--include-path {folder}: no such folder; give the one with your task's YAML")
    found: dict[str, OwnTask] = {}
    for file in sorted(folder.rglob("*.yaml")):
        name = _load(file, functions=False).get("task")
        if not isinstance(name, str):  # a group, or what other files include
            continue
        if name in found:
            raise XmodelError(f"{file}: `task: {name}` stands in {found[name].file}, too; rename one")
        if name in (*TASKS, *AGENTS, *SUITES) or not re.fullmatch(r"\w[\w.-]*", name):
            raise XmodelError(f"{file}: `task: {name}`: take a name that is not xmodel2's, of letters, digits, - and _")
        found[name] = OwnTask(name, file)
    if not found:
        raise XmodelError(f"--include-path {folder}: holds no YAML (.yaml) with a line `task: NAME`")
    return found


def _load(file: Path, functions: bool) -> dict[str, Any]:
    """Return a YAML with what it includes; with ``functions`` those that it names, imported."""
    try:
        return load_yaml(file, resolve_func=functions)
    except Exception as error:  # of YAML, or of the user's modules
        what = "a function that it names cannot be imported" if functions else "cannot be read"
        raise XmodelError(f"{file}: {what} ({_said(error)})") from None


def _dataset(files: list[Path]) -> datasets.Dataset:
    """Return rows as the harness's functions take them: a field that a row lacks is None."""
    rows = [row for file in files for row in _rows(file)]
    if not rows:
        raise XmodelError(f"{files[0]}: no rows")
    names = dict.fromkeys(name for row in rows for name in row)
    try:
        return datasets.Dataset.from_dict({name: [row.get(name) for row in rows] for name in names})
    except (ValueError, TypeError, NotImplementedError, OverflowError) as error:
        raise XmodelError(
            f"{files[0]}: a field has values of different types ({_said(error)}); make them one"
        ) from None


def _rows(file: Path) -> list[Row]:
    """Return the objects of JSON lines, or of a JSON list."""
    if file.suffix == ".json" and file.read_bytes().lstrip().startswith(b"["):
        rows: list[Row] = read_json(file)
        if strange := [number for number, row in enumerate(rows, 1) if not isinstance(row, dict)]:
            raise XmodelError(f"{file}, row {strange[0]}: not a JSON object")
        return rows
    return read_rows(file)


def _check_targets(made: ConfigurableTask, source: str) -> None:
    """Raise `XmodelError` for a row whose answer is none of its options: the harness would count it as wrong."""
    if made.OUTPUT_TYPE != "multiple_choice":
        return
    for number, doc in enumerate(made.eval_docs, 1):
        try:
            options = made.doc_to_choice(doc)
            target = made.doc_to_text(doc) if made.multiple_input else made.doc_to_target(doc)
            count = len(options)
        except Exception as error:  # of a template or of the user's functions
            raise XmodelError(f"{source}, row {number}: has no options and target ({_said(error)})") from None
        for one in target if isinstance(target, list) else [target]:
            if not (0 <= one < count if isinstance(one, int) else one in options):
                raise XmodelError(f"{source}, row {number}: the target {one!r} is none of its {count} options")


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
