"""Which rows of the two fused tensors belong to which matrix: the one place that knows.

    qkv_proj.weight      K groups of [G query heads | 1 key head | 1 value head], each head D rows; G = N / K
    gate_up_proj.weight  g groups of [gate | up], each F / g rows; g = gcd(K, F)

A cut between groups leaves each part a smaller tensor of the same form, so tensor parallelism shards rows and nothing else;
the functions below therefore take any whole number of groups. N query heads, K key/value heads, D head width, F feed-forward.
"""

import math

import torch

from xmodel2.recipe import ModelSettings

Matrices = tuple[torch.Tensor, ...]


def groups(settings: ModelSettings) -> int:
    """Return g, the groups of gate_up_proj; it divides K, so both fused tensors can be cut into g equal parts.

    >>> groups(ModelSettings())
    8
    """
    return math.gcd(settings.num_key_value_heads, settings.intermediate_size)


def qkv_rows(settings: ModelSettings) -> tuple[int, int, int]:
    """Return the rows of queries, keys and values in one of the K groups.

    >>> qkv_rows(ModelSettings())
    (192, 64, 64)
    """
    shared = settings.num_attention_heads // settings.num_key_value_heads
    return shared * settings.head_dim, settings.head_dim, settings.head_dim


def gate_up_rows(settings: ModelSettings) -> tuple[int, int]:
    """Return the rows of gate and up in one of the g groups.

    >>> gate_up_rows(ModelSettings())
    (480, 480)
    """
    rows = settings.intermediate_size // groups(settings)
    return rows, rows


def split_qkv(weight: torch.Tensor, settings: ModelSettings) -> Matrices:
    """Return views of queries, keys and values, [groups, rows, H] each; ``flatten(0, 1)`` gives the usual matrix."""
    return _split(weight, qkv_rows(settings))


def join_qkv(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, settings: ModelSettings) -> torch.Tensor:
    """Return the fused tensor of the usual matrices [N D, H], [K D, H], [K D, H]."""
    return _join((query, key, value), qkv_rows(settings))


def split_gate_up(weight: torch.Tensor, settings: ModelSettings) -> Matrices:
    """Return views of gate and up, [groups, rows, H] each; ``flatten(0, 1)`` gives the usual matrix."""
    return _split(weight, gate_up_rows(settings))


def join_gate_up(gate: torch.Tensor, up: torch.Tensor, settings: ModelSettings) -> torch.Tensor:
    """Return the fused tensor of the usual matrices [F, H] and [F, H]."""
    return _join((gate, up), gate_up_rows(settings))


def matrices(name: str, weight: torch.Tensor, settings: ModelSettings) -> Matrices:
    """Return views, [groups, rows, H], of the matrices that the tensor of this name holds: itself if it is not fused."""
    if name.endswith("qkv_proj.weight"):
        return split_qkv(weight, settings)
    if name.endswith("gate_up_proj.weight"):
        return split_gate_up(weight, settings)
    return (weight[None],)


def _split(weight: torch.Tensor, rows: tuple[int, ...]) -> Matrices:
    return weight.unflatten(0, (-1, sum(rows))).split(rows, dim=1)


def _join(parts: Matrices, rows: tuple[int, ...]) -> torch.Tensor:
    grouped = [part.unflatten(0, (-1, count)) for part, count in zip(parts, rows, strict=True)]
    return torch.cat(grouped, dim=1).flatten(0, 1)
