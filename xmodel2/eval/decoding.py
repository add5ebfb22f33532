"""Answers in progress: from prompt to tokens, from the newest token to an ended text. Shared by all ways of batching them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from xmodel2.eval.backend import Prompt
from xmodel2.eval.requests import cut_at_stop, fit_prompt
from xmodel2.eval.text import TextTokenizer
from xmodel2.model.generate import choose


@dataclass
class Answer:
    """One prompt and what has been generated after it."""

    index: int
    prompt: Prompt
    ids: list[int]
    """Tokens of the prompt."""
    room: int
    """Tokens that may follow."""
    generator: torch.Generator | None
    new: list[int] = field(default_factory=list)


class Decoder:
    """Begins and ends answers with a tokenizer, in a context of ``max_length`` tokens."""

    def __init__(self, tokenizer: TextTokenizer, max_length: int) -> None:
        self._tokenizer, self._max_length = tokenizer, max_length
        self._stops = tokenizer.stop_ids

    def begin(self, numbered: Sequence[tuple[int, Prompt]]) -> list[Answer]:
        """Return answers without a token yet; prompts are cut on the left to fit."""
        encoded = self._tokenizer.encode_many([prompt.text for _, prompt in numbered])
        return [self._begin(index, prompt, ids) for (index, prompt), ids in zip(numbered, encoded, strict=True)]

    def _begin(self, index: int, prompt: Prompt, ids: list[int]) -> Answer:
        ids, room = fit_prompt(ids, prompt.max_new_tokens, self._max_length)
        generator = torch.Generator().manual_seed(prompt.seed) if prompt.temperature > 0 else None
        return Answer(index, prompt, ids or [self._tokenizer.prefix_id], room, generator)

    def choose(self, logits_NV: torch.Tensor, answers: Sequence[Answer | None]) -> list[int]:
        """Return the next token of each: the likeliest, or one drawn where the prompt asks for it."""
        tokens: list[int] = logits_NV.argmax(-1).tolist()
        for row, answer in enumerate(answers):
            if answer is not None and answer.generator is not None:
                asked = answer.prompt
                tokens[row] = int(choose(logits_NV[row, None].cpu(), asked.temperature, asked.top_p, answer.generator))
        return tokens

    def take(self, answer: Answer, token: int) -> str | None:
        """Add a token to an answer; return its text if that ends it."""
        if token in self._stops:
            return self._text(answer)
        answer.new.append(token)
        if len(answer.new) >= answer.room:
            return self._text(answer)
        return self._text(answer) if self._tokenizer.completes_stop(answer.new, answer.prompt.until) else None

    def _text(self, answer: Answer) -> str:
        return cut_at_stop(self._tokenizer.decode(answer.new), answer.prompt.until)
