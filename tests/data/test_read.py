"""Documents out of files of every kind, and everything that can be wrong with a file or a record."""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import zstandard
from upath import UPath

from xmodel2.data.read import read_documents
from xmodel2.errors import XmodelError
from xmodel2.recipe.preparation import FieldSettings

CHAT = {"messages": [{"role": "user", "content": "2 + 2 = ?"}, {"role": "assistant", "content": "4"}]}
RECORDS = [{"text": f"Document {n}: the quick brown fox"} for n in range(300)]


def write(path: Path, records: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_every_kind_of_file_reads_the_same(tmp_path: Path) -> None:
    lines = write(tmp_path / "a.jsonl", RECORDS).read_bytes()
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines))
    (tmp_path / "a.jsonl.zst").write_bytes(zstandard.compress(lines))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(RECORDS), tmp_path / "a.parquet")
    UPath("memory://corpus/a.jsonl.gz").write_bytes(gzip.compress(lines))
    for name in ("a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "a.parquet"):
        assert list(read_documents([tmp_path / name])) == RECORDS
    assert list(read_documents(["memory://corpus/a.jsonl.gz"])) == RECORDS


def test_field_mapping_instruction_triples_and_foreign_roles(tmp_path: Path) -> None:
    triple = FieldSettings(instruction="instruction", input="input", output="meta.answer", system="system")
    records = [
        {"instruction": "Add", "input": "2 and 3", "meta": {"answer": "5"}, "system": "Be brief"},
        {"instruction": "Sing", "input": "", "meta": {"answer": "la"}},
        {"instruction": "Lost", "input": ""},
    ]
    skipped: list[str] = []
    first, second = read_documents([write(tmp_path / "t.jsonl", records)], on_skip=skipped.append, fields=triple)
    assert [turn["role"] for turn in first["messages"]] == ["system", "user", "assistant"]
    assert first["messages"][1]["content"] == "Add\n\n2 and 3"
    assert second == {"messages": [{"role": "user", "content": "Sing"}, {"role": "assistant", "content": "la"}]}
    assert skipped[0].endswith("t.jsonl:3: meta.answer is missing")
    share = FieldSettings(
        messages="conversations", role="from", content="value", roles={"human": "user", "gpt": "assistant"}
    )
    turns = [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "ho"}]
    [chat] = read_documents([write(tmp_path / "s.jsonl", [{"conversations": turns}])], fields=share)
    assert chat == {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]}
    [named] = read_documents(
        [write(tmp_path / "n.jsonl", [{"raw": {"body": "x"}}])], fields=FieldSettings(text="raw.body")
    )
    assert named == {"text": "x"}


def test_a_known_answer_may_be_a_number(tmp_path: Path) -> None:
    answers = [4, 2.5, "four", True, None, 4.0, float("nan")]
    path = write(tmp_path / "a.jsonl", [{**CHAT, "answer": answer} for answer in answers])
    assert [document.get("answer") for document in read_documents([path])] == [
        *("4", "2.5", "four", None, None, "4", None)
    ]


def test_truncated_and_foreign_parquet_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(RECORDS), path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(XmodelError, match=r"a\.parquet: cannot be read, or is damaged"):
        list(read_documents([path]))
    path.write_bytes(b"")
    with pytest.raises(XmodelError, match=r"a\.parquet: cannot be read, or is damaged"):
        list(read_documents([path]))


def test_a_row_of_parquet_that_is_not_utf8_is_skipped_alone(tmp_path: Path) -> None:
    raw = pyarrow.array([b"ok", b"a\xff\xfe", b"fine"]).view(pyarrow.string())
    pyarrow.parquet.write_table(pyarrow.table({"text": raw}), tmp_path / "bad.parquet")
    skipped: list[str] = []
    documents = read_documents([tmp_path / "bad.parquet"], on_skip=skipped.append)
    assert [document["text"] for document in documents] == ["ok", "fine"]
    assert skipped == [f"{tmp_path}/bad.parquet:2: not valid UTF-8 at byte 1"]
    with pytest.raises(XmodelError, match=r"bad\.parquet:2: not valid UTF-8"):
        list(read_documents([tmp_path / "bad.parquet"], strict=True))


def test_columns_of_parquet_that_nobody_asked_for_are_not_read(tmp_path: Path) -> None:
    columns = {
        "raw": [{"body": {"x": "one"}}, {"body": {"x": "two"}}],
        "id": pyarrow.array([1 << 60, 0], pyarrow.timestamp("us")),  # a year that Python has no date for
        "answer": ["4", "5"],
    }
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet")
    found = read_documents([tmp_path / "a.parquet"], fields=FieldSettings(text="raw.body.x"))
    assert [document["text"] for document in found] == ["one", "two"]
    skipped: list[str] = []
    assert not list(read_documents([tmp_path / "a.parquet"], on_skip=skipped.append))
    assert [message.partition(".parquet")[2] for message in skipped] == [
        f":{n}: neither text nor messages" for n in (1, 2)
    ]


