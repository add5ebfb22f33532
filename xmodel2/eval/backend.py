"""What a model must be able to do to be evaluated, wherever it runs.

    pairs (context, continuation) -> loglikelihood -> (log-probability in nats, whether it is the greedy one)
    texts                         -> rolling       -> log-probability of the whole text, in nats
    prompts                       -> generate      -> text up to the first stop string

Answers come in any order, each with the index of its question: what caches, resumes or draws a bar stands outside.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Prompt:
    """A text to be continued; greedy unless ``temperature`` is above 0."""

    text: str
    until: tuple[str, ...]
    """Stop strings; the answer ends before the first of them."""
    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0


class Backend(Protocol):
    """A model that answers; every method raises `XmodelError` for what it cannot do."""

    @property
    def description(self) -> dict[str, Any]:
        """``name``, ``backend``, ``fingerprint`` of weights and tokenizer, ``parameters``, ``dtype``, ``source``."""

    @property
    def max_length(self) -> int:
        """Context, in tokens."""

    def token_counts(self, texts: Sequence[str]) -> list[int] | None:
        """Return the tokens of each text, the first one of its own included; None where that cannot be told."""

    def loglikelihood(self, pairs: Sequence[tuple[str, str]]) -> Iterator[tuple[int, tuple[float, bool]]]:
        """Yield the log-probability of each continuation after its context, and whether greedy decoding gives it."""

    def rolling(self, texts: Sequence[str]) -> Iterator[tuple[int, float]]:
        """Yield the log-probability of each text, each token once, with as much context as its window holds."""

    def generate(self, prompts: Sequence[Prompt]) -> Iterator[tuple[int, str]]:
        """Yield the continuation of each prompt, cut before its first stop string."""
