"""How well a tokenizer fits a text: compression, byte fallback, and how much of the vocabulary is used."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from xmodel2.errors import XmodelError
from xmodel2.tokenizer.load import Tokenizer


def tokenizer_statistics(tokenizer: Tokenizer, texts: Sequence[str]) -> dict[str, Any]:
    """Return counts and ratios over the texts; entropy is of the unigram distribution, in bits a token.

    Raises `XmodelError` if the texts are empty.
    """
    encoded = tokenizer.encode_batch(texts)
    used = Counter(index for ids in encoded for index in ids)
    tokens = sum(used.values())
    if not tokens:
        raise XmodelError("tokenizer inspect: there is no text to measure on")
    data = sum(len(text.encode("utf-8", errors="replace")) for text in texts)
    in_bytes = sum(n for index, n in used.items() if _is_byte(tokenizer.piece(index)))
    return {
        "vocab_size": tokenizer.vocab_size,
        "texts": len(texts),
        "bytes": data,
        "tokens": tokens,
        "bytes_per_token": data / tokens,
        "characters_per_token": sum(map(len, texts)) / tokens,
        "byte_fallback_rate": in_bytes / tokens,
        "vocabulary_used": len(used) / tokenizer.vocab_size,
        "entropy_bits": -sum(n / tokens * math.log2(n / tokens) for n in used.values()),
        "lossless": all(tokenizer.decode(ids) == text for ids, text in zip(encoded, texts, strict=True)),
    }


def _is_byte(piece: str) -> bool:
    return len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">")
