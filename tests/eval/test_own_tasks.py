"""Task YAMLs of the user's own ask and score as plain lm_eval does, and what cannot be scored is refused by name."""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from lm_eval.tasks import TaskManager

from tests.eval.rival_models import NATIVE, tiny_rival
from xmodel2.cli import main
from xmodel2.errors import XmodelError
from xmodel2.eval.backend import Prompt
from xmodel2.eval.evaluation import evaluate
from xmodel2.eval.mirror import MissingDataError
from xmodel2.eval.own_tasks import own_tasks

PAGE = Path(__file__).parents[2] / "docs" / "eval.md"
ROWS = [
    {"q": "2 + 2", "a": "4", "wrong": "5"},
    {"q": "3 + 4", "a": "7", "wrong": "12"},
    {"q": "1 + 1", "a": "2", "wrong": "3"},
]
COMMON = {"dataset_path": "json", "test_split": "test", "doc_to_text": "{{q}} ="}
CHOICE = {
    **COMMON,
    "task": "sums",
    "output_type": "multiple_choice",
    "process_docs": "!function more.shown",
    "doc_to_choice": "{{[wrong, a]}}",
    "doc_to_target": 1,
    "metric_list": [{"metric": "acc_norm"}, {"metric": "acc"}],
}
GENERATED = {
    **COMMON,
    "task": "typed",
    "output_type": "generate_until",
    "doc_to_target": "{{a}}",
    "num_fewshot": 1,
    "fewshot_split": "train",
    "generation_kwargs": {"until": ["\n"], "max_gen_toks": 8},
    "filter_list": [
        {"name": "digit", "filter": [{"function": "regex", "regex_pattern": "(\\d+)"}, {"function": "take_first"}]}
    ],
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
}
ROLLED = {
    **COMMON,
    "task": "rolled",
    "output_type": "loglikelihood_rolling",
    "doc_to_text": "",
    "doc_to_target": "{{q}}",
}
JUDGED = {
    **GENERATED,
    "task": "judged",
    "process_results": "!function more.half",
    "metric_list": [{"metric": "f1", "aggregation": "mean", "higher_is_better": True}],
}
CONTINUED = {**COMMON, "task": "continued", "output_type": "loglikelihood", "doc_to_target": " {{a}}"}


FUNCTIONS = """
def shown(rows):
    return rows.map(lambda row: {"q": "So " + row["q"]})

def half(row, results):
    return {"f1": 0.5 if results[0] == row["a"] else 0.0}

def points(row, results):
    return {"f1": 40.0}

def broken(row, results):
    return {}
"""


def write(folder: Path, *definitions: dict[str, Any], rows: Sequence[Any] = ROWS) -> Path:
    """Write YAMLs, their rows, and a function that one of them names."""
    folder.mkdir(exist_ok=True)
    for split in ("test", "train"):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "more.py").write_text(FUNCTIONS)
    files = {"data_files": {split: str(folder / f"{split}.jsonl") for split in ("test", "train")}}
    for definition in definitions:
        text = yaml.safe_dump({"dataset_kwargs": {**files, "cache_dir": str(folder / "cache")}, **definition})
        (folder / f"{definition['task']}.yaml").write_text(re.sub(r"'(!function [\w.]+)'", r"\1", text))
    return folder


class Calculator:
    """Answers what its arithmetic says; it knows every sum but 3 + 4."""

    max_length = 100

    @property
    def description(self) -> dict[str, Any]:
        told = {"name": "calculator", "backend": "test", "fingerprint": "1", "source": "here"}
        return {**told, "parameters": None, "dtype": None}

    def token_counts(self, texts: Sequence[str]) -> None: ...

    def loglikelihood(self, pairs: Sequence[tuple[str, str]]) -> Iterator[tuple[int, tuple[float, bool]]]:
        for index, (context, continuation) in enumerate(pairs):
            right = continuation.strip() == answer(context)
            yield index, (-1.0 if right else -3.0, right)

    def rolling(self, texts: Sequence[str]) -> Iterator[tuple[int, float]]:
        return ((index, -float(len(text.split()))) for index, text in enumerate(texts))

    def generate(self, prompts: Sequence[Prompt]) -> Iterator[tuple[int, str]]:
        for index, prompt in enumerate(prompts):
            yield index, f" it is {answer(prompt.text)}."


def answer(context: str) -> str:
    left, right = re.findall(r"(\d+) \+ (\d+) =$", context)[0]
    return "12" if left == "3" else str(int(left) + int(right))


