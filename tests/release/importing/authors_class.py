"""What the class of the report's authors computes, written anew from its facts: a head at a time, in fp64."""

import math
from typing import Any

import torch


@torch.no_grad()
def authors_logits(config: dict[str, Any], weights: dict[str, torch.Tensor], ids: list[int]) -> torch.Tensor:
    """Return the logits [positions, pieces] of the authors' class.

    With ``use_mup``: embedding x mup_input_scale; attention and feed-forward outputs x their residual scale / sqrt(layers);
    query-key products / head width; logits x mup_output_scale / (hidden_size / mup_base_width). Else Llama's rules.
    """
    w = {name: tensor.double() for name, tensor in weights.items()}
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    width, shared = hidden // heads, heads // config["num_key_value_heads"]
    mup = config.get("use_mup", False)
    depth = math.sqrt(config["num_hidden_layers"])
    scale_a = config["mup_attention_residual_scale"] / depth if mup else 1.0
    scale_f = config["mup_ffn_residual_scale"] / depth if mup else 1.0
    scale_l = config["mup_output_scale"] / (hidden / config["mup_base_width"]) if mup else 1.0
    products = 1 / width if mup else 1 / math.sqrt(width)
    if "scale_emb" in config:  # MiniCPM's rules
        scale_a = scale_f = config["scale_depth"] / depth
        scale_l = config["dim_model_base"] / hidden
    embedding = config.get("mup_input_scale", 1.0) if mup else config.get("scale_emb", 1.0)

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return x / torch.sqrt((x * x).mean(-1, keepdim=True) + config["rms_norm_eps"]) * w[name]

    angles = torch.outer(
        torch.arange(len(ids)).double(), config["rope_theta"] ** (-torch.arange(0, width, 2).double() / width)
    )
    cos, sin = torch.cos(angles), torch.sin(angles)

    def turned(x: torch.Tensor) -> torch.Tensor:
        a, b = x[:, : width // 2], x[:, width // 2 :]
        return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=1)

    x = w["model.embed_tokens.weight"][ids] * embedding
    later = torch.ones(len(ids), len(ids)).triu(1).bool()
    for layer in range(config["num_hidden_layers"]):
        start = f"model.layers.{layer}."
        h = norm(x, start + "input_layernorm.weight")
        q, k, v = (h @ w[f"{start}self_attn.{part}_proj.weight"].T for part in "qkv")
        out = []
        for head in range(heads):
            own = slice(head * width, (head + 1) * width)
            group = slice(head // shared * width, (head // shared + 1) * width)
            scores = turned(q[:, own]) @ turned(k[:, group]).T * products
            out.append(torch.softmax(scores.masked_fill(later, -math.inf), dim=-1) @ v[:, group])
        x = x + torch.cat(out, dim=1) @ w[start + "self_attn.o_proj.weight"].T * scale_a
        h = norm(x, start + "post_attention_layernorm.weight")
        gate, up = (h @ w[f"{start}mlp.{part}_proj.weight"].T for part in ("gate", "up"))
        x = x + (torch.nn.functional.silu(gate) * up) @ w[start + "mlp.down_proj.weight"].T * scale_f
    head = w["model.embed_tokens.weight"]
    return (norm(x, "model.norm.weight") @ head.T * scale_l).float()
