"""Statistics of a tokenizer on texts."""

import pytest

from xmodel2.errors import XmodelError
from xmodel2.tokenizer import Tokenizer, tokenizer_statistics


def test_figures_add_up(tokenizer: Tokenizer, texts: list[str]) -> None:
    figures = tokenizer_statistics(tokenizer, texts)
    assert figures["bytes"] == sum(len(text.encode()) for text in texts)
    assert figures["tokens"] == sum(map(len, tokenizer.encode_batch(texts)))
    assert figures["bytes_per_token"] == pytest.approx(figures["bytes"] / figures["tokens"])
    assert figures["bytes_per_token"] > 1.5
    assert figures["round_trip_failures"] == figures["unknown_tokens"] == 0
    assert 0 < figures["used_vocabulary"] <= 1


def test_unseen_script_falls_back_to_bytes(tokenizer: Tokenizer) -> None:
    figures = tokenizer_statistics(tokenizer, ["日本語"])
    assert figures["byte_fallback_rate"] == 1
    assert figures["tokens"] == 9


def test_no_text_is_an_error(tokenizer: Tokenizer) -> None:
    with pytest.raises(XmodelError, match="empty"):
        tokenizer_statistics(tokenizer, [""])
