"""The decoder (Table 1): Llama-2 style blocks with grouped-query attention and the tensor-program multipliers of Table 6.

Mathematics only: precision, compilation and parallelism are applied from outside. Letters in tensor names:
B rows, S positions of the input, T positions attended to, H hidden, N query heads, K key/value heads, D head width,
F feed-forward width, V pieces.
"""

import torch
import torch.nn.functional as F
from torch import nn

from xmodel2.model import tensor_program
from xmodel2.recipe import ModelSettings

PLAIN_ATTENTION = 512
"""Longest row, in positions, that a CPU attends to with plain products."""


class KVCache:
    """Keys and values of earlier positions, [B, K, T, D] a layer, for rows padded on the left by ``pad_B`` positions."""

    def __init__(self, settings: ModelSettings, pad_B: torch.Tensor, capacity: int, dtype: torch.dtype) -> None:
        shape = (len(pad_B), settings.num_key_value_heads, capacity, settings.head_dim)
        layers = range(settings.num_hidden_layers)
        self.keys = [torch.zeros(shape, dtype=dtype, device=pad_B.device) for _ in layers]
        self.values = [torch.zeros(shape, dtype=dtype, device=pad_B.device) for _ in layers]
        self.pad_B = pad_B
        self.length = 0

    def extend(self, layer: int, k_BKSD: torch.Tensor, v_BKSD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Append one layer's new positions and return all of them; ``length`` moves once all layers have."""
        end = self.length + k_BKSD.shape[2]
        self.keys[layer][:, :, self.length : end] = k_BKSD
        self.values[layer][:, :, self.length : end] = v_BKSD
        return self.keys[layer][:, :, :end], self.values[layer][:, :, :end]


class RMSNorm(nn.Module):
    """x / rms(x) * weight, the mean square in fp32."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x_BSH: torch.Tensor) -> torch.Tensor:
        """[B, S, H] to [B, S, H]."""
        x = x_BSH.float()
        normed = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * normed.to(x_BSH.dtype)


class Attention(nn.Module):
    """Grouped-query attention with rotary positions; queries, keys and values come from one product."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = (
            settings.num_attention_heads,
            settings.num_key_value_heads,
            settings.head_dim,
        )
        self.scale = tensor_program.attention_multiplier(settings)
        self.qkv_proj = nn.Linear(settings.hidden_size, (self.heads + 2 * self.kv_heads) * self.head_dim, bias=False)
        self.o_proj = nn.Linear(settings.hidden_size, settings.hidden_size, bias=False)

    def forward(
        self,
        x_BSH: torch.Tensor,
        rotation: tuple[torch.Tensor, torch.Tensor],
        mask_BST: torch.Tensor | None,
        cache: KVCache | None,
        layer: int,
    ) -> torch.Tensor:
        """[B, S, H] to [B, S, H]; without a mask, causal."""
        B, S, _ = x_BSH.shape
        qkv = self.qkv_proj(x_BSH).view(B, S, self.heads + 2 * self.kv_heads, self.head_dim).transpose(1, 2)
        q_BNSD, k_BKSD, v_BKSD = qkv.split([self.heads, self.kv_heads, self.kv_heads], dim=1)
        q_BNSD, k_BKSD = rotate(q_BNSD, rotation), rotate(k_BKSD, rotation)
        if cache is not None:
            k_BKTD, v_BKTD = cache.extend(layer, k_BKSD, v_BKSD)
        else:
            k_BKTD, v_BKTD = k_BKSD, v_BKSD
        out_BNSD = attend(q_BNSD, k_BKTD, v_BKTD, mask_BST, self.scale)
        return self.o_proj(out_BNSD.transpose(1, 2).reshape(B, S, -1))


