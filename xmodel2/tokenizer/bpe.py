"""Text becomes a byte-level BPE tokenizer directory, the kind most models of today have: what Unigram is compared with.

    texts -> the same sample as for Unigram -> digits apart, words with their space -> byte-level BPE -> directory

Lossless as Unigram is: no normalisation, every byte is a piece. The same 8 specials come first, so all else works alike.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from xmodel2.errors import XmodelError
from xmodel2.tokenizer.directory import check_vocab_size, write_directory
from xmodel2.tokenizer.load import SPECIAL_TOKENS, Tokenizer
from xmodel2.tokenizer.sample import sample_texts


def train_bpe(
    texts: Iterable[str] | Mapping[str, Iterable[str]],
    vocab_size: int,
    out: Path,
    *,
    shares: Mapping[str, float] | None = None,
    seed: int = 0,
    max_bytes: int = 8_000_000,
) -> Tokenizer:
    """Train a byte-level BPE tokenizer, write its directory and return it loaded; arguments as `train_unigram`.

    Raises `XmodelError` if there is no text or ``vocab_size`` is not possible with it; the message says what is.
    """
    check_vocab_size(vocab_size, len(SPECIAL_TOKENS) + 256, "bytes and special tokens")
    sources = texts if isinstance(texts, Mapping) else {"texts": texts}
    sample = sample_texts(sources, max_bytes, shares, seed)
    if not any(sample):
        raise XmodelError("tokenizer: the text is empty; give files with text to learn from")
    fast = tokenizers.Tokenizer(models.BPE())
    fast.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    fast.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    fast.train_from_iterator(sample, trainer)
    if (found := fast.get_vocab_size()) < vocab_size:
        raise XmodelError(f"vocab_size: {vocab_size} is more than this text supports; at most {found}, or more text")
    return write_directory(fast, Path(out))
