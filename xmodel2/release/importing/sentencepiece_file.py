"""A SentencePiece Unigram model becomes a fast tokenizer with the same ids, compared on the spot.

Only what both libraries do alike is kept: normalisation by its table, spaces as U+2581, pieces, bytes for unknown characters.
Symbols that a user defined have a bonus in SentencePiece's search instead of their score; here it is their score.
"""

from pathlib import Path
from typing import Any

import sentencepiece
import tokenizers
from sentencepiece import sentencepiece_model_pb2
from tokenizers import Regex, decoders, models, normalizers

from xmodel2.errors import XmodelError

_SPACE = "▁"  # how SentencePiece writes a space
_NEVER = -1000.0  # log-probability of pieces that text must not match
_BONUSES = ((-0.1, 0.1), (-0.1, 0.0), (1.0, 0.0))
"""Of user-defined symbols, alone and a byte: it is another in each of SentencePiece's releases."""
_ELSEWHERE = (
    "make a tokenizer.json of it where you trust its code:"
    " AutoTokenizer.from_pretrained(DIRECTORY).save_pretrained(DIRECTORY)"
)
_TEXTS = (
    "The language model was trained on text and code.",
    "def main():\n    return {'a': 1}  # two  spaces\n\n",
    "A list of numbers: 1, 22, 333, 4,444 and 3.14159.",
    " leading and trailing ",
    "   ",
    "Ein Größenvergleich: 世界，你好！мир 🙂 ½ ﬁ",
    "\tx = [i**2 for i in range(10)]",
    "",
)


def fast_tokenizer(path: Path) -> tokenizers.Tokenizer:
    """Return the tokenizer. Raises `XmodelError` if it is no Unigram model, or the ids of some text would differ."""
    content = path.read_bytes()
    proto = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]
    try:
        proto.ParseFromString(content)
        model = sentencepiece.SentencePieceProcessor(model_proto=content)
    except Exception as error:  # of protobuf, whose classes differ by its version, or of SentencePiece
        raise XmodelError(f"{path}: is not a SentencePiece model ({error}); copy it again") from None
    trainer, normalizer = proto.trainer_spec, proto.normalizer_spec
    if trainer.model_type != trainer.UNIGRAM or trainer.treat_whitespace_as_suffix:
        raise XmodelError(f"{path}: is not a Unigram model with spaces before words; {_ELSEWHERE}")
    steps: list[normalizers.Normalizer] = []
    if normalizer.precompiled_charsmap:
        steps.append(normalizers.Precompiled(normalizer.precompiled_charsmap))
    if normalizer.remove_extra_whitespaces:
        steps += [normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")]
    if normalizer.add_dummy_prefix:
        steps.append(normalizers.Prepend(_SPACE))
    normalize = normalizers.Sequence([*steps, normalizers.Replace(" ", _SPACE)])
    after = [decoders.Strip(" ", 1, 0)] if normalizer.add_dummy_prefix else []
    decode = decoders.Sequence([decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *after])
    differs = ""
    for bonus in _BONUSES:
        vocabulary = [(piece.piece, _score(piece, proto.SentencePiece, bonus)) for piece in proto.pieces]
        unigram = models.Unigram(vocabulary, unk_id=model.unk_id(), byte_fallback=trainer.byte_fallback)
        fast = tokenizers.Tokenizer(unigram)
        fast.normalizer, fast.decoder = normalize, decode
        differing = (text for text in _TEXTS if fast.encode(text, add_special_tokens=False).ids != model.encode(text))
        if (text := next(differing, None)) is None:
            return fast
        differs = differs or text
    raise XmodelError(f"{path}: its ids of {differs!r} cannot be had without its own code; {_ELSEWHERE}")


def _score(piece: Any, kinds: Any, bonus: tuple[float, float]) -> float:
    if piece.type == kinds.USER_DEFINED:
        return bonus[0] + bonus[1] * len(piece.piece.encode())
    return piece.score if piece.type == kinds.NORMAL else _NEVER
