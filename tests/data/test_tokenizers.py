"""Tokenizers on files: trained with balanced sources, inspected alone, compared side by side."""

import argparse
import inspect
import json
from pathlib import Path

import pytest

from xmodel2.data.tokenizers import compare_on_files, inspect_on_files, train_on_files
from xmodel2.errors import XmodelError

DIGITS = [f"{n} {n * n} {n * 7}" for n in range(300)]
WORDS = [line.strip() for line in inspect.getsource(argparse).splitlines() if len(line) > 30][:600]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    for name, texts in (("digits", DIGITS), ("words", WORDS)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "000.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return tmp_path


def test_train_inspect_and_compare(corpus: Path) -> None:
    files = sorted(corpus.glob("*/000.jsonl"))
    tokenizer = train_on_files(files, 420, corpus / "tok", 100_000, 0.5, False)
    assert tokenizer.vocab_size == 420
    assert inspect_on_files(corpus / "tok", files)["documents"] == 300 + len(WORDS)
    train_on_files(files[:1], 368, corpus / "other", 100_000, None, False)
    comparison, tables = compare_on_files([corpus / "tok", corpus / "other"], files, corpus / "figure.svg")
    assert comparison["tok"]["words"]["chars_per_token"] > comparison["other"]["words"]["chars_per_token"]
    assert "| words |" in tables
    assert (corpus / "figure.svg").read_text().count("<svg") == 1


def test_mistakes(corpus: Path) -> None:
    with pytest.raises(XmodelError, match="at least one file"):
        train_on_files([], 400, corpus / "tok", 1000, None, False)
    with pytest.raises(XmodelError, match="at least one tokenizer"):
        compare_on_files([], [corpus / "words" / "000.jsonl"], None)
    with pytest.raises(XmodelError, match=r"f\.xyz: its name must end in one of \.svg, "):
        compare_on_files([corpus / "tok"], [corpus / "words" / "000.jsonl"], corpus / "f.xyz")


def test_records_that_are_no_documents_are_told(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = corpus / "bad.jsonl"
    bad.write_text('not json\n{"text": 5}\n')
    with pytest.raises(XmodelError, match=r"the text is empty; .*; 2 records skipped, the first .*bad\.jsonl:1: "):
        train_on_files([bad], 400, corpus / "tok", 1000, None, False)
    train_on_files([bad, corpus / "digits" / "000.jsonl"], 368, corpus / "tok", 100_000, None, False)
    assert "2 records skipped, the first" in capsys.readouterr().err
    files = [corpus / "digits" / "000.jsonl", bad]
    assert inspect_on_files(corpus / "tok", files)["documents"] == 300
    assert "2 records skipped, the first" in capsys.readouterr().err
    with pytest.raises(XmodelError, match=r"source bad: the text is empty; .*; 2 records skipped"):
        compare_on_files([corpus / "tok"], [files[1]], None)
