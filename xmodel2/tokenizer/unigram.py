"""Text becomes a Unigram tokenizer directory in Hugging Face layout.

    texts -> sample of at most max_bytes -> SentencePiece Unigram -> scores rounded (tokenizer.model)
          -> the same pieces as a fast tokenizer (tokenizer.json) -> directory AutoTokenizer loads

Lossless by construction: no normalisation, no dummy prefix, no space removed, unknown characters as UTF-8 bytes.
SentencePiece writes a space as U+2581; the fast tokenizer has real spaces in its pieces, so a literal U+2581 in a text
survives too (as bytes), which SentencePiece itself would turn into a space.

Scores are rounded to multiples of 2^-8, so that sums of them are exact: two segmentations that score the same then tie
in every implementation and wherever a text is cut, and no rounding error chooses between them (tokenizer/engine.py needs this).
"""

import io
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import sentencepiece
import tokenizers
from sentencepiece import sentencepiece_model_pb2
from tokenizers import decoders, models

from xmodel2.errors import XmodelError
from xmodel2.files import write_bytes_atomic
from xmodel2.tokenizer.directory import check_vocab_size, write_directory
from xmodel2.tokenizer.engine import RESERVED, STEP
from xmodel2.tokenizer.load import BOS, EOS, PAD, SPECIAL_TOKENS, UNK, Tokenizer
from xmodel2.tokenizer.sample import sample_texts

_SPACE = "▁"  # how SentencePiece writes a space
_REQUIRED = "".join(map(chr, range(0x21, 0x7F))) + "\n"  # printable ASCII; tabs are pieces of their own
_TABS = tuple("\t" * count for count in range(1, 9))  # the trainer keeps tabs out of ordinary pieces
_TAB_SCORE = -6.0  # the same for any number, so that fewer pieces win
_FIXED = len(SPECIAL_TOKENS) + len(_TABS) + 256
_LEAST = _FIXED + len(_REQUIRED) + 1  # and a space
_COVERAGE, _LEAST_COVERAGE = 0.9999, 0.98  # SentencePiece takes no less
_NEVER = -1000.0  # log-probability of pieces that text must not match: below any spelling in other pieces


def train_unigram(
    texts: Iterable[str] | Mapping[str, Iterable[str]],
    vocab_size: int,
    out: Path,
    *,
    shares: Mapping[str, float] | None = None,
    seed: int = 0,
    max_bytes: int = 8_000_000,
    threads: int = 2,
) -> Tokenizer:
    """Train a Unigram tokenizer, write its directory and return it loaded.

    Args:
        texts: whole documents, read once; or documents by source
        vocab_size: number of pieces, the 8 specials, 8 runs of tabs and 256 bytes included
        out: directory to write
        shares: of the sample by source, in any unit; without, a uniform sample of everything
        seed: chooses the sample
        max_bytes: bytes of UTF-8 to learn from (`sample_texts`); training takes about 20 bytes of memory for each
        threads: of the trainer; sums are rounded in thread order, so another number may give slightly other scores

    Raises `XmodelError` if there is no text or ``vocab_size`` is not possible with it; the message says what is.
    """
    sources = texts if isinstance(texts, Mapping) else {"texts": texts}
    proto = train_sentencepiece(sample_texts(sources, max_bytes, shares, seed), vocab_size, threads=threads)
    fast = _to_fast(sentencepiece.SentencePieceProcessor(model_proto=proto))
    write_bytes_atomic(Path(out) / "tokenizer.model", proto)
    return write_directory(fast, Path(out))


