"""Tokenizers on files: train one, look at one, compare several. A source is a file, or, of files in several folders, a folder."""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from xmodel2.data.read import document_text, read_documents
from xmodel2.errors import XmodelError
from xmodel2.files import replaced_folder
from xmodel2.tokenizer import TRAINERS, Tokenizer, balanced_shares, by_source, load_any, tokenizer_statistics
from xmodel2.tokenizer.compare import (
    Comparison,
    compare_tokenizers,
    comparison_figure,
    comparison_markdown,
    summary_markdown,
)

_FIGURES = (".svg", ".png", ".pdf")


def train_on_files(
    files: Sequence[Path],
    vocab_size: int,
    out: Path,
    sample_bytes: int,
    balance: float | None,
    overwrite: bool,
    algorithm: Literal["unigram", "bpe"] = "unigram",
) -> Tokenizer:
    """Train a tokenizer on files and write its directory. Raises `XmodelError` if ``out`` exists or a file is bad.

    With ``balance`` each source has a share of the sample in proportion to its size on disk to that power.
    """
    if not files:
        raise XmodelError("tokenizer train: name at least one file to learn from")
    sources = by_source(files)
    shares = None
    if balance is not None:
        shares = balanced_shares(
            {name: sum(f.stat().st_size for f in found) for name, found in sources.items()}, balance
        )
    with replaced_folder(out, overwrite, "tokenizer train") as folder, _telling() as skipped:
        texts = _texts(sources, skipped)
        return TRAINERS[algorithm](texts, vocab_size, folder, shares=shares, max_bytes=sample_bytes)


@dataclass
class _Skipped:
    count: int = 0
    first: str = ""

    def __call__(self, message: str) -> None:
        self.first = self.first or message
        self.count += 1

    def __str__(self) -> str:
        return f"{self.count:,} record{'s' if self.count > 1 else ''} skipped, the first {self.first}"


@contextmanager
def _telling() -> Iterator[_Skipped]:
    """Yield what receives skipped records; the block's end, or its error, tells of them."""
    skipped = _Skipped()
    try:
        yield skipped
    except XmodelError as error:
        raise XmodelError(f"{error}; {skipped}" if skipped.count else str(error)) from None
    if skipped.count:
        print(skipped, file=sys.stderr)


def inspect_on_files(tokenizer: Path, files: Sequence[Path]) -> dict[str, Any]:
    """Return the figures of one tokenizer on all files together."""
    with _telling() as skipped:
        return tokenizer_statistics(load_any(tokenizer), map(document_text, read_documents(files, on_skip=skipped)))


def compare_on_files(tokenizers: Sequence[Path], files: Sequence[Path], figure: Path | None) -> tuple[Comparison, str]:
    """Return the figures by tokenizer and source, and tables of them; draw ``figure`` if it is given."""
    if not tokenizers:
        raise XmodelError("tokenizer inspect: name at least one tokenizer")
    if figure is not None and figure.suffix.lower() not in _FIGURES:
        raise XmodelError(f"tokenizer inspect: --figure {figure}: its name must end in one of {', '.join(_FIGURES)}")
    loaded = {name: load_any(path) for name, path in _named(tokenizers).items()}
    with _telling() as skipped:
        comparison = compare_tokenizers(loaded, _texts(by_source(files), skipped))
    if figure is not None:
        comparison_figure(comparison).savefig(figure)
    tables = f"characters a token\n\n{comparison_markdown(comparison)}\nall sources\n\n{summary_markdown(comparison)}"
    return comparison, tables


def _texts(sources: Mapping[str, list[Path]], on_skip: Callable[[str], None]) -> dict[str, Iterable[str]]:
    return {name: map(document_text, read_documents(files, on_skip=on_skip)) for name, files in sources.items()}


def _named(paths: Sequence[Path]) -> Mapping[str, Path]:
    """Return each path by its last part, or whole where two have the same."""
    names = [path.name for path in paths]
    return {str(path) if names.count(path.name) > 1 else path.name: path for path in paths}
