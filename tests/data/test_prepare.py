"""From raw files to shards, and everything that can be wrong with the files."""

import argparse
import gzip
import inspect
import json
from pathlib import Path

import pytest
import zstandard

from xmodel2.data.inspect import inspect_data
from xmodel2.data.prepare import Options, prepare
from xmodel2.data.questions import heldout_answers, read_questions
from xmodel2.data.shards import open_shards, verify_shards
from xmodel2.errors import XmodelError
from xmodel2.recipe import load_recipe
from xmodel2.tokenizer import load_tokenizer

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


def test_prepare_inspect_and_refuse_to_overwrite(corpus: Path) -> None:
    counts = prepare(corpus / "sources.toml", corpus / "out")["sources"]
    assert counts["web"]["train"]["documents"] + counts["web"]["heldout"]["documents"] == 300
    assert counts["chat"]["heldout"]["documents"] == 2
    assert counts["chat"]["train"]["documents"] == 48
    assert counts["chat"]["duplicates"]["exact"] == 2
    shards = open_shards(corpus / "out", verify=True)
    assert shards.sources["chat"].kind == "sft"
    report = inspect_data(corpus / "out")
    assert "quick brown fox" in report["sources"]["web"]["samples"][0]
    with pytest.raises(XmodelError, match="already exists"):
        prepare(corpus / "sources.toml", corpus / "out")
    prepare(corpus / "sources.toml", corpus / "out", Options(overwrite=True))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[tokenizer]\nvocab_size = 600\n", "sources is missing"),
        ("[tokenizr]\n[sources.a]\nfiles=['x']\n", "Did you mean 'tokenizer'"),
        ("[tokenizer]\nvocab_size=600\n[sources.a]\nfile=['x']\n", "Did you mean 'files'"),
        ("[tokenizer]\nvocab_size=600\n[sources.a]\nfiles=['*.nothing']\n", "no file matches"),
        ("[tokenizer]\nvocab_size=600\n[sources.a]\nfiles=['plain.jsonl']\nkind='web'\n", "should be 'text' or 'sft'"),
        ("[tokenizer]\nvocab_size=600\n[sources.a]\nfiles=['']\n", "no file matches ''"),
        ("[tokenizer]\nvocab_size=90000\n[sources.a]\nfiles=['plain.jsonl']\n", "vocab"),
        (
            "[tokenizer]\npath='nowhere'\n[sources.a]\nfiles=['packed.jsonl.gz']\n",
            r"nowhere/tokenizer\.json: not found",
        ),
        (
            "[tokenizer]\nvocab_size=600\n[sources.a]\nfiles=['*']\n",
            r"sources\.a\.files: .*bad\.toml: unknown kind of file",
        ),
        ("nonsense", "not valid TOML"),
    ],
)
def test_bad_sources_file(corpus: Path, text: str, words: str) -> None:
    (corpus / "bad.toml").write_text(text)
    with pytest.raises(XmodelError, match=words):
        prepare(corpus / "bad.toml", corpus / "out2")
    assert not (corpus / ".out2.work" / "clean").exists() or "90000" in text  # told before anything is read


def test_empty_corpus(corpus: Path) -> None:
    (corpus / "empty.jsonl").write_text("\n")
    (corpus / "bad.toml").write_text("[tokenizer]\nvocab_size=600\n[sources.a]\nfiles=['empty.jsonl']\n")
    with pytest.raises(XmodelError, match="source a has no training document left; of 0 read"):
        prepare(corpus / "bad.toml", corpus / "out3")


def test_what_was_there_survives_a_preparation_that_fails(corpus: Path) -> None:
    prepare(corpus / "sources.toml", corpus / "out")
    before = (corpus / "out" / "index.json").read_text()
    (corpus / "packed.jsonl.gz").write_bytes(b"damaged")
    with pytest.raises(XmodelError, match="damaged"):
        prepare(corpus / "sources.toml", corpus / "out", Options(overwrite=True))
    assert (corpus / "out" / "index.json").read_text() == before
    assert len(verify_shards(corpus / "out")) > 4


def test_only_a_data_directory_is_overwritten_and_never_the_inputs(corpus: Path) -> None:
    with pytest.raises(XmodelError, match="was not made by `xmodel2 data prepare`"):
        prepare(corpus / "sources.toml", corpus, Options(overwrite=True))
    prepare(corpus / "sources.toml", corpus / "out")
    text = (corpus / "sources.toml").read_text().replace("vocab_size = 600", 'path = "out/tokenizer"')
    (corpus / "again.toml").write_text(text)
    with pytest.raises(XmodelError, match="lies inside --out"):
        prepare(corpus / "again.toml", corpus / "out", Options(overwrite=True))
    text = (corpus / "sources.toml").read_text()
    (corpus / "out" / "sources.toml").write_text(text.replace('["', '["../'))
    with pytest.raises(XmodelError, match=r"sources\.toml lies inside --out"):
        prepare(corpus / "out" / "sources.toml", corpus / "out", Options(overwrite=True))
    assert verify_shards(corpus / "out")


def test_a_link_is_followed_when_overwriting(corpus: Path) -> None:
    (corpus / "disk").mkdir()
    (corpus / "link").symlink_to(corpus / "disk")
    for overwrite in (False, True, True):
        prepare(corpus / "sources.toml", corpus / "link", Options(overwrite=overwrite))
    assert (corpus / "link").is_symlink()
    assert (corpus / "disk" / "index.json").exists()
    assert not list(corpus.glob(".*"))


