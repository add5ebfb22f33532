"""Answers outlive what asked for them, each question is asked once."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from xmodel2.errors import XmodelError
from xmodel2.eval.answer_cache import ANSWERS_FILE, AnswerCache


class Model:
    """Answers with the length of a text, the last question first; stops with an error after so many."""

    def __init__(self, until: int = 100) -> None:
        self.asked: list[str] = []
        self._until = until

    def __call__(self, questions: Sequence[str]) -> Iterator[tuple[int, int]]:
        for index in reversed(range(len(questions))):
            if len(self.asked) == self._until:
                raise KeyboardInterrupt
            self.asked.append(questions[index])
            yield index, len(questions[index])


def test_equal_questions_are_asked_once_and_in_other_calls_not_again(tmp_path: Path) -> None:
    model, seen = Model(), list[tuple[int, int]]()
    questions = ["a", "bb", "a", "ccc"]
    assert AnswerCache(tmp_path).answer("x", questions, model, lambda *n: seen.append(n)) == [1, 2, 1, 3]
    assert model.asked == ["ccc", "bb", "a"]
    assert seen == [(1, 4), (2, 4), (4, 4)]
    assert AnswerCache(tmp_path).answer("x", ["ccc", "dddd"], model) == [3, 4]
    assert AnswerCache(tmp_path).answer("y", ["ccc"], model) == [3]
    assert model.asked == ["ccc", "bb", "a", "dddd", "ccc"]


def test_what_does_not_last_is_asked_again(tmp_path: Path) -> None:
    model = Model()
    for _ in range(2):
        assert AnswerCache(tmp_path).answer("x", ["a", "bb"], model, lasting=lambda answer: answer != 1) == [1, 2]
    assert model.asked == ["bb", "a", "a"]


def test_what_was_answered_before_a_stop_is_kept(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        AnswerCache(tmp_path).answer("x", ["a", "bb", "ccc"], Model(until=2))
    with open(tmp_path / ANSWERS_FILE, "a") as file:
        file.write('{"key": "torn')
    model = Model()
    assert AnswerCache(tmp_path).answer("x", ["a", "bb", "ccc"], model) == [1, 2, 3]
    assert model.asked == ["a"]


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    (tmp_path / ANSWERS_FILE).write_text('{"key": "a", "answer": 1}\nnonsense\n')
    with pytest.raises(XmodelError, match=r"answers\.jsonl, line 2"):
        AnswerCache(tmp_path)
    (tmp_path / ANSWERS_FILE).write_text('{"key": "a", "answer": 1}\n{"answer": 1}\n')
    with pytest.raises(XmodelError, match=r"answers\.jsonl, line 2: has no 'key'; remove the line"):
        AnswerCache(tmp_path)