def train_sentencepiece(
    sample: Sequence[str], vocab_size: int, *, algorithm: Literal["unigram", "bpe"] = "unigram", threads: int = 2
) -> bytes:
    """Return a SentencePiece model of texts of up to 64 KB each (BPE: to compare with). Raises as `train_unigram`."""
    check_vocab_size(vocab_size, _LEAST, "bytes, special tokens, tabs and ASCII")
    cleaned = [_clean(text) for text in sample]
    if not any(cleaned):
        raise XmodelError("tokenizer: the text is empty; give files with text to learn from")
    counts = Counter[str]()
    for text in cleaned:
        counts.update(text)
    coverage = _coverage(counts, vocab_size)
    if len(_commonest(counts, _LEAST_COVERAGE)) > vocab_size - _FIXED:
        cleaned, coverage = _without_rare(cleaned, counts, (vocab_size - _LEAST) // 2), 1.0
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(cleaned),
            model_writer=model,
            model_type=algorithm,
            vocab_size=vocab_size,
            hard_vocab_limit=True,
            byte_fallback=True,
            split_digits=True,
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            allow_whitespace_only_pieces=True,
            character_coverage=coverage,
            required_chars=_REQUIRED,
            user_defined_symbols=list(_TABS),
            unk_id=0,
            bos_id=1,
            eos_id=2,
            pad_id=3,
            unk_piece=UNK,
            bos_piece=BOS,
            eos_piece=EOS,
            pad_piece=PAD,
            control_symbols=list(SPECIAL_TOKENS[4:]),
            max_sentence_length=1 << 16,
            num_threads=threads,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise _vocabulary_error(vocab_size, str(error)) from error
    return _round_scores(model.getvalue()) if algorithm == "unigram" else model.getvalue()


def _coverage(counts: Counter[str], vocab_size: int) -> float:
    """Return the share of characters that are pieces: nearly all, but a quarter of the vocabulary is enough for them.

    Chinese alone has more characters than a small vocabulary has pieces; the rare ones become bytes.
    """
    commonest = sum(count for _, count in counts.most_common(vocab_size // 4))
    return min(_COVERAGE, max(_LEAST_COVERAGE, commonest / counts.total()))


def _commonest(counts: Counter[str], coverage: float) -> set[str]:
    """Return the characters that SentencePiece makes pieces at a coverage."""
    kept, covered = {*_REQUIRED, " "}, 0
    for character, count in counts.most_common():
        if covered >= coverage * counts.total():
            break
        kept.add(character)
        covered += count
    return kept - {"\t"}


def _without_rare(texts: Sequence[str], counts: Counter[str], most: int) -> list[str]:
    """Return the parts of texts between rare characters: those that are neither required nor the ``most`` commonest others."""
    kept = {*_REQUIRED, " ", "\t"}
    others = [character for character, _ in counts.most_common() if character not in kept]
    rare = re.compile(f"[{re.escape(''.join(others[most:]))}]+")
    return [part for text in texts for part in rare.split(text) if part]


def _clean(text: str) -> str:
    return text.encode("utf-8", "replace").decode().translate(dict.fromkeys(map(ord, RESERVED)))


def _round_scores(proto: bytes) -> bytes:
    model = sentencepiece_model_pb2.ModelProto.FromString(proto)  # type: ignore[attr-defined]
    for piece in model.pieces:
        if piece.piece in _TABS:
            piece.type, piece.score = piece.NORMAL, _TAB_SCORE
        piece.score = round(piece.score / STEP) * STEP
    return bytes(model.SerializeToString())


def _vocabulary_error(vocab_size: int, reason: str) -> XmodelError:
    if found := re.search(r"too high \(\d+\)\. Please set it to a value <= (\d+)", reason):
        return XmodelError(
            f"vocab_size: {vocab_size} is more than this text supports; at most {found[1]}, or more text"
        )
    if found := re.search(r"smaller than required_chars\. \d+ vs (\d+)", reason):
        return XmodelError(
            f"vocab_size: {vocab_size} is too small for the characters of this text; at least {found[1]}"
        )
    return XmodelError(f"tokenizer: SentencePiece could not train on this text: {reason}")


def _to_fast(model: sentencepiece.SentencePieceProcessor) -> tokenizers.Tokenizer:
    """The same pieces and scores as a `tokenizers` tokenizer, so the same best segmentation.

    SentencePiece adds scores in float32, which is exact up to 65536 nats, tens of thousands of characters; beyond, the two
    may choose differently, and never the worse one here.
    """
    vocabulary: list[tuple[str, float]] = []
    for index in range(model.get_piece_size()):
        piece, score = model.id_to_piece(index), model.get_score(index)
        if model.is_byte(index) or model.is_control(index) or model.is_unknown(index):
            vocabulary.append((piece, _NEVER))
        else:
            vocabulary.append((piece.replace(_SPACE, " "), score))
    # Nothing is cut before the search: measured, a split into words with its cache was no faster.
    fast = tokenizers.Tokenizer(models.Unigram(vocabulary, unk_id=0, byte_fallback=True))
    fast.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    return fast