@pytest.mark.parametrize(
    "definition", [CHOICE, GENERATED, CONTINUED, ROLLED], ids=lambda definition: definition["task"]
)
def test_asks_what_plain_lm_eval_asks(definition: dict[str, Any], tmp_path: Path) -> None:
    name, folder = definition["task"], write(tmp_path, definition)
    plain = TaskManager(include_path=str(folder), include_defaults=False).load([name])["tasks"][name]
    plain.set_fewshot_seed(7)
    (ours,) = own_tasks(folder)[name].build(7).parts.values()
    for task in (plain, ours):
        task.build_all_requests(rank=0, world_size=1)
    asked = [[(i.request_type, i.doc_id, i.idx, i.arguments) for i in task.instances] for task in (plain, ours)]
    assert asked[0] == asked[1]
    assert len(asked[0]) >= len(ROWS)


def test_scores_are_those_of_the_metrics_that_are_stated(tmp_path: Path) -> None:
    own = own_tasks(write(tmp_path / "tasks", CHOICE, GENERATED, JUDGED, CONTINUED, ROLLED))
    results = evaluate(Calculator(), list(own), tmp_path / "out", None, own=own)
    tasks = results["tasks"]
    assert {name: (task["metric"], round(task["score"], 3)) for name, task in tasks.items()} == {
        "sums": ("acc_norm", 0.667),
        "typed": ("exact_match", 0.667),
        "continued": ("acc", 0.667),
        "judged": ("f1", 0.333),
        "rolled": ("word_perplexity", 2.718),
    }
    assert tasks["sums"]["metrics"]["acc"] == tasks["sums"]["score"]
    assert (tasks["typed"]["num_fewshot"], tasks["typed"]["of"], tasks["typed"]["data"]) == (1, 3, "test.jsonl")
    assert tasks["continued"]["metrics"]["perplexity"] == pytest.approx(2.718281828 ** (5 / 3))
    assert "typed" in (tmp_path / "out" / "results.md").read_text()
    evaluate(Calculator(), ["sums"], tmp_path / "out", None, own=own, limit=None)
    assert list(json.loads((tmp_path / "out" / "results.json").read_text())["tasks"]) == list(tasks)


def test_the_documented_example(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    section = PAGE.read_text().split("### A benchmark of your own")[1].split("\n## ")[0]
    (tmp_path / "my-tasks").mkdir()
    for name, kind in (("capitals.yaml", "yaml"), ("capitals.jsonl", "json")):
        (tmp_path / "my-tasks" / name).write_text(section.split(f"```{kind}\n")[1].split("```")[0])
    monkeypatch.chdir(tmp_path)
    model = tiny_rival(NATIVE[0], tmp_path / "tiny", context=64)
    with pytest.raises(SystemExit) as stop:
        main(["eval", str(model), "--include-path", "my-tasks", "--tasks", "capitals", "--out", "out"])
    assert not stop.value.code
    assert "2 of 2" in capsys.readouterr().out
    (task,) = json.loads((tmp_path / "out" / "results.json").read_text())["tasks"].values()
    assert (task["metric"], task["version"], set(task["metrics"])) == ("acc", 1.0, {"acc", "acc_norm"})
    item = json.loads((tmp_path / "out" / "items" / "capitals.jsonl").read_text().splitlines()[1])
    assert item["prompt"] == "Question: What is the capital of Kenya?\nAnswer:"
    assert (item["options"], item["target"]) == ([" Kampala", " Nairobi", " Dodoma"], 1)
    with pytest.raises(SystemExit):
        main(["eval", str(model), "--include-path", "my-tasks", "--tasks", "capitols", "--out", "out"])
    assert "Did you mean 'capitals'?" in capsys.readouterr().err.replace("\n", " ")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dataset_path": "allenai/sciq"}, "rows are read from local files: give `dataset_path: json`"),
        ({"dataset_kwargs": {"data_files": {"train": "train.jsonl"}}}, "split 'test': `data_files` has train"),
        ({"test_split": None}, "give `test_split`"),
        ({"metric_list": [{"metric": "f1"}]}, "metric 'f1': is none that is kept here; give acc, acc_norm"),
        ({"metric_list": [{"metric": "acc", "aggregation": "median"}]}, "metric 'acc': is no mean over the items"),
        ({"metric_list": [{"metric": "meteor"}]}, "metric 'meteor': is none that is kept here"),
        ({"metric_list": [{"metric": "acc", "hf_evaluate": True}]}, "metric 'acc': is none that is kept here"),
        ({"metric_list": "acc"}, "`metric_list`: write a list"),
        ({"dataset_kwargs": "rows.jsonl"}, "rows are read from local files"),
        (
            {
                "metric_list": [{"metric": "wppl", "aggregation": "bits_per_byte"}],
                "process_results": "!function more.half",
            },
            "metric 'wppl': is a bits_per_byte; call it bits_per_byte",
        ),
        ({"num_fewshot": 5}, "no prompts can be made"),
        ({"num_fewshot": "2"}, "the harness makes no task of it"),
        ({"metadata": "v1"}, "the harness makes no task of it"),
        ({"doc_to_target": "{{[0].index(1 if '3 +' in q else 0)}}"}, "test.jsonl, row 2: has no options and target"),
        ({"repeats": 4}, "`repeats`: each question is asked once here"),
        ({"unsafe_code": True}, "`unsafe_code`: the task runs generated programs"),
        ({"doc_to_text": "{{question}}"}, "the harness makes no task of it .*'question' is undefined"),
        ({"doc_to_texts": "{{q}}"}, "the harness makes no task of it .*doc_to_texts"),
        ({"process_docs": "!function more.nothing"}, "a function that it names cannot be imported .*nothing"),
        ({"doc_to_target": "{{q}}"}, "test.jsonl, row 1: the target 'So 2 [+] 2' is none of its 2 options"),
        ({"doc_to_target": "{{2 if '3 +' in q else 1}}"}, "test.jsonl, row 2: the target 2 is none of its 2 options"),
    ],
)
def test_what_is_not_scored_here_is_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    folder = write(tmp_path, {**CHOICE, **change})
    with pytest.raises(XmodelError, match=message):
        own_tasks(folder)["sums"].build()


