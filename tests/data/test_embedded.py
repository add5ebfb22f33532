"""The embedded corpus: the three sources, their budget, their order, and that they share no text."""

import pytest

from xmodel2.data.embedded import embedded_corpus

BUDGET = 60_000
LARGEST = 200_000  # bytes that the last document may go over the budget


@pytest.fixture(scope="module")
def corpus() -> dict[str, list[str]]:
    """A small corpus, made once."""
    return embedded_corpus(BUDGET)


def test_every_source_has_text_within_its_budget(corpus: dict[str, list[str]]) -> None:
    assert set(corpus) == {"docs", "code", "web"}
    for documents in corpus.values():
        size = sum(len(text.encode()) for text in documents)
        assert 0.9 * BUDGET < size < BUDGET + LARGEST
        assert min(len(text.encode()) for text in documents) >= 200


def test_same_environment_gives_the_same_corpus(corpus: dict[str, list[str]]) -> None:
    assert embedded_corpus(BUDGET) == corpus


def test_no_long_paragraph_stands_twice(corpus: dict[str, list[str]]) -> None:
    seen: set[str] = set()
    for text in (text for documents in corpus.values() for text in documents):
        for paragraph in text.split("\n\n"):
            plain = " ".join(paragraph.split()).lower()
            if len(plain) >= 50:
                assert plain not in seen
                seen.add(plain)


def test_code_is_python_and_docs_are_prose(corpus: dict[str, list[str]]) -> None:
    def share(texts: list[str], word: str) -> float:
        lines = [line for text in texts for line in text.splitlines() if line.strip()]
        return sum(line.lstrip().startswith(word) for line in lines) / len(lines)

    assert share(corpus["code"], "def ") > 5 * share(corpus["docs"], "def ")
