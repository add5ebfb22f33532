"""A tokenizer and some texts become the figures that say how well they fit."""

import re
from collections import Counter
from collections.abc import Iterable
from itertools import islice
from typing import Any

from xmodel2.errors import XmodelError
from xmodel2.tokenizer.load import SPECIAL_TOKENS, Tokenizer

_BYTE_PIECE = re.compile(r"<0x[0-9A-F]{2}>")
_BATCH = 256  # documents encoded at once, so that a large corpus is never held whole


def tokenizer_statistics(tokenizer: Tokenizer, texts: Iterable[str]) -> dict[str, Any]:
    """Return compression and coverage of a tokenizer on texts (each encoded alone, no specials).

    ``bytes_per_token`` and ``chars_per_token`` are means over all text; ``words`` are runs without white space;
    ``byte_fallback_rate`` is the share of tokens that are single bytes; ``round_trip_failures`` counts texts that
    do not decode to themselves (expected: 0). Raises `XmodelError` if there is no text.
    """
    counts: Counter[int] = Counter()
    documents = characters = size = words = failures = 0
    stream = iter(texts)
    while batch := list(islice(stream, _BATCH)):
        for text, ids in zip(batch, tokenizer.encode_batch(batch), strict=True):
            counts.update(ids)
            documents += 1
            characters += len(text)
            size += len(text.encode())
            words += len(text.split())
            failures += tokenizer.decode(ids) != text
    tokens = counts.total()
    if not tokens:
        raise XmodelError("tokenizer statistics: the text is empty; give files with text")
    pieces = [tokenizer.token(index) for index in range(tokenizer.vocab_size)]
    is_byte = [_BYTE_PIECE.fullmatch(piece) is not None for piece in pieces]
    learned = [index for index, piece in enumerate(pieces) if not is_byte[index] and piece not in SPECIAL_TOKENS]
    return {
        "vocab_size": tokenizer.vocab_size,
        "documents": documents,
        "characters": characters,
        "bytes": size,
        "tokens": tokens,
        "bytes_per_token": size / tokens,
        "chars_per_token": characters / tokens,
        "tokens_per_word": tokens / max(words, 1),
        "byte_fallback_rate": sum(count for index, count in counts.items() if is_byte[index]) / tokens,
        "unknown_tokens": counts[SPECIAL_TOKENS.index("<unk>")],
        "used_vocabulary": sum(counts[index] > 0 for index in learned) / len(learned),
        "mean_piece_length": sum(len(pieces[index]) for index in learned) / len(learned),
        "longest_piece": max((pieces[index].strip() for index in learned), key=len),
        "most_common": [[pieces[index], count] for index, count in counts.most_common(10)],
        "round_trip_failures": failures,
    }
