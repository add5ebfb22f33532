"""Articles come out of every form of file they go around in; what is damaged is named by file and line."""

import bz2
import contextlib
import gzip
import io
import json
import random
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import zstandard

from xmodel2.errors import XmodelError
from xmodel2.eval.agents.article_files import article_files, read_articles
from xmodel2.eval.agents.article_store import Article

SHARED = Path(__file__).parents[4] / "shared" / "data"
ED_WOOD = Article("Ed Wood", "Ed Wood was a filmmaker. He was an American.")
SENTENCES = ["Ed Wood was a filmmaker.", " He was an American."]


def lines(*rows: Any) -> bytes:
    """Return JSON lines."""
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def read(*paths: Path) -> list[Article]:
    """Return all articles of files."""
    return list(read_articles(article_files(paths)))


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"question": "?", "context": [["Ed Wood", SENTENCES]]}, [ED_WOOD]),
        ({"question": "?", "context": {"title": ["Ed Wood"], "sentences": [SENTENCES]}}, [ED_WOOD]),
        ({"context": [["Ed Wood", ["Ed Wood was a filmmaker.", "He was an American."]]]}, [ED_WOOD]),
        ({"context": []}, []),
        ({"id": "12", "url": "u", "title": "Ed Wood", "text": SENTENCES, "text_with_links": []}, [ED_WOOD]),
        ({"title": "A", "text": [["A"], ["One.", " Two."], ["Three."]]}, [Article("A", "One. Two.\nThree.")]),
        (
            {"id": "Ed_Wood_-LRB-film-RRB-", "text": "A film -LRB- of 1994 -RRB- .", "lines": "0\tA film\tfilm"},
            [Article("Ed Wood (film)", "A film (of 1994) .")],
        ),
        ({"id": "", "text": "", "lines": ""}, []),
        ({"index": {"_type": "_doc", "_id": "12"}}, []),
        ({"namespace": 1, "title": "Talk:A", "text": "x"}, []),
        (
            {
                "namespace": 0,
                "title": "A",
                "text": "All of it.",
                "opening_text": "It begins.",
                "redirect": [{"namespace": 0, "title": "B"}, {"namespace": 4, "title": "WP:B"}],
            },
            [Article("A", "It begins.\nAll of it.", ("B",))],
        ),
        (
            {"namespace": 0, "title": "A", "text": "It. All.", "opening_text": "It.", "redirect": []},
            [Article("A", "It. All.")],
        ),
        ({"title": "A", "text": "A\n\nx", "redirects": ["B", "C"]}, [Article("A", "x", ("B", "C"))]),
        ({"title": "A", "text": "x", "redirects": None, "redirect": None}, [Article("A", "x")]),
        ({"text": "Ed Wood\n\nEd Wood was a filmmaker. He was an American."}, [ED_WOOD]),
        ({"text": "= Imagism =\n Imagism was ."}, [Article("Imagism", "Imagism was .")]),
    ],
)
def test_every_form_is_recognised_by_its_fields(tmp_path: Path, row: Any, expected: list[Article]) -> None:
    for name, content in (("a.jsonl", lines(row)), ("a.json", json.dumps([row], indent=1).encode())):
        (tmp_path / name).write_bytes(content)
        assert read(tmp_path / name) == expected


