"""A small tokenizer of ours, for models of random weights."""

from pathlib import Path

import pytest

from xmodel2.tokenizer import train_unigram

TEXTS = [
    "The model was trained on text and code, and it is small.",
    "def main():\n    return [1, 2, 3]  # a list\n",
    "A list of numbers: 1, 22, 333, 4444 and 5.",
] * 40


@pytest.fixture(scope="session")
def tokenizer_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer of ours, 380 pieces."""
    out = tmp_path_factory.mktemp("tokenizer") / "tokenizer"
    train_unigram(TEXTS, 380, out)
    return out
