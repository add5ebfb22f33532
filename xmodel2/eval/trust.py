"""What a model can be trusted with: only full causal attention honours a mask in which sequences share a beginning.

Convolutions, state spaces and linear attention take what stands before a token for what came before it; windows and chunks count
columns, not positions. Such models are asked sequence by sequence, and generate by their own method.
"""

from typing import Any

import torch

from xmodel2.errors import XmodelError
from xmodel2.eval.network import Network
from xmodel2.eval.scoring import Pair, score_pairs

_WINDOWS = ("sliding_window", "attention_chunk_size", "window_size", "attention_window")
_RULES = (
    "bad_words_ids",
    "force_words_ids",
    "suppress_tokens",
    "begin_suppress_tokens",
    "sequence_bias",
    "forced_bos_token_id",
)


def shares_safely(network: Network) -> bool:
    """Tell whether shared beginnings give what single sequences give: by the config, and by trying.

    Raises `XmodelError` for a model whose tokens see what comes after them.
    """
    alone = _nats(network, share=False)
    shorter = _nats(
        network, share=False, pairs=[(context, continuation[:1]) for context, continuation in _pairs(network)]
    )
    tolerance = 1e-3 if network.dtype == torch.float32 else 0.25
    if any(abs(a[0] - b[0]) > tolerance for a, b in zip(alone, shorter, strict=True)):
        raise XmodelError(
            f"{type(network.model).__name__}: its tokens see what comes after them; it is no causal language model"
        )
    if not network.takes_positions or not _full_attention(network.config.get_text_config()):
        return False
    try:
        shared = _nats(network, share=True)
    except (RuntimeError, ValueError, TypeError, IndexError):
        return False
    pairs = ((x, y) for a, b in zip(alone, shared, strict=True) for x, y in zip(a, b, strict=True))
    return all(abs(x - y) <= tolerance for x, y in pairs)


def _full_attention(config: Any) -> bool:
    layers = getattr(config, "layer_types", None)
    if layers:
        return set(layers) == {"full_attention"}
    if "local" in (getattr(config, "attention_layers", None) or ()):  # GPT-Neo
        return False
    used = getattr(config, "use_sliding_window", True)
    return not (used and any(getattr(config, name, None) for name in _WINDOWS))


def _pairs(network: Network) -> list[Pair]:
    """Two sequences with a beginning in common, of tokens that every vocabulary has."""
    size = network.config.get_text_config().vocab_size
    context = [3 + 7 * place % (size - 3) for place in range(12)]
    return [(context, [5 % size, 9 % size, 11 % size]), (context, [8 % size, 6 % size, 10 % size])]


def _nats(network: Network, share: bool, pairs: list[Pair] | None = None) -> list[list[float]]:
    pairs = pairs or _pairs(network)
    found = {index: nats.tolist() for index, nats, _ in score_pairs(network, pairs, 32, 256, share)}
    return [found[index] for index in range(len(pairs))]


def has_rules_of_its_own(generation: Any) -> bool:
    """Tell whether a model's generation settings change greedy answers: those are left to its own method."""
    if generation is None:
        return False
    if (getattr(generation, "repetition_penalty", None) or 1.0) != 1.0:
        return True
    counts = ("no_repeat_ngram_size", "min_length", "min_new_tokens")
    return any(getattr(generation, name, None) for name in (*counts, *_RULES))
