"""Rows out of a local folder: which files are found, how much of the set they are, and what is said of bad ones."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from xmodel2.errors import XmodelError
from xmodel2.eval.definitions import build_tasks
from xmodel2.eval.hub import Hub
from xmodel2.eval.mirror import Mirror, TaskData, of_part
from xmodel2.eval.tasks import TASKS, Task

SHARED = Path(__file__).parents[3] / "shared" / "data" / "eval"
PIQA = {"goal": "Boil water", "sol1": "Heat it.", "sol2": "Cool it.", "label": 0}
ARC = {"question": "Which floats?", "choices": {"text": ["iron", "cork"], "label": ["A", "B"]}, "answerKey": "B"}
MMLU = {"question": "How many?", "choices": ["1", "2", "3", "4"], "answer": 1}
HUMANEVAL = {"task_id": "0", "prompt": "def f():\n", "entry_point": "f", "canonical_solution": "    pass"}
HUMANEVAL |= {"test": "def check(f):\n    f()"}
MBPP = {"text": "Return 1.", "code": "", "test_list": ["a", "b", "c"], "test_setup_code": ""}


class Given:
    """Rows that are there."""

    description = "here"

    def __init__(self, data: TaskData) -> None:
        self.data = data

    def load(self, task: Task) -> TaskData:
        """As `DataSource` has it."""
        return self.data


def write(folder: Path, name: str, *rows: Any) -> None:
    """Write rows, or lines that are none, as a file of the mirror."""
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    content = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows).encode()
    file.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)


@pytest.mark.parametrize(
    ("name", "task", "source"),
    [
        ("piqa/validation.jsonl", "piqa", "piqa/validation.jsonl"),
        ("piqa/validation.jsonl.gz", "piqa", "piqa/validation.jsonl.gz"),
        ("piqa/validation-1000.jsonl.gz", "piqa", "piqa/validation-1000.jsonl.gz"),
        ("piqa/first-validation.jsonl", "piqa", "piqa/first-validation.jsonl"),
    ],
)
def test_files_of_a_split_are_found(tmp_path: Path, name: str, task: str, source: str) -> None:
    write(tmp_path, name, PIQA, PIQA)
    data = Mirror(tmp_path).load(TASKS[task])
    assert data.splits == {"validation": [PIQA, PIQA]}
    assert str(data.coverage) == f"2 of 1,838 rows ({source})"
    assert not data.coverage.whole


def test_the_whole_split_goes_before_a_part_of_it(tmp_path: Path) -> None:
    write(tmp_path, "piqa/validation-1.jsonl", PIQA)
    write(tmp_path, "piqa/validation.jsonl", PIQA, PIQA)
    assert Mirror(tmp_path).load(TASKS["piqa"]).coverage.rows == 2


def test_the_fingerprint_is_that_of_the_rows_and_not_of_their_compression(tmp_path: Path) -> None:
    for folder, name, row in (("a", "", PIQA), ("b", ".gz", PIQA), ("c", "", {**PIQA, "label": 1})):
        write(tmp_path / folder, f"piqa/validation.jsonl{name}", row)
    a, b, c = (Mirror(tmp_path / folder).load(TASKS["piqa"]).fingerprint for folder in "abc")
    assert a == b != c


def test_mbpp_is_divided_by_task_id(tmp_path: Path) -> None:
    write(tmp_path, "mbpp/all.jsonl.gz", *({**MBPP, "task_id": number} for number in (10, 11, 510, 511, 974)))
    rows = Mirror(tmp_path).load(TASKS["mbpp"]).splits["test"]
    assert [row["task_id"] for row in rows] == [11, 510]


def test_parts_are_named_by_either_field(tmp_path: Path) -> None:
    write(tmp_path, "mmlu/test.jsonl", {**MMLU, "subject": "anatomy"}, {**MMLU, "type": "astronomy", "answer": 2})
    task = TASKS["mmlu"]
    rows = Mirror(tmp_path).load(task).splits["test"]
    assert [len(of_part(rows, task, part)) for part in ("anatomy", "astronomy", "virology")] == [1, 1, 0]


def test_lambada_in_two_fields_is_joined(tmp_path: Path) -> None:
    write(tmp_path, "lambada_openai/test.jsonl", {"context": "The wooden", "continuation": "door"})
    assert Mirror(tmp_path).load(TASKS["lambada_openai"]).splits["test"] == [{"text": "The wooden door"}]


@pytest.mark.parametrize(
    ("task", "line", "message"),
    [
        ("piqa", "{", r"validation.jsonl, line 2: not valid JSON"),
        ("piqa", "[1]", r"line 2: not a JSON object"),
        ("piqa", {"goal": "Boil"}, r"line 2: field 'sol1' is missing"),
        ("piqa", {**PIQA, "label": 2}, r"field 'label' is 2, and must be a number from 0 to 1"),
        ("piqa", {**PIQA, "goal": 5}, r"field 'goal' is 5, and must be a text"),
        ("arc_easy", {**ARC, "answerKey": "C"}, r"field 'answerKey' is \"C\", and must be one of A, B"),
        ("arc_easy", {**ARC, "choices": ["a"]}, r"field 'choices' is \[\"a\"\], and must be .*as many labels as texts"),
        (
            "winogrande",
            {"sentence": "No blank."},
            r"field 'sentence' is \"No blank.\", and must be a text with '_' in it",
        ),
        ("mmlu", {**MMLU, "choices": ["1"]}, r"field 'choices' is \[\"1\"\], and must be a list of 4 texts"),
        ("mmlu", MMLU, r"field 'subject' is missing"),
        ("mbpp", {**MBPP, "task_id": "11"}, r"field 'task_id' is \"11\", and must be a number"),
        ("math", {"problem": "?", "solution": "2"}, r"'solution' is \"2\", and must be a text whose last .*boxed"),
        ("math", {"problem": "?", "solution": "\\fbox{1}"}, "field 'solution' is"),
        ("math", {"problem": "?", "solution": "\\boxed{\\frac{1}{2}"}, "field 'solution' is"),
        ("math", {"problem": "?", "solution": "$\\boxed1$"}, "field 'solution' is"),
        ("piqa", {**PIQA, "label": True}, "field 'label' is true"),
        ("piqa", {**PIQA, "label": "٣"}, "field 'label' is"),
        ("mmlu", {**MMLU, "answer": "²"}, "field 'answer' is"),
        ("mmlu", {**MMLU, "answer": False}, "field 'answer' is false"),
        (
            "arc_easy",
            {**ARC, "choices": {"text": ["iron", "cork"], "label": ["A", "A"]}},
            "field 'choices' is .*none twice",
        ),
        (
            "arc_easy",
            {**ARC, "choices": {"text": ["iron", " "], "label": ["A", "B"]}},
            "field 'choices' is .*no text blank",
        ),
        ("gsm8k", {"question": "?", "answer": "1+1 #### "}, "field 'answer' is .*the answer after it"),
        ("lambada_openai", {"text": "He opened the "}, "field 'text' is .*ends in a word"),
        ("wikitext", {"page": " "}, "field 'page' is .*not blank"),
        ("mbpp", {**MBPP, "task_id": True}, "field 'task_id' is true"),
        ("mbpp", {**MBPP, "task_id": 11, "code": "def f(:"}, "field 'code' is .*a Python program"),
        (
            "mbpp",
            {**MBPP, "task_id": 11, "test_list": ["a", "b", "assert f("]},
            "field 'test_list' is .*Python programs",
        ),
        ("humaneval", {**HUMANEVAL, "entry_point": "g"}, "'entry_point' is \"g\", and must be the name of a function"),
        ("humaneval", {**HUMANEVAL, "test": "x = 1"}, "'test' is \"x = 1\", and must be .* with a function check"),
    ],
)
def test_a_bad_row_is_named_by_file_line_and_field(tmp_path: Path, task: str, line: Any, message: str) -> None:
    split = TASKS[task].split
    write(tmp_path, f"{TASKS[task].directory}/{split}.jsonl", "", line)
    with pytest.raises(XmodelError, match=message):
        Mirror(tmp_path).load(TASKS[task])


@pytest.mark.parametrize(
    ("task", "row", "field", "compared"),
    [
        ("mmlu", {**MMLU, "subject": "anatomy", "answer": "3"}, "answer", 3),
        ("piqa", {**PIQA, "label": "1"}, "label", 1),
        ("boolq", {"question": "?", "passage": "p", "label": "1"}, "label", 1),
        ("boolq", {"question": "?", "passage": "p", "label": True}, "label", 1),
        ("arc_easy", {**ARC, "answerKey": " B "}, "answerKey", "B"),
        ("openbookqa", {"question_stem": "?", "choices": ARC["choices"], "answerKey": "A "}, "answerKey", "A"),
    ],
)
def test_labels_have_the_form_that_the_harness_compares(
    tmp_path: Path, task: str, row: dict[str, Any], field: str, compared: Any
) -> None:
    write(tmp_path, f"{task}/{TASKS[task].split}.jsonl", row)
    mirror, hub = Mirror(tmp_path), Hub(lambda path, name, split: [row] if name in (None, "anatomy") else [])
    sources = [mirror.load(TASKS[task])] + ([hub.load(TASKS[task])] if task in ("mmlu", "piqa") else [])
    for data in sources:
        ((found, *_),) = data.splits.values()
        assert (found[field], type(found[field])) == (compared, type(compared))
        (built, *_) = build_tasks([task], Given(data))[task].parts.values()
        target = built.doc_to_target(built.eval_docs[0])
        assert built.doc_to_choice(built.eval_docs[0])[target if isinstance(target, int) else 0]


def test_examples_from_a_part_of_their_split_are_named(tmp_path: Path) -> None:
    row = {"question": "?", "answer": "#### 1"}
    write(tmp_path, "gsm8k/test.jsonl", row)
    write(tmp_path, "gsm8k/train.jsonl", *[row] * 100)
    found = Mirror(tmp_path).load(TASKS["gsm8k"]).coverage
    assert found.source == "gsm8k/test.jsonl; examples from 100 of 7,473 rows"


def test_a_missing_file_is_named_with_what_fetches_it(tmp_path: Path) -> None:
    with pytest.raises(
        XmodelError, match=rf"{tmp_path}/sciq/test.jsonl.gz: .*`xmodel2 eval fetch --tasks sciq --out {tmp_path}`"
    ):
        Mirror(tmp_path).load(TASKS["sciq"])
    with pytest.raises(XmodelError, match="no such folder; `xmodel2 eval fetch --out"):
        Mirror(tmp_path / "none")


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    write(tmp_path, "piqa/validation-1.jsonl", PIQA)
    write(tmp_path, "piqa/validation-2.jsonl", PIQA)
    with pytest.raises(XmodelError, match=r"piqa: validation-1.jsonl, validation-2.jsonl hold the same split"):
        Mirror(tmp_path).load(TASKS["piqa"])
    write(tmp_path, "piqa/validation.jsonl", "")
    with pytest.raises(XmodelError, match=r"validation.jsonl: no rows of the split 'validation'"):
        Mirror(tmp_path).load(TASKS["piqa"])
    (tmp_path / "piqa" / "validation.jsonl").write_text("[" * 100_000)
    with pytest.raises(XmodelError, match=r"validation.jsonl, line 1: not valid JSON"):
        Mirror(tmp_path).load(TASKS["piqa"])
    write(tmp_path, "arc_easy/test.jsonl.gz", *[ARC] * 30)
    file = tmp_path / "arc_easy" / "test.jsonl.gz"
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(XmodelError, match=r"test.jsonl.gz: damaged"):
        Mirror(tmp_path).load(TASKS["arc_easy"])


def test_too_few_questions_to_draw_examples_from(tmp_path: Path) -> None:
    row = {"question": "?", "answer": "#### 1"}
    write(tmp_path, "gsm8k/test.jsonl", row)
    with pytest.raises(XmodelError, match=r"gsm8k/train.jsonl.gz: no such file"):
        Mirror(tmp_path).load(TASKS["gsm8k"])
    write(tmp_path, "gsm8k/train.jsonl", row)
    with pytest.raises(XmodelError, match=r"train.jsonl: 1 rows, and 5 examples are drawn"):
        Mirror(tmp_path).load(TASKS["gsm8k"])


def test_the_real_sets_at_hand_are_read_as_they_are() -> None:
    expected = {"arc_challenge": 1172, "boolq": 3270, "hellaswag": 1000, "openbookqa": 500, "winogrande": 1267}
    expected |= {"mbpp": 500, "humaneval": 164, "mmlu": 3018, "piqa": 1838}
    found = {n: Mirror(SHARED).load(TASKS[n]).coverage for n in expected} if SHARED.is_dir() else {}
    assert {name: coverage.rows for name, coverage in found.items()} in ({}, expected)
    assert {name for name, coverage in found.items() if not coverage.whole} <= {"hellaswag", "mmlu"}
