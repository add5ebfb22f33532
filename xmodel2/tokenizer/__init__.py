"""Text to token ids and back: train a Unigram (or BPE) tokenizer, load it, measure it, compare it (`compare`).

>>> from xmodel2.tokenizer import SPECIAL_TOKENS
>>> SPECIAL_TOKENS.index("</s>"), SPECIAL_TOKENS.index("<|end|>")
(2, 7)
"""

from xmodel2.tokenizer.bpe import train_bpe
from xmodel2.tokenizer.encoder import Encoder, load_any
from xmodel2.tokenizer.inspect import tokenizer_statistics
from xmodel2.tokenizer.load import SPECIAL_TOKENS, Message, Tokenizer, load_tokenizer
from xmodel2.tokenizer.sample import balanced_shares, by_source, sample_texts
from xmodel2.tokenizer.unigram import train_unigram

TRAINERS = {"unigram": train_unigram, "bpe": train_bpe}
"""What trains a tokenizer, by algorithm."""

__all__ = [
    "SPECIAL_TOKENS",
    "TRAINERS",
    "Encoder",
    "Message",
    "Tokenizer",
    "balanced_shares",
    "by_source",
    "load_any",
    "load_tokenizer",
    "sample_texts",
    "tokenizer_statistics",
    "train_bpe",
    "train_unigram",
]