def test_another_tokenizer_in_the_data_is_found(corpus: Path) -> None:
    prepare(corpus / "sources.toml", corpus / "out")
    with open(corpus / "out" / "tokenizer" / "tokenizer.json", "a") as handle:
        handle.write(" ")
    for check in (open_shards, verify_shards):
        with pytest.raises(XmodelError, match="not the tokenizer that made the tokens"):
            check(corpus / "out")


def test_equal_questions_with_other_answers_are_no_duplicates(corpus: Path) -> None:
    turns = [{**CHAT["messages"][0]}, {**CHAT["messages"][1]}]
    other = [{**turns[0], "role": "assistant"}, turns[1]]
    (corpus / "chat.jsonl").write_text("".join(json.dumps({"messages": m}) + "\n" for m in (turns, other, turns)))
    (corpus / "held.jsonl").write_text(json.dumps({"messages": [turns[0], {**turns[1], "content": "5"}]}) + "\n")
    counts = prepare(corpus / "sources.toml", corpus / "out")["sources"]
    assert counts["chat"]["train"]["documents"] == 2
    assert counts["chat"]["duplicates"]["exact"] == 1


def test_questions_with_any_line_separator_come_back(corpus: Path) -> None:
    question = {**CHAT, "answer": "4", "task": "odd \u2028 separators \x85 \x0b"}
    (corpus / "held.jsonl").write_text(json.dumps(question) + "\n")
    prepare(corpus / "sources.toml", corpus / "out")
    assert read_questions(corpus / "out") == [question]


def test_chats_also_as_text(corpus: Path) -> None:
    sources = (corpus / "sources.toml").read_text() + "as_text = true\n[deduplicate]\nsft = ['exact', 'simhash']\n"
    held = [{**CHAT, "answer": "4"}, json.loads((corpus / "chat.jsonl").read_text().split("\n")[0])]
    (corpus / "held.jsonl").write_text("".join(json.dumps(chat) + "\n" for chat in held))
    for name, chosen in (("given", sources), ("fraction", sources.replace('heldout = ["held.jsonl"]', ""))):
        chosen = chosen.replace("as_text", "heldout_fraction = 0.3\nas_text") if name == "fraction" else chosen
        (corpus / "both.toml").write_text(chosen)
        counts = prepare(corpus / "both.toml", corpus / name)["sources"]
        assert list(counts) == ["web", "chat", "chat-as-text"]
        assert counts["chat"]["heldout"]["documents"] > 0
        assert counts["chat-as-text"]["heldout"]["documents"] == 0  # what is held out of one is not seen in the other
        shards, tokenizer = open_shards(corpus / name, verify=True), load_tokenizer(corpus / name / "tokenizer")
        chats, texts = shards.source("chat").train, shards.source("chat-as-text").train
        assert chats is not None
        assert texts is not None
        assert texts.documents == chats.documents
        assert "loss" not in texts.files
        for number in range(chats.documents):
            chat = tokenizer.decode(chats.document(number).tolist())
            asked, said = chat.removeprefix("<s><|user|>").removesuffix("<|end|></s>").split("<|end|><|assistant|>")
            assert texts.document(number).tolist() == tokenizer.encode_document(f"{asked}\n\n{said}")
        mixture = load_recipe(corpus / name / "mixture.toml").stages
        assert mixture.decay.sft_mixture.keys() == {"chat"}
        assert "chat-as-text" not in mixture.stable.mixture
    assert len(read_questions(corpus / "given")) == 1
    answers = heldout_answers(shards, ["chat"], tokenizer, most=3)
    assert len(answers) == 3
    assert answers[0]["task"] == "chat"
    assert answers[0]["messages"][1] == CHAT["messages"][1]


def test_chats_in_a_source_of_text_are_written_as_text(corpus: Path) -> None:
    (corpus / "text.toml").write_text(
        "[tokenizer]\nvocab_size = 600\n[sources.a]\nfiles = ['chat.jsonl', 'packed.jsonl.gz']\nheldout = ['held.jsonl']\n"
    )
    prepare(corpus / "text.toml", corpus / "out")
    shards, tokenizer = open_shards(corpus / "out", verify=True), load_tokenizer(corpus / "out" / "tokenizer")
    split = shards.source("a").heldout
    assert split is not None
    assert split.document(0).tolist() == tokenizer.encode_document("2 + 2 = ?\n\n4")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("[sources.web]\nas_text = true\nfiles = ['plain.jsonl']\n", "as_text is for sources of kind sft"),
        (
            "[sources.a]\nkind = 'sft'\nas_text = true\nfiles = ['chat.jsonl']\n[sources.a-as-text]\nfiles = ['plain.jsonl']\n",
            r"sources\.a\.as_text makes a source a-as-text, and there is one",
        ),
    ],
)
def test_what_can_not_be_had_as_text(corpus: Path, line: str, words: str) -> None:
    (corpus / "bad.toml").write_text(f"[tokenizer]\nvocab_size = 600\n{line}")
    with pytest.raises(XmodelError, match=words):
        prepare(corpus / "bad.toml", corpus / "out4")
