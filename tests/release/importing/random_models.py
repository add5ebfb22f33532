"""Small random models under Llama's names, written as the directories that others publish."""

import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 416,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "rope_theta": 20000.0,
    "hidden_act": "silu",
}


def random_weights(config: dict[str, Any], seed: int = 0, head: bool = False) -> dict[str, torch.Tensor]:
    """Return weights under Llama's names."""
    generator = torch.Generator().manual_seed(seed)
    hidden, wide = config["hidden_size"], config["intermediate_size"]
    width = hidden // config["num_attention_heads"]
    kv = width * config["num_key_value_heads"]

    def matrix(rows: int, columns: int) -> torch.Tensor:
        return torch.randn(rows, columns, generator=generator) / math.sqrt(columns)

    weights = {
        "model.embed_tokens.weight": matrix(config["vocab_size"], hidden),
        "model.norm.weight": 1 + torch.rand(hidden, generator=generator),
    }
    for layer in range(config["num_hidden_layers"]):
        start = f"model.layers.{layer}."
        for part, rows in {"q_proj": hidden, "k_proj": kv, "v_proj": kv, "o_proj": hidden}.items():
            weights[f"{start}self_attn.{part}.weight"] = matrix(rows, hidden)
        weights[f"{start}mlp.gate_proj.weight"] = matrix(wide, hidden)
        weights[f"{start}mlp.up_proj.weight"] = matrix(wide, hidden)
        weights[f"{start}mlp.down_proj.weight"] = matrix(hidden, wide)
        for part in ("input_layernorm", "post_attention_layernorm"):
            weights[f"{start}{part}.weight"] = 1 + torch.rand(hidden, generator=generator)
    if head:
        weights["lm_head.weight"] = matrix(config["vocab_size"], hidden)
    return weights


def write_directory(
    folder: Path, config: dict[str, Any], weights: dict[str, torch.Tensor], tokenizer: Path | None = None
) -> Path:
    """Write a model directory of one safetensors file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, folder / "model.safetensors")
    for file in tokenizer.iterdir() if tokenizer else ():
        if not file.name.startswith("."):
            (folder / file.name).write_bytes(file.read_bytes())
    return folder
