"""Many prompts through one model: a slot takes the next prompt as soon as its answer has ended.

    prompts -> groups that begin alike -> that beginning once -> prefill in small batches -> slots -> a token each step -> text

Greedy answers do not depend on what else is in the slots, up to rounding in ties.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache

from xmodel2.eval.backend import Prompt
from xmodel2.eval.decoding import Answer, Decoder
from xmodel2.eval.network import Network
from xmodel2.eval.prefix_tree import common_length
from xmodel2.eval.shared_attention import Beginning, beginning, sharing
from xmodel2.eval.slots import SlotCache
from xmodel2.eval.text import TextTokenizer

SLOTS = 64
_LEAST_SHARE = 4
"""A common beginning is computed once if it is one in four tokens of each prompt, and saves one in four of all."""


@dataclass
class _Group:
    """Prompts that begin alike, the longest last."""

    prefix: list[int]
    """What they begin with, short of any one's last token; empty for those with little in common."""
    waiting: list[Answer]
    shared: Any = None
    """Keys and values of the prefix."""


def _groups(answers: list[Answer]) -> list[_Group]:
    """Return groups, the one with the longest prompt last: examples are shared by all questions of a task or subtask."""
    found, rest = list[_Group](), _Group([], [])
    for answer in sorted(answers, key=lambda answer: answer.ids):
        group = found[-1] if found else rest
        common = common_length(group.prefix, answer.ids[:-1])
        alike = common * _LEAST_SHARE > len(answer.ids)
        if alike and (len(group.waiting) == 1 or common * 2 > len(group.prefix)):
            group.prefix = group.prefix[:common]
            group.waiting.append(answer)
        else:
            found.append(_Group(answer.ids[:-1], [answer]))
    kept = []
    for group in found:
        saved = len(group.prefix) * (len(group.waiting) - 1)
        if saved * _LEAST_SHARE > sum(len(answer.ids) for answer in group.waiting):
            kept.append(group)
        else:
            rest.waiting += group.waiting
    kept += [rest] if rest.waiting else []
    for group in kept:
        group.waiting.sort(key=lambda answer: len(answer.ids))
    return sorted(kept, key=lambda group: len(group.waiting[-1].ids))


