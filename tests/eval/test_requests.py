"""Splitting, windows and cutting equal the harness's own functions."""

import random
from typing import Any

import pytest
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import postprocess_generated_text
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from xmodel2.eval.requests import cut_at_stop, encode_pair, rolling_windows

BOS = 1


def encode(text: str) -> list[int]:
    """Ids of words, each with the space before it, as BPE has them: a space alone is a token of its own."""
    words, word = [], ""
    for letter in text:
        if letter == " " and word:
            words.append(word)
            word = ""
        word += letter
    return [2 + sum(map(ord, word)) % 1000 for word in [*words, *([word] if word else [])]]


def encode_with_bos(text: str) -> list[int]:
    return [BOS, *encode(text)]


class Harness(TemplateLM):
    """The harness's own splitting; what would be scored is kept instead."""

    def __init__(self, bos: bool) -> None:
        super().__init__()
        self.bos = bos
        self.pairs: list[tuple[list[int], list[int]]] = []

    @property
    def eot_token_id(self) -> int:
        return BOS

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        return encode_with_bos(string) if self.bos and add_special_tokens is not False else encode(string)

    def _loglikelihood_tokens(self, requests: Any, **_: Any) -> list[tuple[float, bool]]:
        self.pairs = [(context, continuation) for _, context, continuation in requests]
        return []

    def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> list[float]:
        raise AssertionError("only pairs are asked for")

    def generate_until(self, requests: Any, disable_tqdm: bool = False) -> list[str]:
        raise AssertionError("only pairs are asked for")


PAIRS = [
    ("The sky is", " blue"),
    ("The sky is ", "blue"),
    ("The sky is \n ", "blue and wide"),
    ("The sk", "y is blue"),
    ("", "nothing before it"),
    ("", " space first"),
    ("Answer:", "A"),
]


@pytest.mark.parametrize("bos", [False, True])
def test_pairs_are_split_as_the_harness_splits_them(bos: bool) -> None:
    harness = Harness(bos)
    harness.loglikelihood([Instance("loglikelihood", {}, pair, n) for n, pair in enumerate(PAIRS)], disable_tqdm=True)
    ours = [encode_pair(encode_with_bos if bos else encode, *pair, prefix_id=BOS) for pair in PAIRS]
    assert ours == harness.pairs


@pytest.mark.parametrize("encoder", [encode, encode_with_bos])
def test_a_context_of_spaces_only_is_scored_after_the_prefix(encoder: Any) -> None:
    context, continuation = encode_pair(encoder, "  ", "blue", BOS)
    assert context == [BOS]
    assert continuation == encode("  blue")


@pytest.mark.parametrize("encoder", [encode, encode_with_bos])
@pytest.mark.parametrize("pair", PAIRS)
def test_the_prefix_stands_once_at_most(encoder: Any, pair: tuple[str, str]) -> None:
    context, continuation = encode_pair(encoder, *pair, prefix_id=BOS)
    assert context
    assert (context + continuation).count(BOS) == (1 if encoder is encode_with_bos or not pair[0] else 0)


@pytest.mark.parametrize("max_length", [1, 2, 7, 64])
@pytest.mark.parametrize("length", [0, 1, 2, 6, 7, 8, 13, 14, 15, 50])
def test_windows_are_the_harness_s_and_predict_each_token_once(length: int, max_length: int) -> None:
    ids = list(range(100, 100 + length))
    theirs = [make_disjoint_window(window) for window in get_rolling_token_windows(ids, BOS, max_length, 1)]
    ours = list(rolling_windows(ids, BOS, max_length))
    assert ours == theirs
    assert [token for _, continuation in ours for token in continuation] == ids
    assert list(rolling_windows([BOS, *ids], BOS, max_length)) == theirs


def test_text_is_cut_where_the_harness_cuts_it() -> None:
    random.seed(0)
    for _ in range(500):
        text = "".join(random.choices("ab\n", k=12))
        until = ["".join(random.choices("ab\n", k=random.randint(0, 3))) for _ in range(3)]
        cut = cut_at_stop(text, until)
        assert cut == postprocess_generated_text(text, until, None)
        assert text.startswith(cut)
