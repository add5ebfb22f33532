"""The chat as a user types it: keys in, text out."""

import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

pytest.importorskip("prompt_toolkit")

from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from tests.release.chatting.scripted import Scripted
from xmodel2.release.chatting.conversation import Conversation
from xmodel2.release.chatting.streams import Sampling, Usage
from xmodel2.release.chatting.terminal import run_terminal
from xmodel2.tokenizer import Message

ENTER, ALT_ENTER, CTRL_C, CTRL_D = "\r", "\x1b\r", "\x03", "\x04"


class Interrupting(Scripted):
    """Presses Ctrl-C, impatiently twice, after the second word."""

    def stream(self, messages: Sequence[Message], sampling: Sampling, usage: Usage) -> Iterator[str]:
        for number, word in enumerate(super().stream(messages, sampling, usage)):
            yield word
            if number == 1:
                try:
                    signal.raise_signal(signal.SIGINT)
                finally:
                    signal.raise_signal(signal.SIGINT)


def typed(keys: str, engine: Scripted) -> Conversation:
    """Type keys into a chat until it ends."""
    chat = Conversation(engine, Sampling())
    with create_pipe_input() as pipe, create_app_session(input=pipe, output=DummyOutput()):
        pipe.send_text(keys)
        run_terminal(chat)
    return chat


def asked(keys: str, count: int = 1) -> list[str]:
    """Return the questions that keys make."""
    return [turn.question for turn in typed(keys + CTRL_D, Scripted(*["yes"] * count)).turns]


def test_an_answer_streams_with_its_rate(capsys: pytest.CaptureFixture[str]) -> None:
    typed(f"hi{ENTER}/quit{ENTER}", Scripted("hello you there", context=100))
    out = capsys.readouterr().out
    assert out.startswith("scripted · a script · context 100 tokens · /help\nhello you there \n3 tokens")
    assert "tokens/s" in out


def test_messages_of_several_lines() -> None:
    assert asked(f"one{ALT_ENTER}two{ENTER}") == ["one\ntwo"]
    assert asked(f"one\\{ENTER}two{ENTER}") == ["one\ntwo"]
    assert asked(f'"""{ENTER}one{ENTER}two{ENTER}"""{ENTER}') == ["one\ntwo"]
    assert asked(f'"""one"""{ENTER}') == ["one"]
    assert asked(f"\x1b[200~one\ntwo\n\nthree\x1b[201~{ENTER}") == ["one\ntwo\n\nthree"]


def test_empty_lines_are_no_questions() -> None:
    assert asked(f"{ENTER}  {ENTER}one{ENTER}") == ["one"]


def test_ctrl_c_stops_the_answer_and_not_the_program(capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGINT)
    engine = Interrupting("one two three four", "yes")
    chat = typed(f"count{ENTER}on{ENTER}{CTRL_D}", engine)
    out = capsys.readouterr().out
    assert "one two \nstopped · 2 tokens" in out
    assert "three" not in out
    assert [turn.stopped for turn in chat.turns] == [True, False]
    assert engine.seen[1][1]["content"] == "one two "
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_at_an_empty_prompt_tells_how_to_leave(capsys: pytest.CaptureFixture[str]) -> None:
    assert asked(f"half a thought{CTRL_C}one{ENTER}") == ["one"]
    assert "leaves" not in capsys.readouterr().out
    asked(CTRL_C)
    assert "Ctrl-D or /quit leaves" in capsys.readouterr().out


def test_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "a chat.json"
    lines = [
        *("/help", "/system Be short.", "/set temperature=0.7 top_k=40", "/set temprature=1", "/undo", "/nex"),
        *("hi", "/retry", "/stats", f"/save '{file}'", "/save", "/new", f"/load '{file}'", "/system -", "bye"),
    ]
    engine = Scripted("one", "two", "three")
    chat = typed(ENTER.join([*lines, ""]) + CTRL_D, engine)
    out = capsys.readouterr().out
    for expected in (
        "/retry             answer",
        "system prompt: Be short.",
        "temperature=0.7 top_p=1.0 top_k=40",
        "Did you mean 'temperature'",
        "no turn to take back",
        "Did you mean '/new'",
        "turns: 1; tokens answered: 2",
        "give one file",
        "all turns are forgotten",
        "1 turns",
        "no system prompt",
    ):
        assert expected in out
    assert [(turn.question, turn.answer) for turn in chat.turns] == [("hi", "two "), ("bye", "three ")]
    assert [message["role"] for message in engine.seen[-1]] == ["user", "assistant", "user"]


def test_what_a_model_says_cannot_take_over_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    typed(f"hi{ENTER}{CTRL_D}", Scripted("\x1b[2J\x07\u202eabc\r\n\tend"))
    out = capsys.readouterr().out
    assert "\\x1b[2J\\x07\\u202eabc\\r\n\tend" in out
    assert not set(out) & {"\x1b", "\x07", "\r", "\u202e"}


def test_an_error_ends_a_turn_and_not_the_chat(capsys: pytest.CaptureFixture[str]) -> None:
    chat = typed(f"a b c{ENTER}a{ENTER}{CTRL_D}", Scripted("yes", context=2))
    assert "that is 3 words" in capsys.readouterr().out
    assert [turn.question for turn in chat.turns] == ["a"]
