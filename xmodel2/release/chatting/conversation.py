"""The turns of a chat, and which of them are sent: all, without the oldest once they no longer fit."""

from collections.abc import Generator, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from xmodel2.errors import XmodelError
from xmodel2.files import read_json, write_json_atomic, write_text_atomic
from xmodel2.release.chatting.streams import Engine, Sampling, TooLongError, Usage
from xmodel2.tokenizer import Message

Answer = Generator[str, None, None]
"""Text as it comes; closing it stops it."""


@dataclass
class Turn:
    """A question and what was answered, whole unless ``stopped``."""

    question: str
    answer: str = ""
    stopped: bool = False


class Conversation:
    """A chat with one engine."""

    def __init__(self, engine: Engine, sampling: Sampling, system: str = "") -> None:
        self.engine, self.sampling, self.system = engine, sampling, system
        self.turns: list[Turn] = []
        self.usage = Usage()
        """Of the newest answer."""
        self.total_tokens = 0
        """Of all answers."""
        self._left_out, self._told, self._retries = 0, False, 0
        self._own_files: set[Path] = set()

    def ask(self, question: str) -> Answer:
        """Yield the answer as it comes, and keep the turn; one that is stopped keeps what was said so far.

        Raises `TooLongError` if the question alone is too long, and what the engine raises; the turn is not kept then,
        unless something was said.
        """
        turn, left_out = Turn(question, stopped=True), self._left_out
        self.turns.append(turn)
        try:
            for text in self._stream():
                turn.answer += text
                yield text
            turn.stopped = False
        finally:
            self.total_tokens += self.usage.tokens
            if turn.stopped and not turn.answer:
                self.turns.pop()
                self._left_out = left_out

    def _stream(self) -> Iterator[str]:
        sampling = replace(self.sampling, seed=(self.sampling.seed + self._retries) % 2**31)
        while True:
            self.usage = Usage()
            try:
                yield from self.engine.stream(self._messages(), sampling, self.usage)
            except TooLongError:
                if self._left_out == len(self.turns) - 1:
                    raise
                self._left_out += 1
                continue
            if self._left_out and not self._told:
                self.usage.notes.append("the context is full: the oldest turns are not sent any more")
                self._told = True
            return

    def _messages(self) -> list[Message]:
        found: list[Message] = [{"role": "system", "content": self.system}] if self.system else []
        for turn in self.turns[self._left_out :]:
            found.append({"role": "user", "content": turn.question})
            if turn is not self.turns[-1]:
                found.append({"role": "assistant", "content": turn.answer})
        return found

    def new(self) -> None:
        """Forget all turns."""
        self.turns.clear()
        self._left_out, self._told = 0, False

    def undo(self) -> Turn:
        """Take the last turn back and return it. Raises `XmodelError` if there is none."""
        if not self.turns:
            raise XmodelError("there is no turn to take back")
        self._left_out = min(self._left_out, max(0, len(self.turns) - 2))
        return self.turns.pop()

    def retry(self) -> Answer:
        """Answer the last question again, with another seed. If nothing comes of it, the turn is as before.

        Raises `XmodelError`, at once, if there is none.
        """
        if not self.turns:
            raise XmodelError("there is no turn to answer again")
        self._retries += 1
        return self._again()

    def _again(self) -> Answer:
        left_out, turn = self._left_out, self.undo()
        before = len(self.turns)
        try:
            yield from self.ask(turn.question)
        finally:
            if len(self.turns) == before:
                self.turns.append(turn)
                self._left_out = left_out

    def save(self, file: Path) -> None:
        """Write the chat as Markdown or JSON, by the suffix. Raises `XmodelError` for a file that this chat did not write."""
        if file.suffix not in (".md", ".json"):
            raise XmodelError(f"{file}: give a name that ends with .md or .json")
        if file.exists() and file.resolve() not in self._own_files:
            raise XmodelError(f"{file}: exists already; give another name")
        if file.suffix == ".json":
            write_json_atomic(file, self._record())
        else:
            write_text_atomic(file, self._markdown())
        self._own_files.add(file.resolve())

    def _record(self) -> dict[str, Any]:
        messages: list[dict[str, Any]] = [{"role": "system", "content": self.system}] if self.system else []
        for turn in self.turns:
            messages.append({"role": "user", "content": turn.question})
            messages.append({"role": "assistant", "content": turn.answer} | ({"stopped": True} if turn.stopped else {}))
        return {"model": self.engine.model, "sampling": asdict(self.sampling), "messages": messages}

    def _markdown(self) -> str:
        parts = [f"# Chat with {self.engine.model}"]
        for message in self._record()["messages"]:
            parts += [f"## {message['role']}{' (stopped)' if message.get('stopped') else ''}", message["content"]]
        return "\n\n".join(parts) + "\n"

    def load(self, file: Path) -> None:
        """Go on with a chat that was saved as JSON. Raises `XmodelError` naming what is wrong in it."""
        found = read_json(file)
        if found is None:
            raise XmodelError(f"{file}: no such file")
        system, turns = _parse(file, found)
        self.new()
        self.system, self.turns = system, turns
        self._own_files.add(file.resolve())


def _parse(file: Path, found: Any) -> tuple[str, list[Turn]]:
    messages = found.get("messages") if isinstance(found, dict) else None
    if not isinstance(messages, list):
        raise XmodelError(f"{file}: has no list 'messages'; it is no chat that /save wrote as .json")
    for number, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("content"), str):
            raise XmodelError(f"{file}: messages[{number}].content: must be text")
    system = messages.pop(0)["content"] if messages and messages[0].get("role") == "system" else ""
    roles = [message.get("role") for message in messages]
    if roles != ["user", "assistant"] * (len(roles) // 2):
        raise XmodelError(
            f"{file}: messages: after a first system message, user and assistant must take turns, the assistant last"
        )
    pairs = zip(messages[::2], messages[1::2], strict=True)
    return system, [Turn(asked["content"], said["content"], said.get("stopped") is True) for asked, said in pairs]