def test_an_unknown_store_is_named() -> None:
    with pytest.raises(XmodelError, match="foo://bucket"):
        list(read_documents(["foo://bucket/a.jsonl"]))


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.txt"])
def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path, name: str) -> None:
    content = b"\xef\xbb\xbf" + (b"x" if name == "a.txt" else b'{"text": "x"}\n')
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    assert list(read_documents([tmp_path / name], strict=True)) == [{"text": "x"}]


def test_zstd_of_a_long_window(tmp_path: Path) -> None:
    packer = zstandard.ZstdCompressor(
        compression_params=zstandard.ZstdCompressionParameters.from_level(1, window_log=28)
    ).compressobj()
    (tmp_path / "long.jsonl.zst").write_bytes(packer.compress(LINES) + packer.flush())
    assert len(list(read_documents([tmp_path / "long.jsonl.zst"]))) == 5000


def test_a_text_beside_no_messages(tmp_path: Path) -> None:
    assert list(read_documents([write(tmp_path / "a.jsonl", [{"text": "x", "messages": []}])])) == [{"text": "x"}]


def test_mixed_line_ends_nul_bytes_and_empty_documents(tmp_path: Path) -> None:
    path = tmp_path / "mixed.jsonl"
    path.write_bytes(
        b'{"text": "a\\r\\nb"}\r\n{"text": "c"}\r{"text": "d"}\n\n{"text": "nul \\u0000"}\n{"text": " \\n"}\n\0\0\0\n{"text": "e"}'
    )
    skipped: list[str] = []
    assert [document["text"] for document in read_documents([path], on_skip=skipped.append)] == ["a\nb", "c", "d", "e"]
    assert [line.split(": ", 1)[1].split(":")[0] for line in skipped] == [
        "a NUL character, so probably not text",
        "no text in it",
        "not valid JSON",
    ]


def test_a_single_line_of_many_megabytes_is_one_document(tmp_path: Path) -> None:
    text = "word " * 2_000_000
    line = json.dumps({"text": text}).encode()
    (tmp_path / "long.jsonl.zst").write_bytes(zstandard.compress(line))
    (tmp_path / "long.txt").write_text(text)
    assert [document["text"] for document in read_documents([tmp_path / "long.jsonl.zst", tmp_path / "long.txt"])] == [
        text
    ] * 2


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


LINES = "".join(json.dumps({"text": f"line {n} {n * n}"}) + "\n" for n in range(5000)).encode()
GZ, ZST = gzip.compress(LINES), zstandard.ZstdCompressor(write_checksum=True).compress(LINES)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("cut.jsonl.gz", GZ[: len(GZ) // 2]),
        ("cut.jsonl.zst", ZST[: len(ZST) // 2]),
        ("cut-late.jsonl.zst", ZST[:-1]),
        ("flipped.jsonl.gz", GZ[:500] + bytes([GZ[500] ^ 0xFF]) + GZ[501:]),
        ("flipped.jsonl.zst", ZST[:500] + bytes([ZST[500] ^ 0xFF]) + ZST[501:]),
        ("other.jsonl.zst", b"not zstd at all"),
        ("other.jsonl.gz", b"not gzip at all"),
    ],
)
def test_damaged_archives_are_named_and_never_half_read_in_silence(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(XmodelError, match=rf"{name}: cannot be read, or is damaged"):
        list(read_documents([path], on_skip=lambda _: None))


def test_several_zstd_frames_and_no_newline_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "two.jsonl.zst"
    path.write_bytes(zstandard.compress(LINES[:1000]) + zstandard.compress(LINES[1000:-1]))
    assert len(list(read_documents([path], strict=True))) == 5000


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ({"text": "\ud83d"}, "lone surrogate"),
        ({"messages": [{"role": "human", "content": "hi"}]}, ".role is not one of user, assistant, system: 'human'"),
        ({"text": "x", "messages": [{"role": "user"}]}, "lacks content"),
        ({"messages": [CHAT["messages"][0], {"role": "system", "content": "x"}]}, "must come first"),
        ({"messages": []}, "at least one"),
        ({"text": ["x"]}, "text is not text"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}]},
            "messages[0].content is not text",
        ),
    ],
)
def test_documents_that_cannot_be_used_are_skipped_by_file_and_line(
    tmp_path: Path, document: dict[str, object], reason: str
) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(json.dumps({"text": "ok"}) + "\n" + json.dumps(document) + "\n")
    skipped: list[str] = []
    assert list(read_documents([path], on_skip=skipped.append)) == [{"text": "ok"}]
    assert skipped[0].startswith(f"{path}:2: ")
    assert reason in skipped[0]
