"""Commands on tokenizers."""

from pathlib import Path
from typing import Literal

import tyro

from xmodel2.arguments import Flag
from xmodel2.output import busy, print_dict, print_json


def tokenizer_train(
    files: tyro.conf.Positional[tuple[Path, ...]],
    /,
    *,
    vocab_size: int,
    out: Path,
    sample_bytes: int = 8_000_000,
    balance: float | None = None,
    algorithm: Literal["unigram", "bpe"] = "unigram",
    overwrite: Flag = False,
) -> None:
    """Train a Unigram (or BPE) tokenizer on text, jsonl or parquet files.

    Example: xmodel2 tokenizer train corpus/*.jsonl.zst --vocab-size 8192 --out tokenizer

    Args:
        files: .txt, .parquet, .jsonl, also packed as .gz or .zst
        vocab_size: number of pieces, special tokens and bytes included
        out: tokenizer directory to write (Hugging Face layout)
        sample_bytes: bytes of text to learn from, drawn from all files
        balance: share of each source (file, or of several folders each) in the sample as its size to this power; 0 makes all equal
        algorithm: unigram as the report, or byte-level bpe to compare with
        overwrite: replace an earlier tokenizer in that directory
    """
    from xmodel2.data.tokenizers import train_on_files

    with busy("training the tokenizer"):
        tokenizer = train_on_files(files, vocab_size, out, sample_bytes, balance, overwrite, algorithm)
    print(f"{out}: {tokenizer.vocab_size} pieces")


def tokenizer_inspect(
    tokenizers: tyro.conf.Positional[tuple[Path, ...]],
    /,
    *,
    files: tuple[Path, ...],
    figure: Path | None = None,
    json: Flag = False,
) -> None:
    """Compression and coverage of a tokenizer on text; of several, side by side by source.

    Example: xmodel2 tokenizer inspect tokenizer other/tokenizer.json --files heldout/*.jsonl.gz

    Args:
        tokenizers: tokenizer directories, tokenizer.json or SentencePiece .model files
        files: text, jsonl or parquet files to measure on
        figure: .svg or .png to draw characters a token by source into
        json: print one JSON object
    """
    from xmodel2.data.tokenizers import compare_on_files, inspect_on_files

    if len(tokenizers) == 1 and figure is None:
        return print_dict(inspect_on_files(tokenizers[0], files), json)
    comparison, tables = compare_on_files(tokenizers, files, figure)
    print_json(comparison) if json else print(tables)
