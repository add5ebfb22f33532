"""A chat in the terminal: lines are edited, answers stream, Ctrl-C stops an answer and not the program."""

import re
import signal
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from types import FrameType

from rich.console import Console

from xmodel2.errors import Terminated, XmodelError
from xmodel2.page import printable
from xmodel2.release.chatting.commands import run_command
from xmodel2.release.chatting.conversation import Answer, Conversation
from xmodel2.release.chatting.line_editor import BLOCK, ask_for_line, new_session


def run_terminal(chat: Conversation) -> None:
    """Talk until Ctrl-D or /quit."""
    before = signal.signal(signal.SIGINT, _nothing)  # of a Ctrl-C just after an answer's end
    try:
        _talk(chat)
    finally:
        signal.signal(signal.SIGINT, before)


def _nothing(number: int, frame: FrameType | None) -> None:
    pass


def _talk(chat: Conversation) -> None:
    console = Console(highlight=False, markup=False, soft_wrap=True)
    session = new_session()

    def say(text: str) -> None:
        console.print(harmless(text), style="dim")

    engine = chat.engine
    context = f" · context {engine.context:,} tokens" if engine.context else ""
    say(f"{engine.model} · {engine.kind}{context} · /help")
    while True:
        try:
            line = ask_for_line(session)
        except Terminated:
            raise
        except KeyboardInterrupt:
            if not session.default_buffer.text:
                say("Ctrl-D or /quit leaves")
            continue
        except EOFError:
            return
        try:
            if line.startswith("/"):
                answer = run_command(line, chat, say)
            else:
                answer = chat.ask(line.removeprefix(BLOCK).removesuffix(BLOCK).strip("\n")) if line else None
            if answer is not None:
                _show(chat, answer, console)
        except EOFError:
            return
        except (XmodelError, OSError) as error:
            console.print(harmless(str(error)), style="red")


def _show(chat: Conversation, answer: Answer, console: Console) -> None:
    said = stopped = False
    with _stoppable(), closing(answer):
        try:
            for text in answer:
                said = said or bool(text)
                sys.stdout.write(harmless(text))
                sys.stdout.flush()
        except Terminated:
            raise
        except KeyboardInterrupt:
            stopped = True
        finally:
            if said:
                print()
    usage, parts = chat.usage, []
    if stopped:
        parts.append("stopped" if said else "stopped before it said anything")
    elif not said:
        parts.append("the model ended its answer at once")
    elif usage.finish == "length" and chat.engine.context and usage.all_tokens >= chat.engine.context:
        parts.append("cut at the end of the context; /new begins afresh")
    elif usage.finish == "length":
        parts.append("cut at its longest; /set max_new_tokens=... allows more")
    if usage.tokens:
        parts.append(f"{usage.tokens:,} token{'s' if usage.tokens > 1 else ''}")
    if usage.tokens_per_second:
        parts.append(f"{usage.tokens_per_second:,.1f} tokens/s")
    for note in [*usage.notes, " · ".join(parts)]:
        console.print(harmless(note), style="dim")


@contextmanager
def _stoppable() -> Iterator[None]:
    """Within, the first Ctrl-C raises `KeyboardInterrupt`, and none after it, so that what it stops can be put away."""

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, _nothing)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def harmless(text: str) -> str:
    """Return a text with what could move the cursor written out, lines and tabs as they are.

    >>> harmless("a\\n\\x1b[2J")
    'a\\n\\\\x1b[2J'
    """
    return "".join(part if part in ("\n", "\t") else printable(part) for part in re.split("([\n\t])", text))
