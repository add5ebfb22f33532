"""Train a Unigram tokenizer with SentencePiece and save it as a Hugging Face fast tokenizer that loses nothing.

    texts -> SentencePiece (byte fallback, digits split, no normalisation) -> pieces and scores -> tokenizer.json

SentencePiece writes a space as U+2581; the saved tokenizer holds real spaces instead and needs no normaliser, so that text
which itself contains U+2581 also comes back as it was (through bytes). Byte and control pieces get a score so low that
their spelling in a text ("<0x41>", "</s>") is never taken for the piece.
"""

import io
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import sentencepiece as spm
from tokenizers import AddedToken, decoders, models
from tokenizers import Tokenizer as FastTokenizer

from xmodel2.errors import XmodelError
from xmodel2.files import write_bytes_atomic, write_json_atomic, write_text_atomic
from xmodel2.tokenizer.load import SPECIAL_TOKENS, Tokenizer, load_tokenizer

NEVER = -1e4
_SPACE = "\u2581"
_LONGEST_SENTENCE = 16384

CHAT_TEMPLATE = (
    "{{ '<s>' }}{% for m in messages %}"
    "{{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def train_unigram(
    texts: Iterable[str],
    vocab_size: int,
    out: Path,
    *,
    max_bytes: int = 200_000_000,
    threads: int | None = None,
) -> Tokenizer:
    """Train on at most ``max_bytes`` of text, write the tokenizer directory ``out``, and return it loaded.

    Raises `XmodelError` if there is no text, or it supports fewer pieces than ``vocab_size``.
    """
    sample = list(_sentences(texts, max_bytes))
    if not sample:
        raise XmodelError("tokenizer: there is no text to train on")
    floor = len(SPECIAL_TOKENS) + 256 + 97
    if vocab_size < floor:
        raise XmodelError(f"tokenizer: vocab_size {vocab_size} is too small; bytes, special tokens and ASCII need {floor}")
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    model = io.BytesIO()
    try:
        spm.SentencePieceTrainer.train(
            sentence_iterator=iter(sample),
            model_writer=model,
            model_type="unigram",
            vocab_size=vocab_size,
            byte_fallback=True,
            split_digits=True,
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            allow_whitespace_only_pieces=True,
            character_coverage=0.9999,
            required_chars="".join(chr(code) for code in range(33, 127)),
            max_sentence_length=4 * _LONGEST_SENTENCE,
            control_symbols=SPECIAL_TOKENS[4:],
            unk_id=0,
            bos_id=1,
            eos_id=2,
            pad_id=3,
            unk_piece="<unk>",
            pad_piece="<pad>",
            num_threads=threads or os.cpu_count() or 1,
            minloglevel=2,
        )
    except (RuntimeError, OSError) as error:
        shutil.rmtree(out, ignore_errors=True)
        raise XmodelError(f"tokenizer: vocab_size {vocab_size} is not supported by this text: {_reason(error)}") from None
    write_bytes_atomic(out / "tokenizer.model", model.getvalue())
    processor = spm.SentencePieceProcessor(model_proto=model.getvalue())
    fast = to_fast(processor)
    write_text_atomic(out / "tokenizer.json", fast.to_str(pretty=False))
    write_json_atomic(
        out / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "unk_token": "<unk>",
            "bos_token": "<s>",
            "eos_token": "</s>",
            "pad_token": "<pad>",
            "additional_special_tokens": SPECIAL_TOKENS[4:],
            "clean_up_tokenization_spaces": False,
            "chat_template": CHAT_TEMPLATE,
        },
    )
    return load_tokenizer(out)


def to_fast(processor: spm.SentencePieceProcessor) -> FastTokenizer:
    """Return the pieces and scores of a SentencePiece model as a fast tokenizer."""
    vocabulary = []
    for index in range(processor.get_piece_size()):
        special = processor.is_control(index) or processor.is_byte(index) or processor.is_unknown(index)
        piece = processor.id_to_piece(index)
        score = NEVER if special else processor.get_score(index)
        vocabulary.append((piece if special else piece.replace(_SPACE, " "), score))
    fast = FastTokenizer(models.Unigram(vocabulary, unk_id=0, byte_fallback=True))
    fast.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    fast.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    return fast


def _sentences(texts: Iterable[str], max_bytes: int) -> Iterator[str]:
    """Cut documents at line ends into pieces that SentencePiece accepts; newlines stay."""
    left = max_bytes
    for text in texts:
        left -= len(text.encode("utf-8", errors="replace"))
        piece = ""
        for line in text.replace("\x00", "").splitlines(keepends=True):
            if len(piece) + len(line) > _LONGEST_SENTENCE and piece:
                yield piece
                piece = ""
            while len(line) > _LONGEST_SENTENCE:
                yield line[:_LONGEST_SENTENCE]
                line = line[_LONGEST_SENTENCE:]
            piece += line
        if piece:
            yield piece
        if left <= 0:
            return


def _reason(error: Exception) -> str:
    text = str(error)
    marker = "Please set it to a value <= "
    if marker in text:
        return f"the largest it supports is {text.split(marker)[1].split('.')[0]}"
    return text.splitlines()[-1] if text else "unknown"
