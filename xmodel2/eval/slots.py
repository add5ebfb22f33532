"""Keys and values of sequences in progress, one slot each; a slot is given to the next prompt as soon as it is free.

    slot 0  K K K K K . . .     length 5, next token goes to column 5
    slot 1  K K . . . . . .     length 2, to column 2
    columns grow in blocks as the longest sequence does, up to the context

Every sequence begins in column 0, so positions need no padding; a mask hides what is behind a sequence's end.
"""

from typing import Any

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

_BLOCK = 128
"""Columns are added this many at a time."""


class _SlotLayer(CacheLayerMixin):
    """Keys and values [slots, heads, columns, head_dim] of one layer."""

    def __init__(self, slots: "SlotCache") -> None:
        super().__init__()
        self._slots = slots

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        self.keys = key_states.new_zeros(self._shape(key_states))
        self.values = value_states.new_zeros(self._shape(value_states))
        self.is_initialized = True

    def _shape(self, states: torch.Tensor) -> tuple[int, ...]:
        return (len(self._slots.lengths), states.shape[1], 0, states.shape[3])

    def grow(self, columns: int) -> None:
        """Make room for ``columns`` columns."""
        for name in ("keys", "values"):
            old = getattr(self, name)
            new = old.new_zeros(*old.shape[:2], columns, old.shape[3])
            new[:, :, : old.shape[2]] = old
            setattr(self, name, new)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the new columns of the rows in progress, behind their last ones; return all columns in use."""
        slots = self._slots
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.grow(slots.capacity)
        assert self.keys is not None
        assert self.values is not None
        rows, columns = slots.rows[:, None], slots.columns
        self.keys[rows, :, columns] = key_states.transpose(1, 2)
        self.values[rows, :, columns] = value_states.transpose(1, 2)
        keys, values = self.keys[:, :, : slots.used], self.values[:, :, : slots.used]
        return (keys, values) if slots.all_rows else (keys[slots.rows], values[slots.rows])

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self._slots.used, 0

    def get_seq_length(self) -> int:
        return self._slots.used - self._slots.columns.shape[1]

    def get_max_length(self) -> int:
        return -1


class SlotCache(Cache):
    """``count`` slots of a model with ``layers`` layers."""

    def __init__(self, count: int, layers: int, device: torch.device) -> None:
        self.lengths = torch.zeros(count, dtype=torch.long, device=device)
        """Tokens of each slot whose keys are there [slots]."""
        self.rows = torch.arange(count, device=device)
        """Slots of the step in progress [rows]."""
        self.all_rows = True
        self.columns = self.lengths[:, None]
        """Columns that it writes to [rows, tokens]."""
        self.used = 0
        """Columns that the step in progress reads."""
        self.capacity = 0
        self.own: list[Any] = [_SlotLayer(self) for _ in range(layers)]
        super().__init__(layers=self.own)

    def fill(self, slots: list[int], prefilled: Any, lengths: list[int]) -> None:
        """Put sequences, computed together and padded on the right, into slots."""
        where = torch.tensor(slots, device=self.lengths.device)
        self._reserve(max(lengths), prefilled)
        for ours, theirs in zip(self.own, prefilled.layers, strict=True):
            width = max(lengths)
            ours.keys[where, :, :width] = theirs.keys[:, :, :width]
            ours.values[where, :, :width] = theirs.values[:, :, :width]
        self.lengths[where] = torch.tensor(lengths, device=self.lengths.device)

    def _reserve(self, columns: int, like: Any = None) -> None:
        if like is not None and not self.own[0].is_initialized:
            for ours, theirs in zip(self.own, like.layers, strict=True):
                ours.lazy_initialization(theirs.keys, theirs.values)
        if columns > self.capacity:
            self.capacity = -(-columns // _BLOCK) * _BLOCK
            for layer in self.own:
                if layer.is_initialized:
                    layer.grow(self.capacity)

    def keep(self, slots: list[int]) -> None:
        """Drop all other slots; those kept are numbered anew in this order."""
        where = torch.tensor(slots, device=self.lengths.device)
        for layer in self.own:
            layer.keys, layer.values = layer.keys[where], layer.values[where]
        self.lengths = self.lengths[where]

    def copy(self, source: int, target: int, count: int) -> None:
        """Let a slot begin with the first ``count`` tokens of another."""
        for layer in self.own:
            if layer.is_initialized:
                layer.keys[target, :, :count] = layer.keys[source, :, :count]
                layer.values[target, :, :count] = layer.values[source, :, :count]

    def before_step(self, longest: int) -> torch.Tensor:
        """Make room for one more token where ``longest`` is the longest slot's length.

        Return the mask of what each slot's new token sees [slots, 1, 1, columns].
        """
        self.rows, self.all_rows = torch.arange(len(self.lengths), device=self.lengths.device), True
        return self._before(self.lengths, 1, longest)  # a free slot counts on and is overwritten

    def after_step(self) -> None:
        """Count the token that the step has written."""
        self.lengths += 1

    def before_extending(self, slots: list[int], lengths: list[int], ends: list[int]) -> torch.Tensor:
        """Make room for what some slots hold from ``lengths`` to ``ends``, padded on the right to the longest of them.

        Return the mask of what each new token sees [rows, 1, tokens, columns].
        """
        self.rows, self.all_rows = torch.tensor(slots, device=self.lengths.device), False
        count = max(end - length for length, end in zip(lengths, ends, strict=True))
        # Padding goes behind a row's own end, at the furthest into a column that is nobody's.
        return self._before(torch.tensor(lengths, device=self.lengths.device), count, max(ends))

    def after_extending(self, ends: list[int]) -> None:
        """Set what each of those slots holds now: what was written behind it is padding."""
        self.lengths[self.rows] = torch.tensor(ends, device=self.lengths.device)

    def _before(self, at: torch.Tensor, count: int, last: int) -> torch.Tensor:
        self.used = last + 1
        self._reserve(self.used)
        self.columns = (at[:, None] + torch.arange(count, device=at.device)).clamp(max=last)
        columns = torch.arange(self.used, device=at.device)
        return (columns <= self.columns[..., None])[:, None]
