"""What a query sees: the keys at its own and earlier positions, within its document.

`Places` says where queries and keys stand; from it comes the whole mask [S, T], for reference, or FlexAttention's block mask,
from the bounds of each block of 128 positions alone.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch.nn.attention.flex_attention import BlockMask

BLOCK = 128


@dataclass(frozen=True)
class Places:
    """Where queries and keys stand in their rows, and in which documents (numbered upwards along a row)."""

    query_S: torch.Tensor
    key_T: torch.Tensor
    query_document_BS: torch.Tensor | None
    key_document_BT: torch.Tensor | None

    def to(self, device: torch.device) -> "Places":
        """Return the same with all tensors on a device."""
        ids = (self.query_document_BS, self.key_document_BT)
        return Places(self.query_S, self.key_T, *(None if x is None else x.to(device) for x in ids))

    def visible(self) -> torch.Tensor:
        """Return which keys each query attends to: bool [B or 1, S, T]."""
        seen_BST = (self.key_T[None] <= self.query_S[:, None])[None]
        if self.query_document_BS is not None and self.key_document_BT is not None:
            seen_BST = seen_BST & (self.query_document_BS[:, :, None] == self.key_document_BT[:, None])
        return seen_BST


def block_mask(places: Places) -> BlockMask:
    """Return which blocks of keys a block of queries needs, and which of them whole."""
    query_S, key_T = places.query_S, places.key_T
    none_S, none_T = torch.zeros_like(query_S)[None], torch.zeros_like(key_T)[None]
    query_BS = none_S if places.query_document_BS is None else places.query_document_BS
    key_BT = none_T if places.key_document_BT is None else places.key_document_BT
    (first_q, last_q), (first_k, last_k) = _bounds(query_S[None]), _bounds(key_T[None])
    (low_q, high_q), (low_k, high_k) = _bounds(query_BS), _bounds(key_BT)
    meets = (low_k[:, None] <= high_q[..., None]) & (high_k[:, None] >= low_q[..., None])
    needed = meets & (first_k[:, None] <= last_q[..., None])
    one_document = (low_q == high_q)[..., None] & (low_k == high_k)[:, None] & (low_q[..., None] == low_k[:, None])
    whole = needed & one_document & (last_k[:, None] <= first_q[..., None])

    def seen(b: torch.Tensor, h: torch.Tensor, i: torch.Tensor, j: torch.Tensor) -> torch.Tensor:
        causal = key_T[j] <= query_S[i]
        return causal if places.query_document_BS is None else causal & (query_BS[b, i] == key_BT[b, j])

    return BlockMask.from_kv_blocks(
        *_ordered(needed & ~whole), *_ordered(whole), BLOCK, seen, seq_lengths=(len(query_S), len(key_T))
    )


def _bounds(value_BS: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the least and greatest value of each block [B, blocks]."""
    B, S = value_BS.shape
    filled = F.pad(value_BS[:, None].float(), (0, -S % BLOCK), mode="replicate")[:, 0].view(B, -1, BLOCK)
    return filled.amin(-1), filled.amax(-1)


def _ordered(chosen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return how many blocks of keys each block of queries has, and which come first [B, 1, blocks, blocks]."""
    order = torch.argsort(chosen.int(), dim=-1, descending=True, stable=True)
    return chosen.sum(-1, dtype=torch.int32)[:, None], order.int()[:, None].contiguous()
