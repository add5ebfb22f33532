"""The chat in a script."""

import json

import pytest

from tests.release.chatting.scripted import Scripted
from xmodel2.release.chatting.conversation import Conversation
from xmodel2.release.chatting.piped import run_piped
from xmodel2.release.chatting.streams import Sampling


def answered(text: str, *scripts: str, as_json: bool = False, context: int = 0) -> tuple[int, Conversation]:
    chat = Conversation(Scripted(*scripts, context=context), Sampling())
    return run_piped(chat, text.encode("utf-8", "surrogateescape").splitlines(True), as_json), chat


def test_an_answer_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    code, chat = answered("a\n\n/etc/passwd?\n/new\nlast", "one", "two", "three")
    assert (code, capsys.readouterr().out) == (0, "one \ntwo \nthree \n")
    assert [turn.question for turn in chat.turns] == ["last"]


def test_an_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    answered("a\n/retry\n\udcff?\n", "one\ntwo", "2", "3", as_json=True)
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["question"], row["answer"]) for row in rows] == [("a", "one\ntwo "), ("a", "2 "), ("\ufffd?", "3 ")]
    assert rows[0]["tokens"] == 1
    assert rows[0]["finish"] == "stop"
    assert rows[0]["tokens_per_second"] is None  # of one token there is nothing to tell


def test_a_question_that_fails_is_told_and_the_rest_answered(capsys: pytest.CaptureFixture[str]) -> None:
    code, _ = answered("a b c\na\n", "one", context=2)
    out, error = capsys.readouterr()
    assert (code, out, error) == (1, "one \n", "xmodel2: that is 3 words\n")


@pytest.mark.parametrize(
    "command", ["/save ~nobody-of-this-name/x.md", "/save 'a\0b.md'", "/load /", "/save /proc/x.md"]
)
def test_a_file_that_cannot_be_is_told_and_the_rest_answered(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, _ = answered(f"a\n{command}\nb\n", "one", "two")
    out, error = capsys.readouterr()
    assert (code, out) == (1, "one \ntwo \n")
    assert error.startswith("xmodel2: ")


def test_a_command_and_what_it_is_about_may_have_any_space_between(capsys: pytest.CaptureFixture[str]) -> None:
    code, chat = answered("/set\ttop_k=3\n")
    assert (code, chat.sampling.top_k) == (0, 3)