def _zip(content: bytes, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.writestr("wiki-pages/wiki-001.jsonl", content)
        archive.writestr("__MACOSX/wiki-pages/._wiki-001.jsonl", b"\0\1")
        archive.writestr("wiki-pages/LICENSE", b"text")
    return buffer.getvalue()


def _small_frames(content: bytes) -> bytes:
    """Frames of a few whole lines, so that a cut between or inside them breaks no line."""
    parts = content.splitlines(keepends=True)
    pack = zstandard.ZstdCompressor().compress
    return b"".join(pack(b"".join(parts[start : start + 7])) for start in range(0, len(parts), 7))


def _tar(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tape:
        entry = tarfile.TarInfo("abstracts/AA/wiki_00.bz2")
        packed = bz2.compress(content)
        entry.size = len(packed)
        tape.addfile(entry, io.BytesIO(packed))
    return bz2.compress(buffer.getvalue())


PACKED: dict[str, Callable[[bytes], bytes]] = {
    "a.jsonl": bytes,
    "a.jsonl.gz": gzip.compress,
    "named-otherwise.bin": gzip.compress,
    "wiki_00.bz2": bz2.compress,
    "two streams.bz2": lambda content: bz2.compress(content[:99]) + bz2.compress(content[99:]),
    "a.jsonl.zst": zstandard.ZstdCompressor().compress,
    "small frames.zst": _small_frames,
    "wiki-pages.zip": _zip,
    "abstracts.tar.bz2": _tar,
}


@pytest.mark.parametrize("name", PACKED)
def test_however_it_is_packed(tmp_path: Path, name: str) -> None:
    rows = [{"title": f"T{n}", "text": f"Text {n}. é"} for n in range(500)]
    (tmp_path / name).write_bytes(PACKED[name](lines(*rows)))
    seen: list[tuple[str, int, int]] = []
    found = list(read_articles([tmp_path / name], lambda *report: seen.append(report)))
    assert found == [Article(row["title"], row["text"]) for row in rows]
    size = (tmp_path / name).stat().st_size
    assert seen[-1] == ("read", size, size)
    assert all(done <= total for _, done, total in seen)


@pytest.mark.parametrize("name", [name for name in PACKED if name != "a.jsonl"])
def test_a_file_that_is_cut_is_told(tmp_path: Path, name: str) -> None:
    rows = [{"title": f"T{n}", "text": f"Text {n * n * 7919}"} for n in range(6_000)]
    content = PACKED[name](lines(*rows))
    (tmp_path / name).write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(XmodelError, match=r"damaged, or not whole|not valid JSON|is cut off"):
        read(tmp_path / name)


@pytest.mark.parametrize("share", range(1, 9))
def test_a_small_zstd_file_that_is_cut_is_told(tmp_path: Path, share: int) -> None:
    content = zstandard.ZstdCompressor().compress(lines(*({"title": f"T{n}", "text": "A text."} for n in range(1_000))))
    (tmp_path / "a.zst").write_bytes(content[: len(content) * share // 9])
    with pytest.raises(XmodelError, match="damaged, or not whole"):
        read(tmp_path / "a.zst")


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_that_cannot_be_unpacked_is_told(tmp_path: Path, method: int) -> None:
    file, rng = tmp_path / "wiki-pages.zip", random.Random(method)
    content = _zip(lines(*({"title": f"T{n}", "text": f"Text {n * n * 7919}"} for n in range(300))), method)
    file.write_bytes(content)
    assert len(read(file)) == 300
    for _ in range(150):
        damaged = bytearray(content)
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        file.write_bytes(damaged)
        with contextlib.suppress(XmodelError):  # some bits are of dates and the like
            read(file)
    middle = len(content) // 3
    file.write_bytes(content[:middle] + b"\xff" * 64 + content[middle + 64 :])
    with pytest.raises(XmodelError, match=r"wiki-pages\.zip.*(damaged, or not whole, after|not valid JSON)"):
        read(file)


@pytest.mark.parametrize(
    ("at", "value", "told"), [(8, 1, "is encrypted"), (10, 99, "compression (type 99|method)|not supported")]
)
def test_a_zip_with_a_password_or_of_a_newer_kind_is_told(tmp_path: Path, at: int, value: int, told: str) -> None:
    content = bytearray(_zip(lines({"title": "A", "text": "x"})))
    for sign, field in ((b"PK\1\2", at), (b"PK\3\4", at - 2)):  # in the directory and before the member
        content[content.index(sign) + field] = value
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(XmodelError, match=rf"a\.zip: damaged, or not whole, after its beginning \(.*{told}"):
        read(tmp_path / "a.zip")


def test_a_folder_is_all_its_files_of_data_in_order(tmp_path: Path) -> None:
    for name in ("AB/wiki_00", "AA/wiki_01.bz2", "AA/wiki_00.bz2", "b.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        content = lines({"title": name, "text": "x"})
        (tmp_path / name).write_bytes(bz2.compress(content) if name.endswith("bz2") else content)
    for name in ("README.md", ".hidden.jsonl", "AA/._wiki_00.bz2"):
        (tmp_path / name).write_text("no data")
    assert [article.title for article in read(tmp_path)] == [
        "AA/wiki_00.bz2",
        "AA/wiki_01.bz2",
        "AB/wiki_00",
        "b.jsonl",
    ]
    (tmp_path / "empty").mkdir()
    with pytest.raises(XmodelError, match="empty: no files of articles in it"):
        read(tmp_path / "empty")
    with pytest.raises(XmodelError, match="absent: no such file or folder"):
        read(tmp_path / "absent")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lines({"title": "A", "text": "x"}) + b"{broken\n", r"a\.json, line 2: not valid JSON"),
        (b'[{"title": "A", "text": "x"}, {"title": ]', r"a\.json: entry 2 is cut off"),
        (b'[{"title": "A", "text": "x"}', r"a\.json: entry 1 is not followed by"),
        (b'{"text": "\xff"}\n', r"a\.json, line 1: not valid JSON"),
        (b"[" * 100_000, r"a\.json: entry 1 is not valid JSON"),
        (b"\n\n[1]", r"a\.json, entry 1: not a JSON object"),
        (lines(1), r"a\.json, line 1: not a JSON object"),
        (
            lines({"question": "?", "answer": "yes"}),
            r"line 1: no article: its fields are 'question', 'answer'; known are",
        ),
        (lines({"context": [["A"]]}), r"line 1: field 'context' must be pairs"),
        (lines({"context": [["A", "x"]]}), r"line 1: sentences must be a list"),
        (lines({"context": "A"}), r"line 1: field 'context' must be pairs"),
        (lines({"context": {"title": None}}), r"line 1: field 'context' must be pairs"),
        (lines({"context": {"title": ["A"], "sentences": []}}), r"line 1: field 'context' must be pairs"),
        (lines({"context": [[5, ["x"]]]}), r"line 1: field 'context' must be pairs"),
        (lines({"context": [["A", [5]]]}), r"line 1: sentences must be a list of texts, and is '\[5\]'"),
        (lines({"title": "A", "text": [None]}), r"line 1: field 'text' must be a list of texts"),
        (lines({"title": "A", "text": "x", "redirects": 5}), r"line 1: field 'redirects' must be a list of texts"),
        (lines({"title": "A", "text": "x", "redirects": "Foo"}), r"line 1: field 'redirects' .* is 'Foo'"),
        (lines({"title": "A", "text": "x", "redirects": ["B", 1]}), r"line 1: field 'redirects' must be a list"),
        (lines({"title": "A", "text": "x", "redirect": 7}), r"line 1: field 'redirect' must be a list of objects"),
        (lines({"title": "A", "text": "x", "redirect": [{"title": None}]}), r"line 1: field 'title' is 'None'"),
        (lines({"id": 5, "lines": "", "text": "x"}), r"line 1: field 'id' is '5', and must be a text"),
        (lines({"title": "A", "text": 5}), r"line 1: field 'text' is '5', and must be a text"),
        (lines({"title": None, "text": "x"}), r"line 1: field 'title' is 'None'"),
        (lines({"text": "a word " * 100}), r"line 1: the first line of 'text' is no title"),
    ],
)
def test_what_is_wrong_is_named_by_file_and_line(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(XmodelError, match=message):
        read(tmp_path / "a.json")


@pytest.mark.parametrize("form", ["lines", "array"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, form: str) -> None:
    def peak(count: int) -> int:
        rows: Sequence[dict[str, str]] = [{"title": f"T{n}", "text": "x" * 1000} for n in range(count)]
        file = tmp_path / f"{count}.gz"
        file.write_bytes(gzip.compress(lines(*rows) if form == "lines" else json.dumps(rows).encode(), 1))
        del rows
        tracemalloc.start()
        assert sum(1 for _ in read_articles([file])) == count
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    assert peak(6_000) < peak(1_500) * 1.5 + 1_000_000


def test_real_files_if_they_are_there() -> None:
    file = SHARED / "agents" / "hotpotqa" / "dev-distractor-subset.jsonl.gz"
    if file.exists():
        articles = {article.title: article.text for article in read(file)}
        assert len(articles) == 991
        assert articles["Ed Wood"].startswith("Edward Davis Wood Jr.")
