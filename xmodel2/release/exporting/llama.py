"""A plain LlamaForCausalLM, for engines without Granite's multipliers: the scales are folded into the weights.

    embedding            x scale_emb                     head (never tied)       = embedding, or a head of its own, / m
    o_proj, down_proj    x scale_depth / sqrt(layers)    q_proj                  x attention scale x sqrt(head_dim), usually 1

A tied head's copy is what it costs: vocab_size x hidden_size numbers more.
"""

import math
from typing import Any

from xmodel2.model import tensor_program
from xmodel2.model.convert import HEAD, granite_config
from xmodel2.recipe import ModelSettings
from xmodel2.release.exporting.directory import Layout
from xmodel2.release.exporting.weights import EMBEDDING
from xmodel2.tokenizer import Tokenizer

_MULTIPLIERS = ("embedding_multiplier", "residual_multiplier", "logits_scaling", "attention_multiplier")


def llama_config(settings: ModelSettings, tokenizer: Tokenizer) -> dict[str, Any]:
    """Return Llama's keys of config.json."""
    granite = granite_config(settings, tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id)
    shared = {key: value for key, value in granite.items() if key not in _MULTIPLIERS}
    return {"model_type": "llama", **shared, "head_dim": settings.head_dim, "tie_word_embeddings": False}


def folded_scale(name: str, settings: ModelSettings) -> float:
    """Return what a tensor of a native name is multiplied by."""
    if name == EMBEDDING:
        return tensor_program.embedding_multiplier(settings)
    if name == HEAD:
        return tensor_program.logit_multiplier(settings)
    if name.endswith(("o_proj.weight", "down_proj.weight")):
        return tensor_program.residual_multiplier(settings)
    if name.endswith("q_proj.weight"):
        return tensor_program.attention_multiplier(settings) * math.sqrt(settings.head_dim)
    return 1.0


LLAMA = Layout("LlamaForCausalLM", llama_config, folded_scale, may_tie=False)
