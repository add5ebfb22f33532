"""Our Unigram tokenizer in a GGUF file's metadata, as llama.cpp's "plamo2".

Of llama.cpp's tokenizers two search for the likeliest segmentation as Unigram does: "t5", which has no byte fallback, so that
an emoji would be lost, and "plamo2", which has it. ("llama" merges pairs greedily, another search with other results.) Plamo2
turns a score into round(score * 10,000) and adds integers; our scores are written times 256 / 10,000, which those integers
hold exactly because trained scores have eight fractional bits.
"""

import json
from typing import Any

from xmodel2.tokenizer import SPECIAL_TOKENS, Tokenizer

UNIT = 256 / 1e4
"""What a score is multiplied with."""
NEVER = -1e4
"""Score of what no text may be matched with: control tokens, and bytes, which are the fallback."""


def vocabulary(tokenizer: Tokenizer) -> tuple[list[bytes], list[float], list[int]]:
    """Return pieces, scores and token types by id."""
    from gguf import TokenType

    model: dict[str, Any] = json.loads((tokenizer.directory / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    pieces, scores, types = list[bytes](), list[float](), list[int]()
    for number, (piece, score) in enumerate(model["vocab"]):
        kind = TokenType.NORMAL
        if number == model["unk_id"]:
            kind = TokenType.UNKNOWN
        elif piece in SPECIAL_TOKENS:
            kind = TokenType.CONTROL
        elif len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
            kind = TokenType.BYTE
        pieces.append(piece.encode())
        scores.append(score * UNIT if kind == TokenType.NORMAL else NEVER)
        types.append(kind)
    return pieces, scores, types
