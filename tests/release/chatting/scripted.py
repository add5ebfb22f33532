"""An engine that says what it is told."""

from collections.abc import Iterator, Sequence

from xmodel2.release.chatting.streams import Sampling, TooLongError, Usage
from xmodel2.tokenizer import Message


class Scripted:
    """Answers with one script after another, word by word; its context counts words."""

    model, kind = "scripted", "a script"

    def __init__(self, *scripts: str, context: int = 0) -> None:
        self.scripts, self.context = list(scripts), context
        self.seen: list[list[Message]] = []
        self.sampling: list[Sampling] = []
        self.closed = False

    def stream(self, messages: Sequence[Message], sampling: Sampling, usage: Usage) -> Iterator[str]:
        words = sum(len(message["content"].split()) for message in messages)
        if self.context and words > self.context:
            raise TooLongError(f"that is {words} words")
        self.seen.append(list(messages))
        self.sampling.append(sampling)
        usage.prompt_tokens = words
        for word in self.scripts.pop(0).split(" "):
            usage.tokens += 1
            usage.came()
            yield word + " "

    def close(self) -> None:
        self.closed = True
