"""Text to token ids and back: train a Unigram tokenizer, load it, measure it.

>>> from xmodel2.tokenizer import SPECIAL_TOKENS
>>> SPECIAL_TOKENS.index("</s>"), SPECIAL_TOKENS.index("<|end|>")
(2, 7)
"""

from xmodel2.tokenizer.inspect import tokenizer_statistics
from xmodel2.tokenizer.load import SPECIAL_TOKENS, Message, Tokenizer, load_tokenizer
from xmodel2.tokenizer.unigram import train_unigram

__all__ = [
    "SPECIAL_TOKENS",
    "Message",
    "Tokenizer",
    "load_tokenizer",
    "tokenizer_statistics",
    "train_unigram",
]
