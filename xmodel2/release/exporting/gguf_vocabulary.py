"""Our Unigram tokenizer in a GGUF file's metadata, as llama.cpp's "plamo2".

Of llama.cpp's tokenizers two search for the likeliest segmentation as Unigram does: "t5", which has no byte fallback, so that
an emoji would be lost, and "plamo2", which has it. ("llama" joins pairs greedily, with other results.) Plamo2 rounds
10,000 times a score to an integer and adds those; our scores, multiples of 2^-8 nats, are written so that the integers are exact.

Of equally likely segmentations it takes the one whose first piece is longest, we the one whose last is. And it drops U+FEFF at
the beginning of a text. So whoever needs our very ids asks our tokenizer, and sends llama.cpp ids.
"""

import json
from typing import Any

from xmodel2.errors import XmodelError
from xmodel2.tokenizer import SPECIAL_TOKENS, Tokenizer
from xmodel2.tokenizer.engine import is_byte

UNIT = 2**16 / 1e4
"""What a score in nats is multiplied with; -150 nats is what llama.cpp gives to an unknown character, below any piece's."""
_NEVER = -1e4
"""Score of what no text may be matched with: control tokens, and bytes, which are the fallback."""
_SPACE = "▁"


def vocabulary(tokenizer: Tokenizer, rows: int) -> tuple[list[bytes], list[float], list[int]]:
    """Return pieces, scores and token types by id, of all ``rows`` of the embedding.

    Raises `XmodelError` for a tokenizer that is no Unigram with byte fallback.
    """
    from gguf import TokenType

    tree = _tree(tokenizer)
    raw = tree["normalizer"] is None
    model, special = tree["model"], {token["id"]: token["content"] for token in tree["added_tokens"]}
    if not is_held(tokenizer):
        raise XmodelError(
            f"{tokenizer.directory}: its tokenizer is {model['type']}, and GGUF files are written of Unigram tokenizers with"
            " byte fallback; export with --to hf, and convert that with llama.cpp's convert_hf_to_gguf.py"
        )
    scores = dict.fromkeys(range(rows), _NEVER)
    pieces = {number: f"[unused {number}]" for number in range(rows)}
    # Of a row without a piece, too: llama.cpp would write the name of an UNUSED one into an answer.
    types = dict.fromkeys(range(rows), TokenType.CONTROL)
    taken = {piece for piece, _ in model["vocab"]}
    for number, (piece, score) in enumerate(model["vocab"]):
        pieces[number] = piece
        if number == model["unk_id"]:
            types[number] = TokenType.UNKNOWN
        elif is_byte(piece):
            types[number] = TokenType.BYTE
        elif number not in special and piece not in SPECIAL_TOKENS:
            types[number], scores[number] = TokenType.NORMAL, score * UNIT
            spelt = piece.replace(_SPACE, " ")
            if not raw and spelt not in taken:
                pieces[number] = spelt
                taken.add(spelt)
    for number, content in special.items():
        if number != model["unk_id"]:
            pieces[number], types[number] = content, TokenType.CONTROL
    return (
        [pieces[number].encode() for number in range(rows)],
        [scores[number] for number in range(rows)],
        [types[number] for number in range(rows)],
    )


def is_held(tokenizer: Tokenizer) -> bool:
    """Tell whether a tokenizer is one that GGUF files are written of, a Unigram with byte fallback."""
    model = _tree(tokenizer)["model"]
    return model["type"] == "Unigram" and bool(model.get("byte_fallback"))


def is_raw(tokenizer: Tokenizer) -> bool:
    """Tell whether a tokenizer takes text as it is, without a normaliser, as all of ours do."""
    return _tree(tokenizer)["normalizer"] is None


def _tree(tokenizer: Tokenizer) -> dict[str, Any]:
    tree: dict[str, Any] = json.loads((tokenizer.directory / "tokenizer.json").read_text(encoding="utf-8"))
    return tree
