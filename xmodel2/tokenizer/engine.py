"""The ids of a Unigram `tokenizers.Tokenizer` from SentencePiece's search, about ten times as fast, in linear time and memory.

    text -> stretches of some thousand characters, cut where no piece can cross -> SentencePiece -> ids joined

The ids are the same, ties included:

- Where no piece of the vocabulary has the two characters of a cut side by side, every segmentation has a boundary, so the
  best one of the whole is the best ones of its stretches.
- Scores are multiples of 2^-8, and a stretch is short enough that its sums are exact in float32: no rounding decides.
- Both libraries search forward, and of equal scores keep the one found first.
- What SentencePiece reads differently (`RESERVED`), and a stretch that has no place to cut, goes to `tokenizers`.

Only a run of over 65,536 characters that all stand side by side in pieces (one letter a hundred thousand times) is cut anyway,
which may change one token there; it decodes to the same text.
"""

import json
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import sentencepiece
import tokenizers
from sentencepiece import sentencepiece_model_pb2

RESERVED = "\0▁▅"
"""Characters that SentencePiece keeps for itself: never learned, encoded as bytes by `tokenizers`."""
STEP = 2.0**-8
"""Scores are multiples of it (nats)."""
_EXACT = STEP * 2**24  # float32 adds multiples of STEP without error up to here
_UNKNOWN_PENALTY = 10.0  # SentencePiece: an unknown character costs this more than the worst piece
_LONGEST = 1 << 16
_BATCH = 16  # texts from which on a call for all of them, which starts a thread, is faster than a call for each

Ids = np.ndarray
"""int32, one-dimensional, perhaps read-only."""


class Engine:
    """Encodes for one tokenizer. Make it with `build_engine`."""

    def __init__(
        self, fast: tokenizers.Tokenizer, model: sentencepiece.SentencePieceProcessor, pairs: set[str], stretch: int
    ) -> None:
        self._fast, self._model, self._pairs, self._stretch = fast, model, pairs, stretch

    def encode(self, texts: Sequence[str]) -> list[Ids]:
        """Return the ids of each text, no specials added, on one thread. Raises UnicodeEncodeError for lone surrogates."""
        stretches: list[str] = []
        bounds = [0]
        for text in texts:
            stretches += self._cut(text)
            bounds.append(len(stretches))
        parts = self._search(stretches)
        return [
            parts[start] if stop - start == 1 else np.concatenate(parts[start:stop]) for start, stop in pairwise(bounds)
        ]

    def _search(self, stretches: list[str]) -> list[Ids]:
        slow = {index: text for index, text in enumerate(stretches) if self._is_slow(text)}
        quick = ["" if index in slow else text for index, text in enumerate(stretches)] if slow else stretches
        found: list[Ids]
        if len(quick) < _BATCH:
            found = [self._model.encode(text.encode(), return_type="numpy") for text in quick]
        else:
            found = self._model.encode(quick, num_threads=1, return_type="numpy")
        for index, text in slow.items():
            [encoding] = self._fast.encode_batch_fast([text], add_special_tokens=False)
            found[index] = np.array(encoding.ids, dtype=np.int32)
        return found

    def _is_slow(self, text: str) -> bool:
        return len(text) > self._stretch or any(map(text.__contains__, RESERVED))

    def _cut(self, text: str) -> Iterator[str]:
        start = 0
        while len(text) - start > self._stretch:
            stop = self._last_cut(text, start, start + self._stretch)
            if stop == start:
                stop = self._first_cut(text, start + self._stretch, start + _LONGEST)
            yield text[start:stop]
            start = stop
        yield text[start:]

    def _last_cut(self, text: str, start: int, stop: int) -> int:
        while stop > start and text[stop - 1 : stop + 1] in self._pairs:
            stop -= 1
        return stop

    def _first_cut(self, text: str, stop: int, longest: int) -> int:
        while stop < min(longest, len(text)) and text[stop - 1 : stop + 1] in self._pairs:
            stop += 1
        return stop


def build_engine(fast: tokenizers.Tokenizer) -> Engine | None:
    """Return an engine for a tokenizer that encodes names of special tokens as text.

    None if equal ids are not certain: another model, text changed before it, or scores that are not rounded.
    """
    tree = json.loads(fast.to_str())
    model = tree["model"]
    special = {token["content"] for token in tree["added_tokens"] if token["special"]}
    steps = ("normalizer", "pre_tokenizer", "truncation", "padding")
    if model["type"] != "Unigram" or not model["byte_fallback"] or any(tree[step] for step in steps):
        return None
    if len(special) < len(tree["added_tokens"]):
        return None
    text = [index for index, (piece, _) in enumerate(model["vocab"]) if piece not in special and not is_byte(piece)]
    pieces = [model["vocab"][index][0] for index in text]
    scores = [model["vocab"][index][1] for index in text]
    singles = {piece for piece in pieces if len(piece) == 1}
    if any(score % STEP for score in scores) or not singles.issuperset("".join(pieces)) or singles & set(RESERVED):
        return None
    processor = _processor(model["vocab"], special, model["unk_id"])
    pairs = {piece[start : start + 2] for piece in pieces for start in range(len(piece) - 1)}
    # In the worst case every character is a token of the worst score.
    stretch = int(_EXACT / (max(map(abs, scores)) + _UNKNOWN_PENALTY)) - 1
    return Engine(fast, processor, pairs, stretch)


def is_byte(piece: str) -> bool:
    """Tell whether a piece stands for one byte.

    >>> is_byte("<0x0A>"), is_byte("<0x0a>")
    (True, False)
    """
    return (
        len(piece) == 6 and piece.startswith("<0x") and piece[5] == ">" and set(piece[3:5]) <= set("0123456789ABCDEF")
    )


def _processor(
    vocabulary: list[tuple[str, float]], special: set[str], unknown_id: int
) -> sentencepiece.SentencePieceProcessor:
    proto = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]
    kinds = proto.SentencePiece
    for index, (piece, score) in enumerate(vocabulary):
        kind = (
            kinds.UNKNOWN
            if index == unknown_id
            else kinds.CONTROL
            if piece in special
            else kinds.BYTE
            if is_byte(piece)
            else kinds.NORMAL
        )
        proto.pieces.add(piece=piece.replace(" ", "▁"), score=score, type=kind)
    proto.trainer_spec.model_type = proto.trainer_spec.UNIGRAM
    proto.trainer_spec.byte_fallback = True
    proto.normalizer_spec.name = "identity"
    proto.normalizer_spec.add_dummy_prefix = False
    proto.normalizer_spec.remove_extra_whitespaces = False
    return sentencepiece.SentencePieceProcessor(model_proto=proto.SerializeToString())