def test_settings_of_generation_that_are_not_followed_are_refused(tmp_path: Path) -> None:
    folder = write(tmp_path, {**GENERATED, "generation_kwargs": {"until": ["."], "num_beams": 4}})
    with pytest.raises(XmodelError, match="`generation_kwargs`: num_beams is not followed here"):
        own_tasks(folder)[GENERATED["task"]].build()


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("points", "metric 'f1': gives 40.0, and the score of an item must be from 0 to 1"),
        ("broken", "cannot be scored"),
    ],
)
def test_scores_that_cannot_be_used_are_the_users_fault(function: str, message: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "tasks", {**JUDGED, "process_results": f"!function more.{function}"})
    with pytest.raises(XmodelError, match=message):
        evaluate(Calculator(), ["judged"], tmp_path / "out", None, own=own_tasks(folder))


def test_rows_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    task = own_tasks(write(tmp_path, CHOICE))["sums"]
    write(tmp_path, rows=[*ROWS, 3])
    with pytest.raises(XmodelError, match=r"test.jsonl, line 4: not a JSON object"):
        task.build()
    write(tmp_path, rows=[*ROWS, {**ROWS[0], "q": 5}])
    with pytest.raises(XmodelError, match=r"test.jsonl: a field has values of different types"):
        task.build()
    (tmp_path / "test.jsonl").unlink()
    with pytest.raises(MissingDataError, match=r"test.jsonl: no such file, which `data_files` of .*sums.yaml names"):
        task.build()


def test_a_json_list_and_files_beside_the_yaml(tmp_path: Path) -> None:
    folder = write(tmp_path, {**CHOICE, "dataset_kwargs": {"data_files": {"test": ["rows.json", "test.jsonl"]}}})
    (folder / "rows.json").write_text(json.dumps(ROWS[:2], indent=1))
    built = own_tasks(folder)["sums"].build()
    assert (built.task.rows, built.data.coverage.source) == (5, "rows.json, test.jsonl")


def test_folders_without_a_task_and_names_that_are_taken(tmp_path: Path) -> None:
    with pytest.raises(XmodelError, match=r"--include-path .*: no such folder"):
        own_tasks(tmp_path / "none")
    (tmp_path / "group.yaml").write_text("group: all\ntask: [a, b]\n")
    with pytest.raises(XmodelError, match="holds no YAML"):
        own_tasks(tmp_path)
    for name, message in (("gsm8k", "a name that is not xmodel2's"), ("../x", "a name that is not xmodel2's")):
        (tmp_path / "a.yaml").write_text(f"task: {name}\n")
        with pytest.raises(XmodelError, match=message):
            own_tasks(tmp_path)
    for file in "ab":
        (tmp_path / f"{file}.yaml").write_text("task: mine\n")
    with pytest.raises(XmodelError, match=r"b.yaml: `task: mine` stands in .*a.yaml, too"):
        own_tasks(tmp_path)
    (tmp_path / "b.yaml").write_text("task: [\n")
    with pytest.raises(XmodelError, match=r"b.yaml: cannot be read"):
        own_tasks(tmp_path)
