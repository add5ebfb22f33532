"""Attention: softmax(q k^T * scale) v by the kernel that suits device and rows; for training no mask [S, T] is ever held.

    rows of a batch                         mask                     kernel
    one document a row                      None                     `sdpa`: cuDNN or flash on a GPU, flash on a CPU
    the same, CPU, with gradients           Documents                `documents`: by blocks, where that is faster
    packed documents                        Documents                `documents`: flash, which sees each document alone; on a GPU
                                                                     in 16 bits, heads a multiple of 8 wide, 256 at most
    other packed documents, some of the     BlockMask                `flex`: blocks of 128 that no document crosses are left out
    positions (context parallel), GPU
    some of the positions, CPU              Places                   `plain`: products and a softmax, the reference that the
                                                                     others are tested against
    continuation of a cache (generation)    bool [B, S, T]           `sdpa`

Letters: B rows, S positions of the queries, T of the keys, N query heads, K key/value heads, D head width.
"""

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from xmodel2.model.document_attention import Documents, attend_within, can_attend_within
from xmodel2.model.mask import Places, block_mask

Gather = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""Keys and values [B, K, S, D] of this rank's positions to those of all positions [B, K, T, D]."""
BACKENDS = [SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
"""In the order in which a Hopper GPU runs heads of 64 fastest (PyTorch passes over those that cannot run)."""


Mask = torch.Tensor | Documents | Places | BlockMask | None


def mask_for(kernel: str, places: Places, whole: bool, dtype: torch.dtype = torch.float32, head_dim: int = 64) -> Mask:
    """Return what `attend` takes for ``kernel``, or for what ``auto`` picks; ``whole``: queries are all positions, in order.

    Ids of documents may be on the CPU, wherever the positions are: what is found from them there costs a GPU no wait.
    """
    documents, device = places.query_document_BS, places.query_S.device
    if kernel == "auto":
        if documents is None and whole:
            own = device.type == "cpu" and torch.is_grad_enabled()
            kernel = "documents" if own else "sdpa"
        elif whole and can_attend_within(device, dtype, head_dim):
            kernel = "documents"
        else:
            kernel = "flex" if device.type == "cuda" else "plain"
    if kernel == "flex":
        return block_mask(places.to(device))
    if kernel == "plain" or not whole:
        return places.to(device)
    if documents is None:
        return Documents.whole() if kernel == "documents" and device.type == "cpu" else None
    return Documents.of(documents, device)


def attend(q_BNSD: torch.Tensor, k_BKTD: torch.Tensor, v_BKTD: torch.Tensor, mask: Mask, scale: float) -> torch.Tensor:
    """Return softmax(q k^T * scale) v [B, N, S, D]; each key/value head serves N / K query heads; without a mask, causal."""
    shared = q_BNSD.shape[1] != k_BKTD.shape[1]
    if isinstance(mask, Places):
        return _plain(q_BNSD, k_BKTD, v_BKTD, mask.visible(), scale)
    if isinstance(mask, BlockMask):
        # Outside of a compiled block, by itself: as written it would hold all scores.
        written = torch.compiler.is_compiling() or not q_BNSD.is_cuda
        flex: Callable[..., torch.Tensor] = flex_attention if written else _compiled_flex()  # type: ignore[assignment]
        return flex(q_BNSD, k_BKTD, v_BKTD, block_mask=mask, scale=scale, enable_gqa=shared)
    if isinstance(mask, Documents):
        return attend_within(q_BNSD, k_BKTD, v_BKTD, mask, scale)
    causal = mask is None
    allowed = None if mask is None else mask[:, None]
    arguments = (q_BNSD, k_BKTD, v_BKTD, allowed, 0.0, causal)
    if not q_BNSD.is_cuda:
        return F.scaled_dot_product_attention(*arguments, scale=scale, enable_gqa=shared)
    with sdpa_kernel(BACKENDS, set_priority=True):
        return F.scaled_dot_product_attention(*arguments, scale=scale, enable_gqa=shared)


@functools.cache
def _compiled_flex() -> Callable[..., torch.Tensor]:
    return torch.compile(flex_attention)


def _plain(
    q_BNSD: torch.Tensor, k_BKTD: torch.Tensor, v_BKTD: torch.Tensor, seen_BST: torch.Tensor, scale: float
) -> torch.Tensor:
    B, N, S, D = q_BNSD.shape
    K, T = k_BKTD.shape[1:3]
    score_BKGST = (q_BNSD.reshape(B, K, -1, D) @ k_BKTD.transpose(2, 3)).view(B, K, N // K, S, T)
    score_BKGST = (score_BKGST.float() * scale).masked_fill(~seen_BST[:, None, None], float("-inf"))
    weight_BKGST = torch.softmax(score_BKGST, dim=-1).to(v_BKTD.dtype)
    return (weight_BKGST.view(B, K, -1, T) @ v_BKTD).view(B, N, S, D)
