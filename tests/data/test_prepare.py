"""From raw files to shards, and everything that can be wrong with the files."""

import argparse
import gzip
import inspect
import json
from pathlib import Path

import pytest
import zstandard

from xmodel2.data.inspect import inspect_data
from xmodel2.data.read import read_documents
from xmodel2.data.shards import open_shards
from xmodel2.data.sources import prepare_from_file
from xmodel2.errors import XmodelError

CHAT = {"messages": [{"role": "user", "content": "2 + 2 = ?"}, {"role": "assistant", "content": "4"}]}


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    source = inspect.getsource(argparse)
    texts = [f"Document {n}: the quick brown fox. {source[n * 200 : n * 200 + 200]}" for n in range(300)]
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()
    (tmp_path / "plain.jsonl").write_bytes(lines[:4000].rpartition(b"\n")[0] + b"\n")
    (tmp_path / "packed.jsonl.gz").write_bytes(gzip.compress(lines))
    (tmp_path / "packed.jsonl.zst").write_bytes(zstandard.compress(lines))
    chats = [{"messages": [{**CHAT["messages"][0], "content": f"{n} + 2 = ?"}, CHAT["messages"][1]]} for n in range(50)]
    (tmp_path / "chat.jsonl").write_text("".join(json.dumps(c) + "\n" for c in chats))
    (tmp_path / "held.jsonl").write_text("".join(json.dumps(c) + "\n" for c in [CHAT, chats[0]]))
    (tmp_path / "sources.toml").write_text(
        '[tokenizer]\nvocab_size = 600\n[sources.web]\nfiles = ["packed.jsonl.gz"]\n'
        '[sources.chat]\nfiles = ["chat.jsonl"]\nkind = "sft"\nheldout = ["held.jsonl"]\n'
    )
    return tmp_path


def test_every_kind_of_file_reads_the_same(corpus: Path) -> None:
    zst, gz = (list(read_documents([corpus / f"packed.jsonl.{kind}"])) for kind in ("zst", "gz"))
    assert zst == gz
    assert len(gz) == 300


def test_bad_lines_are_skipped_and_named_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(b'{"text": "ok"}\n{"text": \n[1]\n{"txt": "x"}\n{"text": "\xff"}\n{"messages": [{"role": 1}]}\n')
    skipped: list[str] = []
    assert list(read_documents([path], on_skip=skipped.append)) == [{"text": "ok"}]
    assert [line.split(":")[1] for line in skipped] == ["2", "3", "4", "5", "6"]
    assert "UTF-8" in skipped[3]
    with pytest.raises(XmodelError, match=r"bad\.jsonl:2: not valid JSON"):
        list(read_documents([path], strict=True))


@pytest.mark.parametrize(("name", "words"), [("absent.jsonl", "no such file"), ("x.csv", "unknown kind of file")])
def test_missing_and_unknown_files(tmp_path: Path, name: str, words: str) -> None:
    with pytest.raises(XmodelError, match=words):
        list(read_documents([tmp_path / name]))


def test_damaged_archive(tmp_path: Path) -> None:
    path = tmp_path / "cut.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"text": "x"}\n' * 1000)[:40])
    with pytest.raises(XmodelError, match=r"cut\.jsonl\.gz: cannot be read"):
        list(read_documents([path]))


def test_prepare_inspect_and_refuse_to_overwrite(corpus: Path) -> None:
    counts = prepare_from_file(corpus / "sources.toml", corpus / "out")
    assert counts["web"]["train"]["documents"] + counts["web"]["heldout"]["documents"] == 300
    assert counts["chat"]["heldout"]["documents"] == 2
    assert counts["chat"]["train"]["documents"] == 48
    assert counts["chat"]["duplicates dropped"] == 2
    shards = open_shards(corpus / "out", verify=True)
    assert shards.sources["chat"].kind == "sft"
    report = inspect_data(corpus / "out")
    assert "quick brown fox" in report["web"]["samples"]["0"]
    with pytest.raises(XmodelError, match="already exists"):
        prepare_from_file(corpus / "sources.toml", corpus / "out")
    prepare_from_file(corpus / "sources.toml", corpus / "out", overwrite=True)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[tokenizer]\nvocab_size = 600\n", r"\[sources\] is missing"),
        ("[tokenizr]\n[sources.a]\nfiles=['x']\n", "Did you mean 'tokenizer'"),
        ("[tokenizer]\nvocab_size=600\n[sources.a]\nfile=['x']\n", "Did you mean 'files'"),
        ("[tokenizer]\nvocab_size=600\n[sources.a]\nfiles=['*.nothing']\n", "no file matches"),
        ("[tokenizer]\nvocab_size=600\n[sources.a]\nfiles=['plain.jsonl']\nkind='web'\n", "allowed: text, sft"),
        ("[tokenizer]\nvocab_size=90000\n[sources.a]\nfiles=['plain.jsonl']\n", "vocab"),
        ("nonsense", "not a readable TOML"),
    ],
)
def test_bad_sources_file(corpus: Path, text: str, words: str) -> None:
    (corpus / "bad.toml").write_text(text)
    with pytest.raises(XmodelError, match=words):
        prepare_from_file(corpus / "bad.toml", corpus / "out2")


def test_empty_corpus(corpus: Path) -> None:
    (corpus / "empty.jsonl").write_text("\n")
    (corpus / "bad.toml").write_text("[tokenizer]\nvocab_size=600\n[sources.a]\nfiles=['empty.jsonl']\n")
    with pytest.raises(XmodelError):
        prepare_from_file(corpus / "bad.toml", corpus / "out3")
