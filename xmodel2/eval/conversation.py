"""Conversations through one model: each answer leads to the next prompt, which mostly begins with what its slot already holds.

    prompt 1 ──> slot 3: [examples, task]──answer──> reply() -> prompt 2 = prompt 1 + answer + observation
                 slot 3: [examples, task, answer, observation]      only what is new is computed

A new conversation takes over what it shares with any slot, such as the examples of its benchmark, by copying its keys.
Greedy answers equal those to each prompt asked alone, up to rounding in ties. (`generation` knows all its prompts beforehand:
it orders them so that little is padded, and needs no keys after an answer.)
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice

import torch

from xmodel2.eval.backend import Backend, Prompt
from xmodel2.eval.decoding import Answer, Decoder
from xmodel2.eval.network import Network
from xmodel2.eval.prefix_tree import common_length
from xmodel2.eval.shared_attention import Beginning, beginning, sharing
from xmodel2.eval.slots import SlotCache
from xmodel2.eval.text import TextTokenizer

Reply = Callable[[int, str], Prompt | None]
"""(conversation, answer) -> its next prompt, None at its end."""
WAVE = 64
_GROWTH = 2
"""Slots are counted as if conversations grew to so many times the longest first prompt."""
_LEAST = 8
"""A shared beginning of so few tokens is not worth waiting for."""


@dataclass
class _Slot:
    held: list[int] = field(default_factory=list)
    """Tokens whose keys are there, of this conversation or the one before."""
    answer: Answer | None = None
    """In progress."""
    waiting: bool = False
    """Whether its prompt is still to be computed."""


class Converser:
    """Holds conversations on one network, at most ``slots`` at a time; fewer, once the keys of ``cache_tokens`` are outgrown."""

    def __init__(
        self,
        network: Network,
        tokenizer: TextTokenizer,
        max_length: int,
        batch_tokens: int,
        cache_tokens: int,
        slots: int,
    ) -> None:
        self._network, self._decoder, self._max_length = network, Decoder(tokenizer, max_length), max_length
        self._batch_tokens, self._cache_tokens, self._limit = batch_tokens, cache_tokens, slots
        self._slots: list[_Slot] = []
        self._cache = SlotCache(0, 0, network.device)
        self._tokens = torch.zeros(0, dtype=torch.long)
        self._alike: tuple[list[int], Beginning] = [], Beginning(0, 0)

    @torch.inference_mode()
    def run(self, conversations: Iterator[tuple[int, Prompt]], reply: Reply) -> None:
        """Hold conversations from their first prompts; each is taken up as a slot is free."""
        first = list(islice(conversations, self._limit))
        if not first:
            return
        self._open(self._decoder.begin(first))
        while any(slot.answer for slot in self._slots):
            waiting = [number for number, slot in enumerate(self._slots) if slot.waiting]
            running = [number for number, slot in enumerate(self._slots) if slot.answer and not slot.waiting]
            # Computed together: a pass of its own for every short observation would leave the other slots waiting.
            if waiting and (len(waiting) * 4 >= len(self._slots) or not running):
                self._extend(waiting, conversations, reply)
            else:
                self._step(running, conversations, reply)
            self._shrink()

    def _open(self, answers: list[Answer]) -> None:
        """Make slots for the first conversations, as many as there is memory for; the rest wait in them one by one."""
        longest = max(len(answer.ids) + answer.room for answer in answers)
        fitting = max(1, self._cache_tokens // min(self._max_length, _GROWTH * longest))
        layers = self._network.config.get_text_config().num_hidden_layers
        count = min(len(answers), fitting)
        self._slots = [_Slot(answer=answer, waiting=True) for answer in answers[:count]]
        self._queue = answers[count:]
        self._cache = SlotCache(count, layers, self._network.device)
        self._tokens = torch.zeros(count, dtype=torch.long, device=self._network.device)

    def _extend(self, waiting: list[int], conversations: Iterator[tuple[int, Prompt]], reply: Reply) -> None:
        """Compute what is new of waiting prompts, those that wait for no other first, and choose their first tokens."""
        ready, kept = list[int](), dict[int, int]()
        for number in waiting:
            ids = self._ids(number)
            source, shared = number, common_length(self._slots[number].held, ids)
            if shared * 2 < len(ids):  # not what this slot's conversation goes on with
                for other, slot in enumerate(self._slots):
                    if (common := common_length(slot.held, ids)) > shared:
                        source, shared = other, common
                if any(common_length(self._ids(other), ids) > 2 * shared + _LEAST for other in ready):
                    continue  # begins as one of these: its keys are copied when they are there
            shared = min(shared, len(ids) - 1)
            if source != number:
                self._cache.copy(source, number, shared)
            self._slots[number].held = ids[:shared]
            ready.append(number)
            kept[number] = shared
        ready.sort(key=lambda number: len(self._ids(number)) - kept[number])
        while ready:
            longest = len(self._ids(ready[-1])) - kept[ready[-1]]
            count = max(1, self._batch_tokens // longest)
            batch, ready = ready[-count:], ready[:-count]
            logits = self._compute(batch, [kept[number] for number in batch])
            self._accept(batch, logits, conversations, reply)

    def _ids(self, number: int) -> list[int]:
        answer = self._slots[number].answer
        assert answer is not None
        return answer.ids

    def _compute(self, batch: list[int], kept: list[int]) -> torch.Tensor:
        """Compute prompts from their kept beginnings on; return logits after each [batch, vocab]."""
        device = self._network.device
        new = [self._ids(number)[length:] for number, length in zip(batch, kept, strict=True)]
        longest, ends = max(map(len, new)), [len(self._ids(number)) for number in batch]
        seen = self._cache.before_extending(batch, kept, ends)
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in new], device=device)
        last = (torch.arange(len(batch), device=device), torch.tensor([len(row) - 1 for row in new], device=device))
        positions = self._cache.columns.clamp(max=self._max_length - 1)  # of padding
        logits = self._network.logits(ids, last, positions, seen, self._cache)
        self._cache.after_extending(ends)
        self._alike = [], Beginning(0, 0)
        for number in batch:
            self._slots[number].held = list(self._ids(number))
            self._slots[number].waiting = False
        return logits

    def _step(self, running: list[int], conversations: Iterator[tuple[int, Prompt]], reply: Reply) -> None:
        """Generate a token in every running slot; the others are computed with them, and keep what they hold."""
        lengths = self._cache.lengths.clone()
        seen = self._cache.before_step(max(len(slot.held) for slot in self._slots))
        every = torch.arange(len(self._slots), device=self._network.device)
        places = (every, torch.zeros_like(every))
        positions = self._cache.columns.clamp(max=self._max_length - 1)
        with sharing(self._network.config, self._beginning(running), len(self._slots)):
            logits = self._network.logits(self._tokens[:, None], places, positions, seen, self._cache)
        where = torch.tensor(running, device=self._network.device)
        lengths[where] += 1
        self._cache.lengths = lengths
        for number in running:
            answer = self._slots[number].answer
            assert answer is not None
            self._slots[number].held.append(answer.new[-1])
        self._accept(running, logits[where], conversations, reply)

    def _beginning(self, running: list[int]) -> Beginning:
        """Return with what all running slots begin; found anew when others run, or hold something else."""
        if running != self._alike[0]:
            self._alike = list(running), beginning({number: self._slots[number].held for number in running})
        return self._alike[1]

    def _shrink(self) -> None:
        """Drop the slots of ended conversations once half of them are: none is begun anew by then."""
        kept = [number for number, slot in enumerate(self._slots) if slot.answer]
        if kept and len(kept) * 2 <= len(self._slots):
            self._cache.keep(kept)
            self._slots = [self._slots[number] for number in kept]
            self._tokens = self._tokens[torch.tensor(kept, device=self._tokens.device)]
            self._alike = [], Beginning(0, 0)

    def _accept(
        self,
        batch: list[int],
        logits_NV: torch.Tensor,
        conversations: Iterator[tuple[int, Prompt]],
        reply: Reply,
    ) -> None:
        """Take the next token of each; where that ends an answer, go on with what its reply asks, or another conversation."""
        chosen = self._decoder.choose(logits_NV, [self._slots[number].answer for number in batch])
        self._tokens[torch.tensor(batch, device=self._tokens.device)] = torch.tensor(chosen, device=self._tokens.device)
        for number, token in zip(batch, chosen, strict=True):
            slot = self._slots[number]
            assert slot.answer is not None
            text = self._decoder.take(slot.answer, token)
            if text is None:
                continue
            index = slot.answer.index
            prompt = reply(index, text)
            if prompt is not None:
                (slot.answer,) = self._decoder.begin([(index, prompt)])
            else:
                slot.answer = self._another(conversations) if self._has_room() else None
            slot.waiting = slot.answer is not None

    def _another(self, conversations: Iterator[tuple[int, Prompt]]) -> Answer | None:
        if self._queue:
            return self._queue.pop(0)
        start = next(conversations, None)
        return self._decoder.begin([start])[0] if start else None

    def _has_room(self) -> bool:
        """Whether a conversation that has ended is followed by another: not while the others have outgrown the memory."""
        alone = sum(slot.answer is not None for slot in self._slots) == 1
        return alone or len(self._slots) * self._cache.capacity <= self._cache_tokens


def converse_in_waves(
    backend: Backend, conversations: Iterator[tuple[int, Prompt]], reply: Reply, width: int = WAVE
) -> None:
    """Hold conversations through a backend's `generate`, at most ``width`` at a time: all take their next turn together."""
    open_ = list(islice(conversations, width))
    while open_:
        going_on = []
        for place, text in backend.generate([prompt for _, prompt in open_]):
            index = open_[place][0]
            if (prompt := reply(index, text)) is not None:
                going_on.append((index, prompt))
        open_ = going_on + list(islice(conversations, width - len(going_on)))
