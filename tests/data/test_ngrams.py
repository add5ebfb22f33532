"""Hashes of n-grams agree with a plain definition of words, at any length."""

import re

import numpy as np

from xmodel2.data.ngrams import ngram_hashes, shingles, word_hashes

TEXT = "It's 2024: the Quick-brown fox (北京 欢迎) jumps; THE quick_brown Fox, ÉCOLE école!\n\tend"


def plain_words(text: str) -> list[str]:
    return [word.lower() for word in re.findall(r"[\u4e00-\u9fff]|[^\W_\u4e00-\u9fff]+", text)]


def test_equal_words_have_equal_hashes_and_different_ones_different() -> None:
    words, hashes = plain_words(TEXT), word_hashes(TEXT)
    assert len(words) == len(hashes)
    by_word = dict(zip(words, hashes.tolist(), strict=True))
    assert [by_word[word] for word in words] == hashes.tolist()
    assert len(set(by_word.values())) == len(by_word)


def test_layout_and_case_do_not_count() -> None:
    assert np.array_equal(shingles("One, two -- THREE\nfour", 3), shingles("one two three four", 3))
    assert not np.array_equal(shingles("one two three four", 3), shingles("one two four three", 3))


def test_a_text_longer_than_a_chunk_is_hashed_as_one() -> None:
    part = "some words of a long document "
    long = part * 80_000  # more than two chunks
    assert np.array_equal(word_hashes(long), np.tile(word_hashes(part), 80_000))


def test_texts_of_fewer_words_than_n() -> None:
    assert len(shingles("two words", 5)) == 1
    assert len(shingles("...", 5)) == 0
    assert len(shingles("", 5)) == 0
    assert len(ngram_hashes(word_hashes("a b c"), 3)) == 1


def test_no_collisions_among_many_words() -> None:
    hashes = word_hashes(" ".join(map(str, range(200_000))))
    assert len(np.unique(hashes)) == 200_000
