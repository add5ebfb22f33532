"""The text of a reproduction: shares, folders in turn, chats as text, what is missing."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.reproduction.conftest import chat, write_documents
from xmodel2.data.read import read_documents
from xmodel2.errors import XmodelError
from xmodel2.files import sha256_file
from xmodel2.recipe.preparation import load_preparation
from xmodel2.reproduction.corpus import FILES, open_corpus, write_corpus
from xmodel2.reproduction.kinds import INSTRUCTIONS, SFT_SHARE, TEXT


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def shares(sources: Path, stage: dict[str, Any], renormalise: bool = False) -> dict[str, float]:
    return {name: kind.share for name, kind in open_corpus(sources, renormalise).kinds.items() if name in stage}


def test_shares_of_each_stage_are_the_published_ones_and_add_up(sources: Path) -> None:
    assert sum(shares(sources, TEXT).values()) == pytest.approx(100)
    assert sum(shares(sources, INSTRUCTIONS).values()) == pytest.approx(100)
    assert shares(sources, TEXT)["code"] == pytest.approx(26.5)


def test_what_is_written_prepares(sources: Path, tmp_path: Path) -> None:
    out = tmp_path / "corpus"
    sizes = write_corpus(open_corpus(sources), out, 1000, 100, 500)
    assert set(sizes) == {*TEXT, *INSTRUCTIONS}
    assert all(sizes.values())
    for ending, algorithm in (("", "unigram"), ("-bpe", "bpe")):
        prepared = load_preparation(out / f"sources{ending}.toml")
        assert (prepared.tokenizer.vocab_size, prepared.tokenizer.algorithm) == (500, algorithm)
        assert prepared.sft_share == SFT_SHARE
        for source in prepared.sources.values():
            assert all(list(read_documents([out / name], strict=True)) for name in (*source.files, *source.heldout))
    assert json.loads((out / FILES).read_text()) == {p.name: sha256_file(p) for p in sorted(out.glob("*.jsonl"))}


def test_folders_of_a_kind_give_in_turn_and_all_their_files(sources: Path, tmp_path: Path) -> None:
    write_corpus(open_corpus(sources), tmp_path / "corpus", 1000, 100, 500)
    words = [row["text"].split() for row in read(tmp_path / "corpus" / "code.jsonl")]
    assert [name for name, *_ in words[:2]] == ["code-python", "code-javascript"]
    assert {(name, part) for name, part, *_ in words} == {
        (name, part) for name in TEXT["code"].folders for part in ("000", "001")
    }
    held = read(tmp_path / "corpus" / "code-heldout.jsonl")
    assert {row["text"].split()[1] for row in held} == {"heldout"}


def test_a_kind_takes_no_more_than_its_share(sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xmodel2.reproduction.corpus._LEAST_BYTES", 1)
    sizes = write_corpus(open_corpus(sources), tmp_path / "corpus", 500, 100, 500)
    longest = 150
    assert 0.265 * 600 * 4 <= sizes["code"] < 0.265 * 600 * 4 + longest
    assert 0.3 * 100 * 4 <= sizes["chain-of-thought"] < 0.3 * 100 * 4 + longest


def test_chats_are_text_where_the_kind_is_text(sources: Path, tmp_path: Path) -> None:
    write_documents(sources / "sft-p3" / "sft-p3-000.jsonl.gz", [chat("What is 4 + 5?", "It is 9.")])
    write_corpus(open_corpus(sources), tmp_path / "corpus", 1000, 100, 500)
    assert read(tmp_path / "corpus" / "flan.jsonl")[0] == {"text": "What is 4 + 5?\n\nIt is 9."}
    assert "messages" in read(tmp_path / "corpus" / "general.jsonl")[0]


def test_questions_without_their_steps_are_the_same_questions(sources: Path, tmp_path: Path) -> None:
    write_corpus(open_corpus(sources), tmp_path / "corpus", 1000, 100, 500)
    whole, short = (read(tmp_path / "corpus" / f"{name}.jsonl") for name in ("reasoning", "reasoning-answers"))
    assert [row["messages"][0] for row in whole] == [row["messages"][0] for row in short]
    assert all(
        row["answer"] == other["messages"][-1]["content"].removeprefix("#### ")
        for row, other in zip(whole, short, strict=True)
    )
    assert not any("answer" in row for row in short)
    held = {row["question"] for row in read(tmp_path / "corpus" / "reasoning-heldout.jsonl")}
    assert not held & {row["question"] for row in whole}


def test_missing_folders_are_all_named_and_shared_out_on_request_only(sources: Path, tmp_path: Path) -> None:
    for name in ("code-python", "code-javascript", "web-peps", "sft-cot"):
        shutil.rmtree(sources / name)
    with pytest.raises(XmodelError) as error:
        open_corpus(sources)
    for part in ("code-python, code-javascript", "web (", "web-peps", "sft-cot", "StarCoder 26.00", "--renormalise"):
        assert part in str(error.value)
    found = shares(sources, TEXT, renormalise=True)
    assert "code" not in found
    assert sum(found.values()) == pytest.approx(100)
    assert found["web"] / found["chinese"] == pytest.approx(45.81 / 20)
    assert sum(shares(sources, INSTRUCTIONS, renormalise=True).values()) == pytest.approx(100)
    sizes = write_corpus(open_corpus(sources, renormalise=True), tmp_path / "corpus", 1000, 100, 500)
    assert "code" not in sizes
    assert sizes["web"]
    assert "code" not in load_preparation(tmp_path / "corpus" / "sources.toml").sources


def test_a_folder_that_holds_no_corpus_is_refused(sources: Path, tmp_path: Path) -> None:
    with pytest.raises(XmodelError, match="no such folder"):
        open_corpus(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(XmodelError, match="none of the sources of pretraining text"):
        open_corpus(tmp_path / "empty", renormalise=True)
    for path in sources.glob("*/*-heldout.*"):
        path.unlink()
    with pytest.raises(XmodelError, match="no source of text has held-out files"):
        open_corpus(sources)


def test_a_kind_without_documents_is_named_and_nothing_is_left(sources: Path, tmp_path: Path) -> None:
    for path in (sources / "books-classic").glob("*-00?.*"):
        write_documents(path, [])
    with pytest.raises(XmodelError, match="no document in the files of books-classic"):
        write_corpus(open_corpus(sources), tmp_path / "corpus", 1000, 100, 500)
    assert not (tmp_path / "corpus").exists()


def test_the_fingerprint_is_of_all_that_is_read(sources: Path) -> None:
    before = open_corpus(sources).fingerprint
    write_documents(sources / "zh-poetry" / "zh-poetry-heldout.jsonl.gz", [{"text": "other"}])
    write_documents(sources / "factbook" / "factbook-002.jsonl.gz", [{"text": "more"}])
    after = open_corpus(sources).fingerprint
    assert {name for name in after if after[name] != before.get(name)} == {
        "zh-poetry/zh-poetry-heldout.jsonl.gz",
        "factbook/factbook-002.jsonl.gz",
    }
