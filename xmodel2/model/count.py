"""Parameters and FLOPs, counted from the settings alone."""

from xmodel2.recipe import ModelSettings


def block_parameter_count(settings: ModelSettings) -> int:
    """Parameters outside embedding and head: blocks and the last norm."""
    hidden, kv = settings.hidden_size, settings.num_key_value_heads * settings.head_dim
    attention = 2 * hidden * hidden + 2 * hidden * kv
    feed_forward = 3 * hidden * settings.intermediate_size
    return settings.num_hidden_layers * (attention + feed_forward + 2 * hidden) + hidden


def parameter_count(settings: ModelSettings) -> int:
    """All parameters; the head shares the embedding's unless ``tie_word_embeddings`` is off.

    >>> parameter_count(ModelSettings())
    1251755520
    >>> parameter_count(ModelSettings(tie_word_embeddings=False)) - parameter_count(ModelSettings())
    100270080
    """
    tables = 1 if settings.tie_word_embeddings else 2
    return block_parameter_count(settings) + tables * settings.vocab_size * settings.hidden_size


def flops_per_token(settings: ModelSettings, sequence_length: int, causal: bool = True) -> float:
    """Forward and backward FLOPs a token: 6 a matrix parameter (head included, looking up an embedding is none), and attention.

    Attention is 6 * L * H * S where only earlier positions are counted, 12 * L * H * S in full (as PaLM counts).
    """
    norms = (2 * settings.num_hidden_layers + 1) * settings.hidden_size
    matrices = block_parameter_count(settings) - norms + settings.vocab_size * settings.hidden_size
    attention = (6 if causal else 12) * settings.num_hidden_layers * settings.hidden_size * sequence_length
    return 6.0 * matrices + attention
