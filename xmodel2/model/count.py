"""Parameters, FLOPs and bytes, counted from the settings alone."""

from typing import Any

from xmodel2.recipe import ModelSettings, Recipe


def block_parameter_count(settings: ModelSettings) -> int:
    """Parameters outside the embedding: blocks and the last norm."""
    hidden, kv = settings.hidden_size, settings.num_key_value_heads * settings.head_dim
    attention = 2 * hidden * hidden + 2 * hidden * kv
    feed_forward = 3 * hidden * settings.intermediate_size
    return settings.num_hidden_layers * (attention + feed_forward + 2 * hidden) + hidden


def parameter_count(settings: ModelSettings) -> int:
    """All parameters; the head shares the embedding's.

    >>> parameter_count(ModelSettings())
    1251755520
    """
    return block_parameter_count(settings) + settings.vocab_size * settings.hidden_size


def flops_per_token(settings: ModelSettings, sequence_length: int, causal: bool = True) -> float:
    """Forward and backward FLOPs a token: 6 a matrix parameter (head included), and attention.

    Attention is 6 * L * H * S where only earlier positions are counted, 12 * L * H * S in full (as PaLM counts).
    """
    norms = (2 * settings.num_hidden_layers + 1) * settings.hidden_size
    matrices = parameter_count(settings) - norms
    attention = (6 if causal else 12) * settings.num_hidden_layers * settings.hidden_size * sequence_length
    return 6.0 * matrices + attention


def plan_run(recipe: Recipe) -> dict[str, Any]:
    """Return what a recipe will cost before it starts; bytes are of weights, gradients and AdamW moments in fp32."""
    total = recipe.total_steps * recipe.train.batch_tokens
    per_token = flops_per_token(recipe.model, recipe.data.sequence_length)
    parameters = parameter_count(recipe.model)
    return {
        "parameters": parameters,
        "parameters in blocks": block_parameter_count(recipe.model),
        "stable steps": recipe.stable_steps,
        "decay steps": recipe.decay_steps,
        "rows a step": recipe.batch_rows,
        "tokens": total,
        "FLOPs a token": per_token,
        "FLOPs": per_token * total,
        "bytes of weights, gradients and moments": 16 * parameters,
        "bytes of a checkpoint": 12 * parameters,
        "tokens/s needed to finish in 30 days": total / (30 * 86400),
    }
