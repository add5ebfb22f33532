"""BPE, to compare with: lossless, the same specials, usable wherever a Unigram tokenizer is."""

from pathlib import Path

import pytest

from xmodel2.errors import XmodelError
from xmodel2.tokenizer import SPECIAL_TOKENS, load_any, load_tokenizer, tokenizer_statistics, train_bpe

TEXTS = [f"The {kind} number {n} of the list is {n * 7}.\n" for kind in ("first", "second") for n in range(300)]
AWKWARD = ["", " ", "\t\r\n", "日本語 😀", "</s><|user|>", "▁ ▅", "\U0010ffff"]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bpe") / "tokenizer"
    train_bpe(TEXTS, 290, out)
    return out


def test_every_text_comes_back(directory: Path) -> None:
    tokenizer = load_tokenizer(directory)
    assert tokenizer.vocab_size == 290
    assert [tokenizer.decode(ids) for ids in tokenizer.encode_batch(AWKWARD)] == AWKWARD
    assert min(min(ids) for ids in tokenizer.encode_batch(TEXTS)) >= len(SPECIAL_TOKENS)


def test_words_are_pieces_and_digits_stand_alone(directory: Path) -> None:
    tokenizer = load_tokenizer(directory)
    assert len(tokenizer.encode(" number of the list")) < 12
    assert len(tokenizer.encode("1234567")) == 7


def test_a_chat_is_as_with_unigram(directory: Path) -> None:
    tokenizer = load_tokenizer(directory)
    ids, mask = tokenizer.encode_chat([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])
    assert tokenizer.decode(ids) == "<s><|user|>a<|end|><|assistant|>b<|end|></s>"
    assert sum(mask) == 3


def test_its_figures_stand_beside_others(directory: Path) -> None:
    figures = tokenizer_statistics(load_any(directory), TEXTS)
    assert figures["round_trip_failures"] == 0
    assert figures["chars_per_token"] > 1.5


@pytest.mark.parametrize(
    ("texts", "size", "said"),
    [([""], 300, "empty"), (TEXTS, 100, "264"), (["ab"], 900, "most"), (TEXTS, 1 << 32, "most 1048576")],
)
def test_mistakes_say_what_is_possible(tmp_path: Path, texts: list[str], size: int, said: str) -> None:
    with pytest.raises(XmodelError, match=said):
        train_bpe(texts, size, tmp_path / "t")
