"""One small tokenizer, trained once, for every test of this room."""

import argparse
import inspect
import textwrap
from pathlib import Path

import pytest

from xmodel2.tokenizer import Tokenizer, load_tokenizer, train_unigram

PROSE = "The naïve café in Größe 12: it's <0x41> </s> <|end|>, costs 3.50 €.\n"
CODE = "def f(x):\n    if x > 1:\n\treturn [x * 2, 'a']\n        # again\n\n"


@pytest.fixture(scope="session")
def texts() -> list[str]:
    """Code and English of the standard library and some other characters, some 120 kB."""
    return [inspect.getsource(argparse), inspect.getsource(textwrap), PROSE * 20, CODE * 20]


@pytest.fixture(scope="session")
def directory(texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a trained tokenizer."""
    out = tmp_path_factory.mktemp("tokenizer")
    train_unigram(texts, 600, out)
    return out


@pytest.fixture(scope="session")
def tokenizer(directory: Path) -> Tokenizer:
    """The loaded tokenizer."""
    return load_tokenizer(directory)
