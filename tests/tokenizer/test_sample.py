"""The sample that a tokenizer learns from: shares, bounds, mistakes."""

from pathlib import Path

import pytest

from xmodel2.errors import XmodelError
from xmodel2.tokenizer.sample import balanced_shares, by_source, sample_texts


def documents(letter: str, count: int) -> list[str]:
    """Documents of 1,000 bytes, each with its number."""
    return [f"{number:06d}{letter * 994}" for number in range(count)]


def size(sample: list[str], letter: str) -> int:
    return sum(len(text) for text in sample if text.endswith(letter))


def test_shares_are_of_bytes() -> None:
    sources = {"a": documents("a", 500), "b": documents("b", 500), "c": documents("c", 20)}
    sample = sample_texts(sources, 100_000, {"a": 6, "b": 2, "c": 2})
    assert (size(sample, "a"), size(sample, "b"), size(sample, "c")) == (60_000, 20_000, 20_000)


def test_without_shares_the_sample_is_uniform() -> None:
    sample = sample_texts({"a": documents("a", 900), "b": documents("b", 300)}, 400_000)
    assert size(sample, "a") + size(sample, "b") == 400_000
    assert 260_000 < size(sample, "a") < 340_000
    assert sample == sorted(sample, key=lambda text: (text[-1], text))


def test_small_source_gives_all_and_zero_gives_none() -> None:
    sample = sample_texts({"a": documents("a", 3), "b": documents("b", 3)}, 100_000, {"a": 1, "b": 0})
    assert sample == documents("a", 3)


def test_source_is_sampled_alike_whatever_stands_beside_it() -> None:
    alone = sample_texts({"a": documents("a", 200)}, 50_000, {"a": 1}, seed=5)
    beside = sample_texts({"b": documents("b", 9), "a": documents("a", 200)}, 100_000, {"a": 1, "b": 1}, seed=5)
    assert alone == [text for text in beside if text.endswith("a")]
    assert alone != sample_texts({"a": documents("a", 200)}, 50_000, {"a": 1}, seed=6)


def test_long_document_is_drawn_in_part() -> None:
    book = "".join(f"line {number}\n" for number in range(100_000))
    sample = sample_texts({"book": [book]}, 100_000)
    assert 80_000 < sum(map(len, sample)) <= 100_000
    assert all(text in book and text.endswith("\n") for text in sample)


@pytest.mark.parametrize(
    ("shares", "complaint"),
    [
        ({"wiki": 1, "cod": 1}, r"shares.cod: there is no such source. Did you mean 'code'"),
        ({"wiki": 1}, "code is missing"),
        ({"wiki": 0, "code": 0}, "not all 0"),
        ({"wiki": -1, "code": 2}, "0 or more"),
    ],
)
def test_wrong_shares(shares: dict[str, float], complaint: str) -> None:
    with pytest.raises(XmodelError, match=complaint):
        sample_texts({"wiki": [], "code": []}, 1000, shares)


def test_balanced_shares() -> None:
    assert balanced_shares({"a": 8.0, "b": 2.0}, exponent=1) == {"a": 0.8, "b": 0.2}
    assert balanced_shares({"a": 8.0, "b": 2.0}, exponent=0) == {"a": 0.5, "b": 0.5}


@pytest.mark.parametrize("exponent", [-1.0, float("nan"), float("inf")])
def test_shares_are_balanced_by_a_power_that_is_a_number(exponent: float) -> None:
    with pytest.raises(XmodelError, match=r"balance: .* must be from 0"):
        balanced_shares({"a": 8.0, "b": 2.0}, exponent)


@pytest.mark.parametrize("size", [0, -5])
def test_a_sample_of_no_bytes(size: int) -> None:
    with pytest.raises(XmodelError, match=f"sample_bytes: {size} must be at least 1"):
        sample_texts({"a": documents("a", 3)}, size)


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["a/wiki.jsonl", "a/wiki.txt"], ["a/wiki.jsonl", "a/wiki.txt"]),
        (["en/train/0.jsonl", "zh/train/0.jsonl", "zh/train/1.jsonl"], ["en/train", "zh/train"]),
        (["a.jsonl", "n1/x.jsonl"], [Path.cwd().name, "n1"]),
    ],
)
def test_every_file_or_folder_is_a_source_with_a_name(files: list[str], names: list[str]) -> None:
    assert list(by_source(map(Path, files))) == names