class Generator:
    """Continues prompts on one network, at most ``slots`` at a time and with the keys of ``cache_tokens`` at most."""

    def __init__(
        self,
        network: Network,
        tokenizer: TextTokenizer,
        max_length: int,
        batch_tokens: int,
        cache_tokens: int,
        slots: int = SLOTS,
    ) -> None:
        self._network, self._decoder = network, Decoder(tokenizer, max_length)
        self._batch_tokens, self._cache_tokens, self._slots = batch_tokens, cache_tokens, slots

    @torch.inference_mode()
    def run(self, prompts: Sequence[Prompt]) -> Iterator[tuple[int, str]]:
        """Yield (index, text before the first stop string) as answers end."""
        waiting = self._decoder.begin(list(enumerate(prompts)))
        groups = _groups(waiting)
        needed = max(len(answer.ids) + answer.room for answer in waiting)
        active: list[Answer | None] = [None] * min(self._slots, len(waiting), max(1, self._cache_tokens // needed))
        layers = self._network.config.get_text_config().num_hidden_layers
        cache = SlotCache(len(active), layers, self._network.device)
        tokens = torch.zeros(len(active), dtype=torch.long, device=self._network.device)
        alike: tuple[list[tuple[int, int]], Beginning] = [], Beginning(0, 0)
        while groups or any(active):
            free = [slot for slot, answer in enumerate(active) if answer is None]
            # A prefill of its own for every ended answer would leave the slots waiting for it: a few at a time.
            if len(free) * 4 < len(active):
                free = []
            while groups and free:
                batch = self._next_batch(groups[-1], len(free))
                logits = self._prefill(cache, free[: len(batch)], batch, groups[-1])
                if not groups[-1].waiting:
                    groups.pop()
                for slot, answer, token in zip(free, batch, self._decoder.choose(logits, batch), strict=False):
                    active[slot] = answer
                    tokens[slot] = token
                    if (text := self._decoder.take(answer, token)) is not None:
                        active[slot] = None
                        yield answer.index, text
                free = [slot for slot, answer in enumerate(active) if answer is None]
            if not groups:
                active, tokens = self._shrink(cache, active, tokens)
            running = [(slot, answer) for slot, answer in enumerate(active) if answer is not None]
            if not running:
                continue
            longest = max(len(answer.ids) + len(answer.new) - 1 for _, answer in running)
            numbers = [(slot, answer.index) for slot, answer in running]
            if numbers != alike[0]:
                alike = numbers, beginning({slot: answer.ids for slot, answer in running})
            with sharing(self._network.config, alike[1], len(active)):
                logits = self._step(cache, tokens, longest, len(active))
            chosen = self._decoder.choose(logits, active)
            tokens = torch.tensor(chosen, device=self._network.device)
            for slot, answer in running:
                if (text := self._decoder.take(answer, chosen[slot])) is not None:
                    active[slot] = None
                    cache.lengths[slot] = 0
                    yield answer.index, text

    def _compute_prefix(self, prefix: list[int]) -> DynamicCache:
        cache = DynamicCache()
        ids = torch.tensor([prefix], device=self._network.device)
        last = (torch.zeros(1, dtype=torch.long), torch.tensor([len(prefix) - 1]))
        self._network.logits(ids, last, cache=cache)
        return cache

    def _next_batch(self, group: _Group, free: int) -> list[Answer]:
        """Take the longest prompts, as many as the token budget and the free slots allow."""
        longest = len(group.waiting[-1].ids) - len(group.prefix)
        count = max(1, min(free, self._batch_tokens // longest, len(group.waiting)))
        return [group.waiting.pop() for _ in range(count)]

    def _prefill(self, cache: SlotCache, slots: list[int], batch: list[Answer], group: _Group) -> torch.Tensor:
        """Compute prompts, padded on the right, put their keys into slots, return logits after each [batch, vocab]."""
        device, own, prefix = self._network.device, DynamicCache(), len(group.prefix)
        if prefix:
            group.shared = group.shared or self._compute_prefix(group.prefix)
            for number, layer in enumerate(group.shared.layers):
                keys, values = (kv.expand(len(batch), -1, -1, -1) for kv in (layer.keys, layer.values))
                own.update(keys, values, number)
        rests = [answer.ids[prefix:] for answer in batch]
        longest = max(map(len, rests))
        ids = torch.tensor([rest + [0] * (longest - len(rest)) for rest in rests], device=device)
        positions = torch.arange(prefix, prefix + longest, device=device).expand(len(batch), -1)
        last = (torch.arange(len(batch), device=device), torch.tensor([len(rest) - 1 for rest in rests], device=device))
        logits = self._network.logits(ids, last, positions if prefix else None, cache=own)
        cache.fill(slots, own, [len(answer.ids) for answer in batch])
        return logits

    def _step(self, cache: SlotCache, tokens: torch.Tensor, longest: int, count: int) -> torch.Tensor:
        """Feed every slot its newest token and return the logits after it [slots, vocab]."""
        seen = cache.before_step(longest)
        every = torch.arange(count, device=self._network.device)
        logits = self._network.logits(tokens[:, None], (every, torch.zeros_like(every)), cache.columns, seen, cache)
        cache.after_step()
        return logits

    def _shrink(
        self, cache: SlotCache, active: list[Answer | None], tokens: torch.Tensor
    ) -> tuple[list[Answer | None], torch.Tensor]:
        """Once no prompt waits, drop the free slots whenever half of them are free."""
        kept = [slot for slot, answer in enumerate(active) if answer is not None]
        if not kept or len(kept) * 2 > len(active):
            return active, tokens
        cache.keep(kept)
        return [active[slot] for slot in kept], tokens[torch.tensor(kept, device=tokens.device)]
