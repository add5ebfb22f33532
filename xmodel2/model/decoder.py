"""The decoder (Table 1): Llama-2 style blocks with grouped-query attention and the tensor-program multipliers of Table 6.

Mathematics only: precision, compilation and parallelism are applied from outside. Letters in tensor names:
B rows, S positions of the input, T positions attended to, H hidden, N query heads, K key/value heads, D head width,
F feed-forward width, V pieces.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from xmodel2.model import fused_layout, gpu_kernels, tensor_program, vector_maths
from xmodel2.model.attention import Gather, Mask, attend, mask_for
from xmodel2.model.mask import Places
from xmodel2.recipe import ModelSettings


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
    """x / rms(x) * weight, in fp32."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x_BSH: torch.Tensor) -> torch.Tensor:
        """[B, S, H] to [B, S, H]."""
        return gpu_kernels.normed(x_BSH, self.weight, self.eps)[0]


class Linear(nn.Linear):
    """x W^T in the precision of x, whatever that of W: the weights that are trained stay fp32."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., in] to [..., out]."""
        return F.linear(x, self.weight.to(x.dtype))


@dataclass(frozen=True)
class Rows:
    """What every block needs to know of the rows."""

    rotation: tuple[torch.Tensor, torch.Tensor]
    """cos and sin [B or 1, 1, S, D / 2]."""
    embedding: torch.Tensor
    """Factor on the embedding's output, fp32, a scalar."""
    residual: torch.Tensor
    """Factor on each block's output, fp32, a scalar; given, and not a constant of the block, so that all models of one shape
    run the same compiled code."""
    mask: Mask
    cache: KVCache | None = None
    gather: Gather | None = None
    kernels: bool = False
    """Whether `gpu_kernels` can be used; the angles are then those of all rows."""


class Attention(nn.Module):
    """Grouped-query attention with rotary positions; queries, keys and values come from one product, by group."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.head_dim = settings.head_dim
        self.group = settings.num_attention_heads // settings.num_key_value_heads
        self.scale = tensor_program.attention_multiplier(settings)
        rows = sum(fused_layout.qkv_rows(settings)) * settings.num_key_value_heads
        self.qkv_proj = Linear(settings.hidden_size, rows, bias=False)
        self.o_proj = Linear(settings.hidden_size, settings.hidden_size, bias=False)

    def forward(self, x_BSH: torch.Tensor, rows: Rows, layer: int) -> torch.Tensor:
        """[B, S, H] to [B, S, H], by kernels times ``rows.residual``."""
        G, D = self.group, self.head_dim
        qkv_BSKGD = self.qkv_proj(x_BSH).unflatten(-1, (-1, G + 2, D))
        if rows.kernels:
            cos_SD, sin_SD = (angle[0, 0] for angle in rows.rotation)
            heads = gpu_kernels.split_heads(qkv_BSKGD, cos_SD, sin_SD, rows.residual)
            q_BNSD, k_BKTD, v_BKTD = (x.transpose(1, 2) for x in heads)
        else:
            qkv_BKGSD = qkv_BSKGD.permute(0, 2, 3, 1, 4)
            q_BNSD = rotate(qkv_BKGSD[:, :, :G].flatten(1, 2), rows.rotation)
            k_BKTD, v_BKTD = rotate(qkv_BKGSD[:, :, G], rows.rotation), qkv_BKGSD[:, :, G + 1]
        if rows.cache is not None:
            k_BKTD, v_BKTD = rows.cache.extend(layer, k_BKTD, v_BKTD)
        if rows.gather is not None:
            k_BKTD, v_BKTD = rows.gather(k_BKTD, v_BKTD)
        out_BNSD = attend(q_BNSD, k_BKTD, v_BKTD, rows.mask, self.scale)
        return self.o_proj(out_BNSD.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """SwiGLU: down(silu(gate(x)) * up(x)), gate and up from one product, by group."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.part = fused_layout.gate_up_rows(settings)[0]
        self.gate_up_proj = Linear(settings.hidden_size, 2 * settings.intermediate_size, bias=False)
        self.down_proj = Linear(settings.intermediate_size, settings.hidden_size, bias=False)

    def forward(self, x_BSH: torch.Tensor, rows: Rows) -> torch.Tensor:
        """[B, S, H] to [B, S, H], by kernels times ``rows.residual``."""
        gate_up = self.gate_up_proj(x_BSH).unflatten(-1, (-1, 2, self.part))
        if rows.kernels:
            return self.down_proj(gpu_kernels.swiglu(gate_up, rows.residual).flatten(-2))
        gate, up = gate_up.unbind(-2)
        return self.down_proj((F.silu(gate) * up).flatten(-2))


