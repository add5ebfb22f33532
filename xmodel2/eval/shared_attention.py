"""Attention of one new token a row, where all rows begin alike: the beginning's keys are read once for all of them.

    scores [rows, columns] = [ queries of all rows x the beginning's keys | each row's query x its own keys ]

On a CPU a step of generation costs what its keys take to be read: 64 episodes after the same examples read those once, not
64 times. The result is plain attention's up to rounding. Only float32: half precision would round the scores themselves.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from xmodel2.eval.prefix_tree import common_length

_NAME = "xmodel2_shared"
_LEAST_COLUMNS, _LEAST_ROWS = 128, 4
"""Below these two products cost more than the keys that are not read again."""


@dataclass(frozen=True)
class Beginning:
    """Columns before ``count`` hold the same in every row that counts; those of ``row`` are read."""

    row: int
    count: int


_now: list[Beginning] = []


def beginning(held: Mapping[int, Sequence[int]]) -> Beginning:
    """Return with what all rows begin, given the tokens of each.

    >>> beginning({0: [1, 2, 3], 2: [1, 2, 4, 5]})
    Beginning(row=0, count=2)
    """
    row, first = next(iter(held.items()))
    return Beginning(row, min(common_length(first, ids) for ids in held.values()))


@contextmanager
def sharing(config: Any, beginning: Beginning, rows: int) -> Iterator[None]:
    """Let a model of ``config`` read the keys of a beginning once, for as long as this lasts."""
    before = config._attn_implementation
    if before != "sdpa" or beginning.count < _LEAST_COLUMNS or rows < _LEAST_ROWS:
        yield
        return
    config._attn_implementation = _NAME
    _now.append(beginning)
    try:
        yield
    finally:
        _now.pop()
        config._attn_implementation = before


def _attend(
    module: torch.nn.Module,
    query_BHTD: torch.Tensor,
    key_BKSD: torch.Tensor,
    value_BKSD: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    plain = query_BHTD.shape[2] != 1 or query_BHTD.dtype != torch.float32 or attention_mask is None
    if plain or others.get("position_bias") is not None:
        return sdpa_attention_forward(
            module, query_BHTD, key_BKSD, value_BKSD, attention_mask, dropout=dropout, scaling=scaling, **others
        )
    assert attention_mask is not None
    row, count = _now[-1].row, _now[-1].count
    (rows, heads, _, size), groups = query_BHTD.shape, key_BKSD.shape[1]
    scale = size**-0.5 if scaling is None else scaling
    query_BKGD = query_BHTD.view(rows, groups, heads // groups, size) * scale
    query_KXD = query_BKGD.transpose(0, 1).reshape(groups, -1, size)
    alike = (query_KXD @ key_BKSD[row, :, :count].mT).view(groups, rows, -1, count).transpose(0, 1)
    own = query_BKGD @ key_BKSD[:, :, count:].mT + attention_mask[..., count:]
    shares = torch.cat([alike, own], -1).softmax(-1)
    of_alike = shares[..., :count].transpose(0, 1).reshape(groups, -1, count) @ value_BKSD[row, :, :count]
    out_BKGD = of_alike.view(groups, rows, -1, value_BKSD.shape[-1]).transpose(0, 1)
    out_BKGD = out_BKGD + shares[..., count:] @ value_BKSD[:, :, count:]
    return out_BKGD.reshape(rows, 1, heads, -1), None


AttentionInterface.register(_NAME, _attend)
AttentionMaskInterface.register(_NAME, sdpa_mask)
