"""Every task asks what plain lm_eval's own task asks on the same rows, and scores answers as it does."""

import gzip
import json
import logging
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lm_eval.utils
import pytest
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks import TaskManager

from tests.eval.benchmark_rows import GSM8K, ROWS, Row
from xmodel2.errors import XmodelError
from xmodel2.eval.definitions import HarnessTask, build_tasks, harness_tasks, packaged_definition, part_files
from xmodel2.eval.mirror import Mirror, of_part
from xmodel2.eval.tasks import SUITES, TASKS, Task

SHARED = Path(__file__).parents[3] / "shared" / "data" / "eval"
PACKAGED = Path(lm_eval.__file__).parent / "tasks"


def rows_of(name: str) -> list[Row]:
    """Return rows made here, then, where the real sets are at hand, the first twenty of each part of those."""
    task, rows = TASKS[name], list(ROWS[name])
    if any((SHARED / task.directory).glob(f"*{task.split}*")):
        real = Mirror(SHARED).load(task).splits[task.split]
        parts = {task.part_of(row) for row in ROWS[name]}
        rows += [row for part in sorted(parts, key=str) for row in of_part(real, task, part)[:20]]
    return rows


@pytest.fixture
def mirror(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A mirror with the rows of the task that the test is about."""
    task = TASKS[request.getfixturevalue("name")]
    folder = tmp_path / "mirror" / task.directory
    folder.mkdir(parents=True)
    with gzip.open(folder / f"{task.split}.jsonl.gz", "wt") as handle:
        handle.writelines(json.dumps(row) + "\n" for row in rows_of(task.name))
    if task.fewshot_split:
        (folder / f"{task.fewshot_split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in GSM8K))
    return tmp_path / "mirror"


def plain_task(task: Task, part: str | None, rows: dict[str, list[Row]], folder: Path) -> ConfigurableTask:
    """Return the packaged task as the harness's own manager makes it, on files of the same rows."""
    files = {split: folder / f"{split}-{part}.jsonl" for split in rows}
    for split, file in files.items():
        file.write_text("".join(json.dumps(row) + "\n" for row in rows[split]))
    yaml = part_files(task)[part] if part else PACKAGED / task.definition
    name = f"{task.name}_{part or 'whole'}_plain"
    (folder / "definitions").mkdir(exist_ok=True)
    replaced = {
        "include": str(yaml),
        "task": name,
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": {s: str(f) for s, f in files.items()}, "cache_dir": str(folder / "cache")},
        **{f"{split}_split": None for split in ("training", "validation", "test")},
        "fewshot_split": task.fewshot_split,
        f"{task.split}_split": task.split,
    }
    (folder / "definitions" / f"{name}.yaml").write_text(json.dumps(replaced))
    manager = TaskManager(include_path=str(folder / "definitions"), include_defaults=False)
    made: ConfigurableTask = manager.load([name])["tasks"][name]
    made.set_fewshot_seed(1234)
    return made


def questions(task: ConfigurableTask) -> list[tuple[Any, ...]]:
    """Return every request: its kind, document and arguments (texts, and what generation is told)."""
    return [(i.request_type, i.doc_id, i.idx, i.arguments) for i in task.instances]


def answer_all(task: ConfigurableTask, rows: list[Row]) -> list[dict[str, Any]]:
    """Return the first documents' scores for answers that depend on the request only, some of them right."""
    draw = random.Random(3)
    for instance in task.instances:
        if instance.request_type == "generate_until":
            row = rows[instance.doc_id]
            right = row.get("answer") or row.get("solution") or f"So the answer is {row.get('target')}."
            if "solution" in row:
                boxed = row["solution"].split("boxed{")[-1].rsplit("}", 1)[0]
                right = f"Final Answer: The final answer is ${boxed}$. I hope it is correct."
            instance.resps = [right if draw.random() < 0.7 else "The answer is 7."]
        else:
            nats = -10 * draw.random()
            instance.resps = [nats if instance.request_type == "loglikelihood_rolling" else (nats, draw.random() < 0.5)]
    task.apply_filters()
    scores = []
    for key in task.instances[0].filtered_resps:
        for doc_id, doc in task.doc_iterator(rank=0, limit=5, world_size=1):
            of_doc = sorted((i for i in task.instances if i.doc_id == doc_id), key=lambda i: i.idx)
            scores.append({"filter": key, **task.process_results(doc, [i.filtered_resps[key] for i in of_doc])})
    return scores


@pytest.fixture
def metric_loads(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What HumanEval's and MBPP's code asks the network for when it is imported; what it gets measures nothing."""
    asked: list[str] = []
    metric = SimpleNamespace(compute=lambda **_: None)
    stand_in = SimpleNamespace(load=lambda name: asked.append(name) or metric)
    monkeypatch.setitem(sys.modules, "evaluate", stand_in)  # type: ignore[arg-type]
    yield asked
    for name in ("humaneval", "mbpp"):
        sys.modules.pop(f"lm_eval.tasks.{name}.utils", None)


@pytest.mark.parametrize("name", TASKS)
def test_asks_and_scores_as_plain_lm_eval(
    name: str,
    mirror: Path,
    tmp_path: Path,
    metric_loads: list[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.ERROR)
    task, built = TASKS[name], build_tasks([name], Mirror(mirror))[name]
    assert {task.part_of(row) for row in ROWS[name]} == set(built.parts)
    for part, ours in built.parts.items():
        splits = {split: of_part(rows, task, part) for split, rows in built.data.splits.items()}
        plain = plain_task(task, part, splits, tmp_path)
        assert plain.config.num_fewshot in (None, task.num_fewshot)
        ours.build_all_requests()
        with monkeypatch.context() as patch:
            patch.setattr(lm_eval.utils.env, "from_string", lm_eval.utils.env.from_string.__wrapped__)
            plain.build_all_requests()
        assert questions(ours) == questions(plain)
        assert len({i.doc_id for i in ours.instances}) == len(splits[task.split])
        if not task.runs_code:
            scores = answer_all(ours, splits[task.split])
            assert scores == answer_all(plain, splits[task.split])
            of_headline = [score[task.metric] for score in scores if score["filter"] == task.filter]
            assert any(of_headline) or ours.OUTPUT_TYPE != "generate_until"
            assert ours.aggregation() == plain.aggregation()


@pytest.mark.parametrize("name", ["humaneval", "mbpp"])
def test_programs_are_scored_by_what_runs_them(name: str, mirror: Path, metric_loads: list[str]) -> None:
    seen = []

    def passes(task: str, row: Row, program: str) -> bool:
        seen.append((task, row["task_id"], program))
        return program == "right"

    task = build_tasks([name], Mirror(mirror), passes)[name].parts[None]
    doc = next(doc for _, doc in task.doc_iterator(rank=0, limit=1, world_size=1))
    assert task.process_results(doc, ["right"]) == {"pass@1": 1.0}
    assert task.process_results(doc, ["wrong"]) == {"pass@1": 0.0}
    assert seen == [(name, ROWS[name][0]["task_id"], "right"), (name, ROWS[name][0]["task_id"], "wrong")]
    assert metric_loads == []
    with pytest.raises(XmodelError, match="sandbox"):
        build_tasks([name], Mirror(mirror))[name].parts[None].process_results(doc, ["x"])


def test_multiple_choice_is_what_the_harness_calls_so() -> None:
    kinds = {
        name: packaged_definition(task, next(iter(part_files(task))) if task.part_fields else None)["output_type"]
        for name, task in TASKS.items()
    }
    assert {name for name, kind in kinds.items() if kind == "multiple_choice"} == {
        name for name, task in TASKS.items() if task.multiple_choice
    }


def test_the_suites_have_the_papers_settings() -> None:
    packaged = {
        name: packaged_definition(
            TASKS[name], next(iter(part_files(TASKS[name])), None) if TASKS[name].part_fields else None
        )
        for name in TASKS
    }
    shots = {name: packaged[name].get("num_fewshot") or 0 for name in SUITES["reasoning"]}
    assert shots == {"gsm8k": 5, "math": 4, "bbh": 3, "mmlu": 0, "humaneval": 0, "mbpp": 3}
    assert shots == {name: TASKS[name].num_fewshot for name in SUITES["reasoning"]}
    assert [len(part_files(TASKS[name])) for name in ("math", "bbh", "mmlu")] == [7, 27, 57]


@pytest.mark.parametrize("name", ["mmlu"])
def test_parts_have_the_harness_names_and_unknown_ones_are_refused(name: str, mirror: Path) -> None:
    assert list(harness_tasks(build_tasks([name], Mirror(mirror)))) == ["mmlu_anatomy", "mmlu_international_law"]
    with gzip.open(mirror / "mmlu" / "test.jsonl.gz", "wt") as handle:
        handle.write(json.dumps({**ROWS["mmlu"][0], "subject": "anatomie"}) + "\n")
    message = (
        r"mmlu/test.jsonl.gz: 'anatomie' in field 'subject' is none of the 57 parts of mmlu. Did you mean 'anatomy'"
    )
    with pytest.raises(XmodelError, match=message):
        build_tasks([name], Mirror(mirror))


@pytest.mark.parametrize("name", ["math"])
def test_what_is_not_installed_is_named(name: str, mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "math_verify", None)
    monkeypatch.delitem(sys.modules, "lm_eval.tasks.minerva_math.utils", raising=False)
    with pytest.raises(XmodelError, match=r"math_verify.*pip install 'xmodel2\[eval\]'"):
        build_tasks([name], Mirror(mirror))


@pytest.mark.parametrize("name", ["piqa"])
def test_nothing_is_loaded_but_the_rows_given(name: str, mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: pytest.fail("asked for a data set"))
    (task,) = build_tasks([name], Mirror(mirror))[name].parts.values()
    assert isinstance(task, HarnessTask)
    assert task.task_docs[0] == ROWS["piqa"][0]


@pytest.mark.parametrize("name", ["arc_easy"])
def test_templates_are_compiled_once(name: str, mirror: Path) -> None:
    build_tasks([name], Mirror(mirror))
    environment = lm_eval.utils.env
    assert environment.from_string("{{ a }}") is environment.from_string("{{ a }}")
    assert environment.from_string("{{ a }}\n").render(a=1) == "1\n"
