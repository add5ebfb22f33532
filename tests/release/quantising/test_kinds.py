"""Which types there are, and which models int4 fits."""

import pytest

from xmodel2.errors import XmodelError
from xmodel2.recipe import ModelSettings
from xmodel2.release.quantising.kinds import check_int4, parse_kinds


def settings(hidden: int, intermediate: int, heads: int = 2) -> ModelSettings:
    return ModelSettings(
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=1,
        num_attention_heads=heads,
        num_key_value_heads=1,
        vocab_size=64,
    )


def test_each_type_is_taken_once_in_the_order_given() -> None:
    assert parse_kinds(" gguf-q4_0,int8 ,int8,") == ["gguf-q4_0", "int8"]


def test_an_unknown_type_is_told_with_the_nearest() -> None:
    with pytest.raises(XmodelError, match=r"'gguf-q4' is none of .* Did you mean 'gguf-q4_[01]'"):
        parse_kinds("int8,gguf-q4")
    with pytest.raises(XmodelError, match="names no type"):
        parse_kinds(" , ")


def test_int4_says_which_group_sizes_fit() -> None:
    check_int4(settings(128, 256), 64)
    with pytest.raises(XmodelError, match="hidden_size 96 is no multiple of the group size 64; --group-size 32 works"):
        check_int4(settings(96, 256), 64)
    with pytest.raises(XmodelError, match=r"intermediate_size 100 is no multiple .* take int8"):
        check_int4(settings(64, 100), 32)
    with pytest.raises(XmodelError, match="--group-size 48: int4 has groups of 32, 64, 128"):
        check_int4(settings(96, 96), 48)
    with pytest.raises(XmodelError, match="key_value_heads x head size 8 is no multiple of 16"):
        check_int4(settings(64, 64, heads=8), 32)
