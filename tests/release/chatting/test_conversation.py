"""What a chat remembers, what of it is sent, and what becomes of it in a file."""

import json
from itertools import islice
from pathlib import Path

import pytest

from tests.release.chatting.scripted import Scripted
from xmodel2.errors import XmodelError
from xmodel2.release.chatting.conversation import Conversation
from xmodel2.release.chatting.streams import Sampling, TooLongError


def talk(*scripts: str, context: int = 0, system: str = "") -> tuple[Conversation, Scripted]:
    engine = Scripted(*scripts, context=context)
    return Conversation(engine, Sampling(temperature=1.0, seed=5), system), engine


def test_earlier_turns_and_the_system_prompt_are_sent() -> None:
    chat, engine = talk("one", "two", system="Be short.")
    assert "".join(chat.ask("first?")) == "one "
    assert "".join(chat.ask("second?")) == "two "
    assert [(m["role"], m["content"]) for m in engine.seen[1]] == [
        ("system", "Be short."),
        ("user", "first?"),
        ("assistant", "one "),
        ("user", "second?"),
    ]


def test_a_full_context_leaves_the_oldest_turns_out_and_says_so_once() -> None:
    chat, engine = talk("b b b", "d d d", "f f f", context=10, system="s")
    for question, notes in (("a a a", 0), ("c c c", 0), ("e e e", 1)):
        list(chat.ask(question))
        assert len(chat.usage.notes) == notes
    assert [m["content"].split()[0] for m in engine.seen[2]] == ["s", "c", "d", "e"]
    engine.scripts = ["h h h"]
    list(chat.ask("g g g"))
    assert chat.usage.notes == []
    assert len(chat.turns) == 4  # what is not sent is still in what /save writes


def test_a_question_that_is_too_long_alone_changes_nothing() -> None:
    chat, engine = talk("b", "d", context=8)
    list(chat.ask("a"))
    with pytest.raises(TooLongError, match="9 words"):
        list(chat.ask("c " * 9))
    list(chat.ask("c"))
    assert [m["content"] for m in engine.seen[1]] == ["a", "b ", "c"]


def test_a_stopped_answer_stays_as_far_as_it_came() -> None:
    chat, engine = talk("one two three", "four")
    answer = chat.ask("count")
    assert list(islice(answer, 2)) == ["one ", "two "]
    answer.close()
    assert (chat.turns[0].answer, chat.turns[0].stopped) == ("one two ", True)
    list(chat.ask("on"))
    assert engine.seen[1][1]["content"] == "one two "
    assert not chat.turns[1].stopped
    answer = chat.ask("nothing yet")
    answer.close()
    assert len(chat.turns) == 2


def test_undo_and_retry() -> None:
    chat, engine = talk("one", "two", "three")
    list(chat.ask("a"))
    assert "".join(chat.retry()) == "two "
    assert [(turn.question, turn.answer) for turn in chat.turns] == [("a", "two ")]
    assert [sampling.seed for sampling in engine.sampling] == [5, 6]
    assert chat.undo().question == "a"
    with pytest.raises(XmodelError, match="no turn"):
        chat.undo()


def test_a_retry_of_which_nothing_comes_leaves_the_turn_as_it_was() -> None:
    chat, _ = talk("one", "two")
    list(chat.ask("a"))
    list(chat.ask("b"))
    with pytest.raises(IndexError):  # the script is at its end
        list(chat.retry())
    assert [(turn.question, turn.answer) for turn in chat.turns] == [("a", "one "), ("b", "two ")]
    chat.retry().close()
    assert len(chat.turns) == 2


def test_a_chat_is_saved_and_loaded(tmp_path: Path) -> None:
    chat, _ = talk("one", "two three", system="Be short.")
    list(chat.ask("a\nb"))
    answer = chat.ask("c")
    next(answer)
    answer.close()
    chat.save(tmp_path / "chat.json")
    chat.save(tmp_path / "chat.md")
    assert "## assistant (stopped)\n\ntwo" in (tmp_path / "chat.md").read_text()
    other, _ = talk("four")
    other.load(tmp_path / "chat.json")
    assert (other.system, other.turns) == (chat.system, chat.turns)
    list(other.ask("d"))
    other.save(tmp_path / "chat.json")
    saved = json.loads((tmp_path / "chat.json").read_text())
    assert [message["role"] for message in saved["messages"]] == ["system", *["user", "assistant"] * 3]


def test_files_of_others_are_not_overwritten(tmp_path: Path) -> None:
    chat, _ = talk()
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(XmodelError, match="exists already"):
        chat.save(tmp_path / "README.md")
    with pytest.raises(XmodelError, match=r"\.md or \.json"):
        chat.save(tmp_path / "chat.txt")
    assert (tmp_path / "README.md").read_text() == "mine"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "no list 'messages'"),
        ('{"messages": [{"role": "user"}]}', r"messages\[0\].content"),
        ('{"messages": [3]}', r"messages\[0\].content"),
        ('{"messages": [{"role": "user", "content": "a"}]}', "take turns"),
        ('{"messages": [{"role": "assistant", "content": "a"}, {"role": "user", "content": "a"}]}', "take turns"),
    ],
)
def test_a_damaged_file_is_named_and_changes_nothing(tmp_path: Path, text: str, message: str) -> None:
    chat, _ = talk("one")
    list(chat.ask("a"))
    file = tmp_path / "chat.json"
    file.write_text(text)
    with pytest.raises(XmodelError, match=message) as caught:
        chat.load(file)
    assert "chat.json" in str(caught.value)
    assert len(chat.turns) == 1


def test_sampling_settings_are_checked() -> None:
    assert Sampling().changed(["temperature=0.7", "top-k=40"]) == Sampling(temperature=0.7, top_k=40)
    for pair, message in (
        ("temprature=1", "Did you mean 'temperature'"),
        ("top_k=1.5", "not a whole number"),
        ("top_p", "name=value"),
        ("top_p=0", "between"),
        ("temperature=nan", "between"),
        ("seed=-1", "between"),
    ):
        with pytest.raises(XmodelError, match=message):
            Sampling().changed([pair])
