"""What a line that begins with a slash does in a chat."""

import shlex
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from xmodel2.errors import XmodelError, nearest
from xmodel2.release.chatting.conversation import Answer, Conversation

HELP = """\
/help              this
/new               forget all turns
/system [TEXT]     show or set the system prompt; /system - takes it away
/set [NAME=VALUE]  show or change sampling settings, such as /set temperature=0.7 top_k=40
/retry             answer the last question again
/undo              take the last turn back
/save FILE         write the chat, as .md or .json
/load FILE         go on with a chat from .json
/stats             engine, context, tokens
/quit              leave (as Ctrl-D does)

Enter sends. A new line: Alt+Enter, or \\ at the end of a line, or between lines of \"\"\". Ctrl-C stops an answer."""

Say = Callable[[str], None]


def is_command(line: str) -> bool:
    """Tell a command from a question that begins with a slash."""
    return line.split(maxsplit=1)[0] in COMMANDS if line.startswith("/") else False


def run_command(line: str, chat: Conversation, say: Say) -> Answer | None:
    """Do what a line asks for; returns an answer that comes, if it makes one.

    Raises `EOFError` for /quit and `XmodelError` for what cannot be done.
    """
    name, rest = (*line.split(maxsplit=1), "")[:2]
    if name not in COMMANDS:
        raise XmodelError(f"{name}: no such command; /help lists them.{nearest(name, COMMANDS)}")
    return COMMANDS[name](chat, rest.strip(), say)


def _help(chat: Conversation, rest: str, say: Say) -> None:
    say(HELP)


def _new(chat: Conversation, rest: str, say: Say) -> None:
    chat.new()
    say("all turns are forgotten")


def _system(chat: Conversation, rest: str, say: Say) -> None:
    if rest:
        chat.system = "" if rest == "-" else rest
    say(f"system prompt: {chat.system}" if chat.system else "no system prompt")


def _set(chat: Conversation, rest: str, say: Say) -> None:
    chat.sampling = chat.sampling.changed(rest.split())
    say(" ".join(f"{name}={value}" for name, value in asdict(chat.sampling).items()))


def _retry(chat: Conversation, rest: str, say: Say) -> Answer:
    if chat.sampling.temperature == 0:
        say("temperature is 0: the answer will be the same; /set temperature=0.7 changes that")
    return chat.retry()


def _undo(chat: Conversation, rest: str, say: Say) -> None:
    say(f"taken back: {chat.undo().question}")


def _save(chat: Conversation, rest: str, say: Say) -> None:
    file = _file("save", rest)
    chat.save(file)
    say(f"written: {file}")


def _load(chat: Conversation, rest: str, say: Say) -> None:
    chat.load(_file("load", rest))
    say(f"{len(chat.turns)} turns")


def _file(command: str, rest: str) -> Path:
    try:
        (name,) = shlex.split(rest)
    except ValueError:
        raise XmodelError(f"/{command}: give one file, in quotes if its name has spaces") from None
    if not name.isprintable():
        raise XmodelError(f"/{command}: {name!r} is no name of a file")
    try:
        return Path(name).expanduser()
    except RuntimeError:
        raise XmodelError(f"/{command}: {name}: there is no such user here") from None


def _stats(chat: Conversation, rest: str, say: Say) -> None:
    engine, usage = chat.engine, chat.usage
    say(f"{engine.model} ({engine.kind})")
    context = f"{engine.context:,} tokens" if engine.context else "not told by the server"
    say(f"context: {context}; in use after the last answer: {usage.all_tokens:,}")
    say(f"turns: {len(chat.turns)}; tokens answered: {chat.total_tokens:,}")
    if usage.tokens_per_second:
        say(f"last answer: {usage.tokens_per_second:,.1f} tokens/s, the first after {usage.first_s:.2f} s")


def _quit(chat: Conversation, rest: str, say: Say) -> None:
    raise EOFError


COMMANDS: dict[str, Callable[[Conversation, str, Say], Answer | None]] = {
    "/help": _help,
    "/new": _new,
    "/system": _system,
    "/set": _set,
    "/retry": _retry,
    "/undo": _undo,
    "/save": _save,
    "/load": _load,
    "/stats": _stats,
    "/quit": _quit,
}
