"""Our weights as a native `transformers` GraniteForCausalLM, and back: its four multipliers are exactly our scales.

scale_emb                            <->  embedding_multiplier
scale_depth / sqrt(num_layers)       <->  residual_multiplier
m = hidden_size / dim_model_base     <->  logits_scaling (it divides)
attention scale                      <->  attention_multiplier
"""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from xmodel2.model import fused_layout, tensor_program
from xmodel2.model.decoder import KVCache, Xmodel2
from xmodel2.recipe import ModelSettings

Tensors = dict[str, torch.Tensor]


def granite_config(settings: ModelSettings, bos_id: int = 1, eos_id: int = 2, pad_id: int = 3) -> dict[str, Any]:
    """Return the keys of a Granite config.json."""
    return {
        "vocab_size": settings.vocab_size,
        "hidden_size": settings.hidden_size,
        "intermediate_size": settings.intermediate_size,
        "num_hidden_layers": settings.num_hidden_layers,
        "num_attention_heads": settings.num_attention_heads,
        "num_key_value_heads": settings.num_key_value_heads,
        "max_position_embeddings": settings.max_position_embeddings,
        "rms_norm_eps": settings.rms_norm_eps,
        "rope_parameters": {"rope_type": "default", "rope_theta": settings.rope_theta},
        "rope_theta": settings.rope_theta,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "attention_dropout": 0.0,
        "initializer_range": settings.init_std,
        "tie_word_embeddings": settings.tie_word_embeddings,
        "embedding_multiplier": tensor_program.embedding_multiplier(settings),
        "residual_multiplier": tensor_program.residual_multiplier(settings),
        "logits_scaling": 1.0 / tensor_program.logit_multiplier(settings),
        "attention_multiplier": tensor_program.attention_multiplier(settings),
        "bos_token_id": bos_id,
        "eos_token_id": eos_id,
        "pad_token_id": pad_id,
    }


HEAD = "lm_head.weight"
"""The name of an untied head, here and in `transformers`."""
FUSED = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}
"""Our fused tensors and the ones that they hold."""


def native_name(name: str) -> str:
    """Return what `transformers` calls a tensor of ours that is not fused."""
    return name if name == HEAD else f"model.{name}"


def to_granite(tensors: Tensors, settings: ModelSettings) -> Tensors:
    """Rename and split our fused tensors; a tied head is left out."""
    out: Tensors = {}
    for name, tensor in tensors.items():
        fused = name.removesuffix(".weight").rpartition(".")[2]
        parts = FUSED.get(fused, (fused,))
        for part, matrix in zip(parts, fused_layout.matrices(name, tensor, settings), strict=True):
            out[native_name(name.replace(fused, part))] = matrix.reshape(-1, *tensor.shape[1:])
    return {name: tensor.detach().contiguous().clone() for name, tensor in out.items()}


def from_granite(tensors: Tensors, settings: ModelSettings) -> Tensors:
    """Join a Granite state dict into our fused tensors."""
    ours = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
    if settings.tie_word_embeddings:
        ours.pop(HEAD, None)
    for layer in range(settings.num_hidden_layers):
        attention, feed_forward = f"layers.{layer}.self_attn.", f"layers.{layer}.mlp."
        q, k, v = (ours.pop(f"{attention}{part}.weight") for part in FUSED["qkv_proj"])
        gate, up = (ours.pop(f"{feed_forward}{part}.weight") for part in FUSED["gate_up_proj"])
        ours[f"{attention}qkv_proj.weight"] = fused_layout.join_qkv(q, k, v, settings)
        ours[f"{feed_forward}gate_up_proj.weight"] = fused_layout.join_gate_up(gate, up, settings)
    return ours


@torch.no_grad()
def granite_difference(model: Xmodel2, granite: torch.nn.Module, prompts: list[list[int]], pad_id: int = 0) -> float:
    """Return the largest logit difference from a loaded Granite model: whole prompts, padded on the left, and with a cache."""
    from transformers import DynamicCache

    worst = 0.0
    for prompt in prompts:
        ids = torch.tensor([prompt])
        worst = max(worst, float((model(ids) - granite(ids).logits).abs().max()))
    longest = max(len(prompt) for prompt in prompts)
    pads = [longest - len(prompt) for prompt in prompts]
    ids = torch.tensor([[pad_id] * pad + prompt for pad, prompt in zip(pads, prompts, strict=True)])
    pad_B = torch.tensor(pads)
    real = torch.arange(longest)[None] >= pad_B[:, None]
    cut = longest - min(len(prompt) for prompt in prompts) + 1
    cache = KVCache(model.settings, pad_B, longest, torch.float32)
    ours = torch.cat([model(ids[:, :cut], cache=cache), model(ids[:, cut:], cache=cache)], dim=1)
    positions = (torch.arange(longest)[None] - pad_B[:, None]).clamp_min(0)
    # transformers renamed the argument in 5.x; both names take a cache that is filled in place.
    name = "cache" if "cache" in inspect.signature(granite.forward).parameters else "past_key_values"
    keep = {name: DynamicCache(), "use_cache": True}
    first = granite(ids[:, :cut], attention_mask=real[:, :cut].long(), position_ids=positions[:, :cut], **keep)
    rest = granite(ids[:, cut:], attention_mask=real.long(), position_ids=positions[:, cut:], **keep)
    theirs = torch.cat([first.logits, rest.logits], dim=1)
    return max(worst, float((ours - theirs)[real].abs().max()))


def as_granite(model: Xmodel2, settings: ModelSettings) -> Any:
    """Return a native model with our weights, in evaluation mode."""
    from transformers import GraniteConfig, GraniteForCausalLM

    config = GraniteConfig(**granite_config(settings))
    tensors = to_granite(dict(model.state_dict()), settings)
    with no_progress_bar():
        return GraniteForCausalLM.from_pretrained(None, config=config, state_dict=tensors).eval()


@contextmanager
def no_progress_bar() -> Iterator[None]:
    """Keep `transformers` from drawing bars for what takes a moment."""
    from transformers.utils.logging import disable_progress_bar, enable_progress_bar, is_progress_bar_enabled

    enabled = is_progress_bar_enabled()
    disable_progress_bar()
    try:
        yield
    finally:
        if enabled:
            enable_progress_bar()


def parity_difference(model: Xmodel2, settings: ModelSettings, seed: int) -> float:
    """Return the largest logit difference between our model and a Granite model built from its converted weights."""
    generator = torch.Generator().manual_seed(seed)
    sizes = (5, 12, 23)
    prompts = [torch.randint(settings.vocab_size, (n,), generator=generator).tolist() for n in sizes]
    return granite_difference(model.eval(), as_granite(model, settings), prompts)
