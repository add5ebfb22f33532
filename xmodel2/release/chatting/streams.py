"""What a chat talks to: an engine that answers messages with text as it comes.

messages, Sampling -> Engine.stream -> "Par", "is", "." and a `Usage` that fills up meanwhile
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Protocol

from xmodel2.errors import XmodelError, nearest
from xmodel2.tokenizer import Message


class TooLongError(XmodelError):
    """The messages leave too little room in the context; without the oldest of them they may fit."""


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn. Raises `XmodelError` for a value out of range."""

    temperature: float = 0.0
    """0: always the likeliest token."""
    top_p: float = 1.0
    """Only the likeliest that together have so much probability."""
    top_k: int = 0
    """Only so many of the likeliest; 0: all."""
    min_p: float = 0.0
    """None less likely than so many times the likeliest."""
    repetition_penalty: float = 1.0
    """Above 1: what was said becomes less likely."""
    max_new_tokens: int = 256
    """Longest answer."""
    seed: int = 0

    def __post_init__(self) -> None:
        bounds = {
            "temperature": (0, 100),
            "top_p": (1e-6, 1),
            "top_k": (0, 2**31 - 1),
            "min_p": (0, 1),
            "repetition_penalty": (0.01, 100),
            "max_new_tokens": (1, 2**31 - 1),
            "seed": (0, 2**31 - 1),
        }
        for name, (low, high) in bounds.items():
            if not low <= getattr(self, name) <= high:
                raise XmodelError(f"{name} {getattr(self, name)}: must be between {low:g} and {high:g}")

    def changed(self, pairs: Sequence[str]) -> "Sampling":
        """Return it with ``name=value`` applied. Raises `XmodelError` for an unknown name or a wrong value."""
        kinds: dict[str, type[float]] = {entry.name: type(getattr(self, entry.name)) for entry in fields(self)}
        values: dict[str, Any] = {}
        for pair in pairs:
            name, equals, value = pair.partition("=")
            name = name.replace("-", "_")
            if name not in kinds or not equals:
                raise XmodelError(f"{pair}: write name=value with one of {', '.join(kinds)}.{nearest(name, kinds)}")
            try:
                values[name] = kinds[name](value)
            except ValueError:
                kind = "a whole number" if kinds[name] is int else "a number"
                raise XmodelError(f"{pair}: {value!r} is not {kind}") from None
        return replace(self, **values)


@dataclass
class Usage:
    """What an answer took; also right for an answer that was stopped on its way."""

    prompt_tokens: int = 0
    tokens: int = 0
    """Generated so far; of a server that does not say, pieces of text."""
    finish: str = "stop"
    """``stop``, or ``length`` for an answer that was cut."""
    notes: list[str] = field(default_factory=list)
    """What a user should know, such as that the oldest turns were left out."""
    began: float = field(default_factory=time.perf_counter)
    first_s: float = 0.0
    """Seconds to the first piece."""
    last_s: float = 0.0

    def came(self) -> None:
        """Take the time of a piece."""
        self.last_s = time.perf_counter() - self.began
        self.first_s = self.first_s or self.last_s

    @property
    def all_tokens(self) -> int:
        """Of prompt and answer."""
        return self.prompt_tokens + self.tokens

    @property
    def tokens_per_second(self) -> float:
        """Tokens after the first, by the time after the first; 0 for an answer too short to tell."""
        later = self.last_s - self.first_s
        return (self.tokens - 1) / later if self.tokens > 1 and later > 0 else 0.0


class Engine(Protocol):
    """Something that answers."""

    model: str
    kind: str
    """The engine in a few words."""
    context: int
    """Tokens; 0 if it does not say."""

    def stream(self, messages: Sequence[Message], sampling: Sampling, usage: Usage) -> Iterator[str]:
        """Yield the answer as it comes, never half a character. Raises `TooLongError`, other `XmodelError`s."""

    def close(self) -> None:
        """Let go of what it holds."""
