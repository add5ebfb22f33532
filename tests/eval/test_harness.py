"""Every benchmark gives the results of plain lm_eval item by item: same requests, same answers, same scores."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from lm_eval import evaluator
from lm_eval.models.huggingface import HFLM

from tests.eval.benchmark_rows import GSM8K, ROWS, Row
from tests.eval.rival_models import NATIVE, tiny_rival
from xmodel2.eval.answer_cache import AnswerCache
from xmodel2.eval.definitions import BuiltTask, build_tasks, harness_tasks
from xmodel2.eval.engine import Engine
from xmodel2.eval.harness import run_task
from xmodel2.eval.mirror import Mirror
from xmodel2.eval.model_options import ModelOptions
from xmodel2.eval.open_model import open_backend
from xmodel2.eval.tasks import TASKS


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mirror with a few rows of every task."""
    folder = tmp_path_factory.mktemp("mirror")
    for name, rows in ROWS.items():
        task = TASKS[name]
        (folder / task.directory).mkdir()
        content = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / task.directory / f"{task.split}.jsonl").write_text(content)
    (folder / "gsm8k" / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in GSM8K))
    return folder


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_rival(NATIVE[0], tmp_path_factory.mktemp("model"), context=2048)


@pytest.fixture(scope="module")
def engine(model_dir: Path) -> Engine:
    opened = open_backend(str(model_dir), ModelOptions(device="cpu"))
    assert isinstance(opened, Engine)
    return opened


@pytest.fixture(scope="module")
def plain(model_dir: Path) -> HFLM:
    """The same model as the harness itself loads it; texts begin with one start token in rolling windows, too."""
    return HFLM(str(model_dir), dtype="float32", device="cpu", batch_size=2)


def shortened(built: BuiltTask) -> BuiltTask:
    """Let generation end after a few tokens: a random model seldom comes to a stop string."""
    for part in built.parts.values():
        if part.OUTPUT_TYPE == "generate_until":
            part.set_config(key="generation_kwargs", value={"max_gen_toks": 12}, update=True)
    return built


@pytest.mark.parametrize("name", [name for name in TASKS if name != "wikitext"])
def test_items_equal_plain_lm_eval(name: str, mirror: Path, engine: Engine, plain: HFLM, tmp_path: Path) -> None:
    ran: list[str] = []

    def passes(task: str, row: Row, text: str) -> bool:
        ran.append(text)
        return len(text) % 2 == 0

    ours, theirs = (shortened(build_tasks([name], Mirror(mirror), passes)[name]) for _ in range(2))
    items = run_task(ours, engine, AnswerCache(tmp_path)).items
    report = evaluator.evaluate(lm=plain, task_dict={"tasks": harness_tasks({name: theirs}), "groups": {}})
    assert report is not None
    samples = [sample for part in theirs.parts.values() for sample in report["samples"][part.config.task]]
    wanted = [sample for sample in samples if sample["filter"] == TASKS[name].filter]
    assert len(items) == len(wanted) == len(ROWS[name])
    for item, sample in zip(items, wanted, strict=True):
        answers = [response[0] for response in sample["resps"]]
        if item["options"] is None and TASKS[name].metric != "acc":
            assert item["prompt"] == sample["arguments"][0][0]
            assert item["output"] == answers[0]
        else:
            assert item["output"] == pytest.approx([nats for nats, _ in answers], abs=1e-4)
        for metric in sample["metrics"]:
            assert item["scores"][metric] == pytest.approx(sample[metric], abs=1e-5)


def test_a_second_run_asks_nothing(mirror: Path, engine: Engine, tmp_path: Path) -> None:
    built = shortened(build_tasks(["bbh"], Mirror(mirror))["bbh"])
    first = run_task(built, engine, AnswerCache(tmp_path)).items

    class Silent:
        description = engine.description
        max_length = 1
        loglikelihood = rolling = generate = None

        @staticmethod
        def token_counts(texts: list[str]) -> None:
            return None

    again = shortened(build_tasks(["bbh"], Mirror(mirror))["bbh"])
    second = run_task(again, Silent(), AnswerCache(tmp_path)).items  # type: ignore[arg-type]
    assert first == second


def test_a_limit_takes_the_first_of_every_part(mirror: Path, engine: Engine, tmp_path: Path) -> None:
    def parts(limit: int) -> list[tuple[str, int]]:
        built = build_tasks(["mmlu"], Mirror(mirror))["mmlu"]
        return [(item["part"], item["doc_id"]) for item in run_task(built, engine, AnswerCache(tmp_path), limit).items]

    assert parts(1) == [("anatomy", 0)]
    assert parts(9) == [("anatomy", 0), ("international_law", 0)]


def test_progress_counts_answers(mirror: Path, engine: Engine, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    show: Callable[[str, int, int], None] = lambda *call: seen.append(call)  # noqa: E731
    run_task(build_tasks(["arc_easy"], Mirror(mirror))["arc_easy"], engine, AnswerCache(tmp_path), progress=show)
    assert seen[-1] == ("arc_easy", 5, 5)