class Block(nn.Module):
    """Attention, then feed-forward, each normed before and scaled by ``scale_depth / sqrt(num_hidden_layers)``."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(settings.hidden_size, settings.rms_norm_eps)
        self.self_attn = Attention(settings)
        self.post_attention_layernorm = RMSNorm(settings.hidden_size, settings.rms_norm_eps)
        self.mlp = FeedForward(settings)

    def forward(self, x_BSH: torch.Tensor, rows: Rows, layer: int) -> torch.Tensor:
        """[B, S, H] to [B, S, H]."""
        first, second = self.input_layernorm, self.post_attention_layernorm
        if rows.kernels:
            # What follows a branch's last product would cost a pass over memory, forward and backward: its factor goes before.
            x_BSH, normed_BSH = gpu_kernels.norm(x_BSH, first.weight, first.eps)
            x_BSH = x_BSH + self.self_attn(normed_BSH, rows, layer)
            x_BSH, normed_BSH = gpu_kernels.norm(x_BSH, second.weight, second.eps)
            return x_BSH + self.mlp(normed_BSH, rows)
        x_BSH = x_BSH + scaled(self.self_attn(first(x_BSH), rows, layer), rows.residual)
        return x_BSH + scaled(self.mlp(second(x_BSH), rows), rows.residual)


class Xmodel2(nn.Module):
    """Decoder whose head is the embedding (tied), or a tensor of its own, drawn after all others.

    As it is constructed its weights are PyTorch's, not those that a recipe's training begins with: `xmodel2.train.new_model`.
    """

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        vector_maths.settle()
        self.settings = settings
        self.embed_tokens = nn.Embedding(settings.vocab_size, settings.hidden_size)
        self.layers = nn.ModuleList(Block(settings) for _ in range(settings.num_hidden_layers))
        self.norm = RMSNorm(settings.hidden_size, settings.rms_norm_eps)
        if not settings.tie_word_embeddings:
            self.lm_head = Linear(settings.hidden_size, settings.vocab_size, bias=False)
        self.residual_multiplier = tensor_program.residual_multiplier(settings)
        self.embedding_multiplier = tensor_program.embedding_multiplier(settings)
        self.logit_multiplier = tensor_program.logit_multiplier(settings)
        self.kernels = True  # whether a GPU may use `gpu_kernels`, by which what a branch gives out has been scaled

    def hidden(
        self,
        input_ids_BS: torch.Tensor,
        document_ids_BS: torch.Tensor | None = None,
        cache: KVCache | None = None,
        dtype: torch.dtype | None = None,
        kernel: str = "auto",
    ) -> torch.Tensor:
        """Return the normed last hidden states [B, S, H], computed in ``dtype`` (default: that of the weights).

        With ``document_ids`` [B, S], best on the CPU, attention stops at document boundaries; with a cache, the input goes on
        after it.
        """
        S, device = input_ids_BS.shape[1], input_ids_BS.device
        if cache is not None:
            return self.run(input_ids_BS, self._after(cache, S), dtype)
        index_S = torch.arange(S, device=device)
        places = Places(index_S, index_S, document_ids_BS, document_ids_BS)
        mask = mask_for(kernel, places, True, dtype or self.embed_tokens.weight.dtype, head_dim=self.settings.head_dim)
        return self.run(input_ids_BS, self.rows(index_S[None], mask), dtype)

    def run(self, input_ids_BS: torch.Tensor, rows: Rows, dtype: torch.dtype | None = None) -> torch.Tensor:
        """Return the normed last hidden states [B, S, H] of rows whose positions and mask are given."""
        x_BSH = self.embed_tokens(input_ids_BS) * rows.embedding
        x_BSH = x_BSH.to(dtype or x_BSH.dtype)
        for layer, block in enumerate(self.layers):
            x_BSH = block(x_BSH, rows, layer)
        if rows.cache is not None:
            rows.cache.length += input_ids_BS.shape[1]
        return self.norm(x_BSH)

    def rows(
        self, position_BS: torch.Tensor, mask: Mask, cache: KVCache | None = None, gather: Gather | None = None
    ) -> Rows:
        """Return what the blocks need to know of rows whose positions [B or 1, S] and mask are given."""
        rotation = rotary(position_BS, self.settings.head_dim, self.settings.rope_theta)
        factors = (self.embedding_multiplier, self.residual_multiplier)
        embedding, residual = (torch.full((), factor, device=position_BS.device) for factor in factors)
        kernels = self.kernels and cache is None and len(position_BS) == 1 and gpu_kernels.can_use(position_BS.device)
        return Rows(rotation, embedding, residual, mask, cache, gather, kernels)

    def _after(self, cache: KVCache, S: int) -> Rows:
        index_T = torch.arange(cache.length + S, device=cache.pad_B.device)
        index_S = index_T[cache.length :]
        causal_ST = index_T[None] <= index_S[:, None]
        real_BT = index_T[None] >= cache.pad_B[:, None]
        # A padding position attends to itself, since a row of the mask without any key has no softmax.
        mask_BST = (causal_ST & real_BT[:, None]) | (index_T[None] == index_S[:, None])
        position_BS = (index_S[None] - cache.pad_B[:, None]).clamp_min(0)
        return self.rows(position_BS, mask_BST, cache)

    @property
    def head_weight(self) -> torch.Tensor:
        """The weight [V, H] that hidden states are multiplied by; of a tied model, the embedding's."""
        return self.embed_tokens.weight if self.settings.tie_word_embeddings else self.lm_head.weight

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """[..., H] to [..., V]."""
        return F.linear(hidden, self.head_weight.to(hidden.dtype)) * self.logit_multiplier

    def forward(
        self, input_ids_BS: torch.Tensor, document_ids_BS: torch.Tensor | None = None, cache: KVCache | None = None
    ) -> torch.Tensor:
        """Return logits [B, S, V]."""
        return self.logits(self.hidden(input_ids_BS, document_ids_BS, cache))


def scaled(x: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Return x times an fp32 scalar, which would be rounded to the precision of x if it were not for the detour."""
    return (x.float() * factor).to(x.dtype)


def rotary(position_BS: torch.Tensor, head_dim: int, theta: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return cos and sin [B, 1, S, D / 2] of the rotary angles."""
    exponent = torch.arange(0, head_dim, 2, device=position_BS.device, dtype=torch.float32) / head_dim
    angle = position_BS[:, None, :, None].float() / theta**exponent
    return angle.cos(), angle.sin()


def rotate(x_BNSD: torch.Tensor, rotation: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Turn each head's two halves against each other by the position's angles, in fp32."""
    cos, sin = rotation
    first, second = x_BNSD.float().chunk(2, dim=-1)
    # Not `cat`: the compiler can't fuse that into loops of vectors (docs/log.md).
    turned = torch.stack((first * cos - second * sin, second * cos + first * sin), dim=-2)
    return turned.flatten(-2).to(x_BNSD.dtype)
