"""Instruction data: reproducible, checkable, with true working, and held-out questions that training never saw."""

from collections import Counter
from typing import Any

import pytest

from xmodel2.data.reasoning import TASKS, extract_answer, majority_answers, reasoning_examples


@pytest.fixture(scope="module")
def examples() -> list[dict[str, Any]]:
    """Examples of every task, made once."""
    return reasoning_examples(800, seed=1)


def test_tasks_come_in_equal_parts(examples: list[dict[str, Any]]) -> None:
    counts = Counter(example["task"] for example in examples)
    assert set(counts) == set(TASKS)
    assert max(counts.values()) - min(counts.values()) <= len(TASKS)
    assert len(examples) == 800


def test_equal_seeds_give_equal_examples(examples: list[dict[str, Any]]) -> None:
    assert reasoning_examples(800, seed=1) == examples
    assert reasoning_examples(800, seed=2) != examples


def test_assistant_ends_with_the_answer(examples: list[dict[str, Any]]) -> None:
    for example in examples:
        user, assistant = example["messages"]
        assert (user["role"], assistant["role"]) == ("user", "assistant")
        assert user["content"] == example["question"]
        assert extract_answer(assistant["content"]) == example["answer"]


def test_working_is_true(examples: list[dict[str, Any]]) -> None:
    checked = 0
    for example in examples:
        *working, _ = example["messages"][1]["content"].split("\n")
        if example["task"] in ("chain_sum", "leg_counting"):
            results = []
            for line in working:
                left, result = line.split(": ")[-1].split(" = ")
                first, sign, second = left.split()
                expected = {"+": int(first) + int(second), "-": int(first) - int(second), "*": int(first) * int(second)}
                assert int(result) == expected[sign]
                results.append(int(result))
            assert results[-1] == int(example["answer"])
            checked += 1
    assert checked == 400


def test_excluded_questions_are_left_out(examples: list[dict[str, Any]]) -> None:
    seen = {example["question"] for example in examples}
    held = reasoning_examples(90, seed=2, exclude=seen)
    assert held
    assert seen.isdisjoint(example["question"] for example in held)


def test_chosen_tasks_only() -> None:
    found = reasoning_examples(20, seed=1, tasks={"spell_backward": {"min_word_len": 3, "max_word_len": 3}})
    assert {example["task"] for example in found} == {"spell_backward"}
    assert all(example["answer"] == example["question"].split()[-1][::-1] for example in found)


@pytest.mark.parametrize(
    ("text", "answer"), [("1 + 1 = 2\n#### 2", "2"), (" yes \n", "yes"), ("#### 1\n#### 2 ", "2"), ("", "")]
)
def test_extract_answer(text: str, answer: str) -> None:
    assert extract_answer(text) == answer


def test_majority_answer_is_the_commonest_of_each_task() -> None:
    rows = [{"task": task, "answer": answer} for task, answer in [("a", "1"), ("a", "2"), ("a", "2"), ("b", "x")]]
    assert majority_answers(rows) == {"a": "2", "b": "x"}