def attend(
    q_BNSD: torch.Tensor,
    k_BKTD: torch.Tensor,
    v_BKTD: torch.Tensor,
    mask_BST: torch.Tensor | None,
    scale: float,
) -> torch.Tensor:
    """Return softmax(q k^T * scale) v [B, N, S, D]; each key/value head serves N / K query heads; without a mask, causal.

    On a CPU short rows go through plain products: there the fused kernel's backward is the slower one (docs/log.md).
    """
    B, N, S, D = q_BNSD.shape
    K, T = k_BKTD.shape[1:3]
    if q_BNSD.is_cuda or T > PLAIN_ATTENTION:
        return F.scaled_dot_product_attention(
            q_BNSD,
            k_BKTD,
            v_BKTD,
            attn_mask=None if mask_BST is None else mask_BST[:, None],
            is_causal=mask_BST is None,
            scale=scale,
            enable_gqa=N != K,
        )
    if mask_BST is None:
        index_S, index_T = (torch.arange(n, device=q_BNSD.device) for n in (S, T))
        mask_BST = (index_T[None] <= index_S[:, None])[None]
    score_BKGST = (q_BNSD.reshape(B, K, -1, D) @ k_BKTD.transpose(2, 3)).view(B, K, N // K, S, T)
    score_BKGST = (score_BKGST.float() * scale).masked_fill(~mask_BST[:, None, None], float("-inf"))
    weight_BKGST = torch.softmax(score_BKGST, dim=-1).to(v_BKTD.dtype)
    return (weight_BKGST.view(B, K, -1, T) @ v_BKTD).view(B, N, S, D)


class FeedForward(nn.Module):
    """SwiGLU: down(silu(gate(x)) * up(x)), gate and up from one product."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.gate_up_proj = nn.Linear(settings.hidden_size, 2 * settings.intermediate_size, bias=False)
        self.down_proj = nn.Linear(settings.intermediate_size, settings.hidden_size, bias=False)

    def forward(self, x_BSH: torch.Tensor) -> torch.Tensor:
        """[B, S, H] to [B, S, H]."""
        gate_BSF, up_BSF = self.gate_up_proj(x_BSH).chunk(2, dim=-1)
        return self.down_proj(F.silu(gate_BSF) * up_BSF)


class Block(nn.Module):
    """Attention, then feed-forward, each normed before and scaled by ``scale_depth / sqrt(num_hidden_layers)`` after."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(settings.hidden_size, settings.rms_norm_eps)
        self.self_attn = Attention(settings)
        self.post_attention_layernorm = RMSNorm(settings.hidden_size, settings.rms_norm_eps)
        self.mlp = FeedForward(settings)
        self.residual_multiplier = tensor_program.residual_multiplier(settings)

    def forward(
        self,
        x_BSH: torch.Tensor,
        rotation: tuple[torch.Tensor, torch.Tensor],
        mask_BST: torch.Tensor | None,
        cache: KVCache | None,
        layer: int,
    ) -> torch.Tensor:
        """[B, S, H] to [B, S, H]."""
        x_BSH = x_BSH + self.residual_multiplier * self.self_attn(
            self.input_layernorm(x_BSH), rotation, mask_BST, cache, layer
        )
        return x_BSH + self.residual_multiplier * self.mlp(self.post_attention_layernorm(x_BSH))


class Xmodel2(nn.Module):
    """Decoder with tied embedding and head."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.settings = settings
        self.embed_tokens = nn.Embedding(settings.vocab_size, settings.hidden_size)
        self.layers = nn.ModuleList(Block(settings) for _ in range(settings.num_hidden_layers))
        self.norm = RMSNorm(settings.hidden_size, settings.rms_norm_eps)
        self.embedding_multiplier = tensor_program.embedding_multiplier(settings)
        self.logit_multiplier = tensor_program.logit_multiplier(settings)

    def hidden(
        self, input_ids_BS: torch.Tensor, document_ids_BS: torch.Tensor | None = None, cache: KVCache | None = None
    ) -> torch.Tensor:
        """Return the normed last hidden states [B, S, H].

        With ``document_ids`` [B, S] attention stops at document boundaries; with a cache, the input goes on after it.
        """
        S, device = input_ids_BS.shape[1], input_ids_BS.device
        start = cache.length if cache is not None else 0
        index_S = torch.arange(start, start + S, device=device)
        position_BS = index_S[None]
        mask_BST = None
        if cache is not None:
            index_T = torch.arange(start + S, device=device)
            position_BS = (index_S[None] - cache.pad_B[:, None]).clamp_min(0)
            causal_ST = index_T[None] <= index_S[:, None]
            real_BT = index_T[None] >= cache.pad_B[:, None]
            # A padding position attends to itself, since a row of the mask without any key has no softmax.
            mask_BST = (causal_ST & real_BT[:, None]) | (index_T[None] == index_S[:, None])
        elif document_ids_BS is not None:
            same_BST = document_ids_BS[:, :, None] == document_ids_BS[:, None, :]
            mask_BST = same_BST & (index_S[None] <= index_S[:, None])
        rotation = rotary(position_BS, self.settings.head_dim, self.settings.rope_theta)
        x_BSH = self.embed_tokens(input_ids_BS) * self.embedding_multiplier
        for layer, block in enumerate(self.layers):
            x_BSH = block(x_BSH, rotation, mask_BST, cache, layer)
        if cache is not None:
            cache.length += S
        return self.norm(x_BSH)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """[..., H] to [..., V]."""
        return F.linear(hidden, self.embed_tokens.weight) * self.logit_multiplier

    def forward(
        self, input_ids_BS: torch.Tensor, document_ids_BS: torch.Tensor | None = None, cache: KVCache | None = None
    ) -> torch.Tensor:
        """Return logits [B, S, V]."""
        return self.logits(self.hidden(input_ids_BS, document_ids_BS, cache))


def rotary(position_BS: torch.Tensor, head_dim: int, theta: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return cos and sin [B, 1, S, D] of the rotary angles."""
    exponent = torch.arange(0, head_dim, 2, device=position_BS.device, dtype=torch.float32) / head_dim
    angle = position_BS[:, None, :, None].float() / theta**exponent
    angle = torch.cat((angle, angle), dim=-1)
    return angle.cos(), angle.sin()


def rotate(x_BNSD: torch.Tensor, rotation: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Turn each head's two halves against each other by the position's angles."""
    cos, sin = (part.to(x_BNSD.dtype) for part in rotation)
    first, second = x_BNSD.chunk(2, dim=-1)
    return x_BNSD * cos + torch.cat((-second, first), dim=-1) * sin
