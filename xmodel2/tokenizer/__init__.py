"""Train, load and inspect Unigram tokenizers."""

from xmodel2.tokenizer.inspect import tokenizer_statistics
from xmodel2.tokenizer.load import Tokenizer, load_tokenizer
from xmodel2.tokenizer.unigram import train_unigram

__all__ = ["Tokenizer", "load_tokenizer", "tokenizer_statistics", "train_unigram"]
