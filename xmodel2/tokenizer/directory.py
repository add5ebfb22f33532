"""A trained tokenizer becomes a directory in Hugging Face layout, with our special tokens and chat template."""

from pathlib import Path

import tokenizers
from tokenizers import AddedToken, processors

from xmodel2.errors import XmodelError
from xmodel2.files import write_json_atomic, write_text_atomic
from xmodel2.tokenizer.load import BOS, CHAT_TEMPLATE, EOS, PAD, SPECIAL_TOKENS, UNK, Tokenizer, load_tokenizer

_MOST = 1 << 20
"""Pieces of the largest vocabulary that is trained: for more, trainers ask for memory that is not there, or fail."""


def check_vocab_size(vocab_size: int, least: int, fixed: str) -> None:
    """Raise `XmodelError` if a vocabulary has no room for ``least`` pieces that are ``fixed``, or is too large to be trained."""
    if vocab_size < least:
        raise XmodelError(f"vocab_size: {vocab_size} is too small for the {fixed}; at least {least}")
    if vocab_size > _MOST:
        raise XmodelError(f"vocab_size: {vocab_size} is too large to be trained; at most {_MOST}")


def write_directory(fast: tokenizers.Tokenizer, out: Path) -> Tokenizer:
    """Write a tokenizer whose first pieces are `SPECIAL_TOKENS`, which it learns to know, and return it loaded."""
    # Users of AutoTokenizer expect <s> first, as every training document has it; `Tokenizer` adds it itself.
    fast.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, SPECIAL_TOKENS.index(BOS))]
    )
    fast.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    names = {
        "bos_token": BOS,
        "eos_token": EOS,
        "unk_token": UNK,
        "pad_token": PAD,
        "additional_special_tokens": list(SPECIAL_TOKENS[4:]),
    }
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **names,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    write_json_atomic(out / "special_tokens_map.json", names)
    write_json_atomic(out / "tokenizer_config.json", config)
    write_text_atomic(out / "tokenizer.json", fast.to_str(pretty=True))
    return load_tokenizer(out)
