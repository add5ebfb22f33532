"""A download is gone on with where it was stopped, and what is not the file never gets its name."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.eval.stand_in_web import Published, StandInWeb, stand_in_web
from xmodel2.errors import XmodelError
from xmodel2.eval.download import UnavailableError, drive_address, one_line

HERE, THERE = "https://here.test/rows.json", "https://there.test/rows.json"
CONTENT = bytes(range(256)) * 20
DRIVE = drive_address("abc")
FORM = (
    '<html><head><title>Google Drive - Virus scan warning</title></head><body><form id="download-form" '
    'action="{action}" method="get"><input type="submit" value="Download anyway"/><input type="hidden" name="id" '
    'value="abc"><input type="hidden" name="uuid" value="1&amp;2"></form></body></html>'
)


@pytest.fixture
def web() -> Iterator[StandInWeb]:
    with stand_in_web() as web:
        yield web


def test_a_file_is_whole_and_its_bytes_are_told(web: StandInWeb, tmp_path: Path) -> None:
    web.files[HERE] = Published(CONTENT)
    seen = []
    assert web.download([HERE, THERE], tmp_path / "new" / "f", lambda *step: seen.append(step)) == HERE
    assert (tmp_path / "new" / "f").read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["f"]


def test_a_connection_that_ends_early_is_gone_on_with(web: StandInWeb, tmp_path: Path) -> None:
    web.files[HERE] = Published(CONTENT, cuts=[100, 0, 900, 0, 5])
    web.download([HERE], tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == CONTENT
    ranges = [wanted for _, wanted in web.asked]
    assert ranges == ["", "bytes=100-", "bytes=100-", "bytes=1000-", "bytes=1000-", "bytes=1005-"]


def test_a_stopped_download_is_gone_on_with_the_next_time(web: StandInWeb, tmp_path: Path) -> None:
    web.files[HERE] = Published(CONTENT, cuts=[1000, 0, 0, 0])
    with pytest.raises(UnavailableError, match=rf"{HERE}: the connection ended after 1,000 of 5,120 bytes"):
        web.download([HERE], tmp_path / "f")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f.part", "f.part.json"]
    web.files[HERE].cuts.clear()
    web.files[THERE] = Published(b"of another version")
    web.asked.clear()
    assert web.download([THERE, HERE], tmp_path / "f") == HERE
    assert web.asked == [(HERE, "bytes=1000-")]
    assert (tmp_path / "f").read_bytes() == CONTENT


@pytest.mark.parametrize(
    "changed",
    [
        Published(CONTENT[::-1], version='"2"'),
        Published(CONTENT[::-1], ranges=False),
        Published(CONTENT[::-1] + b"longer", version=""),
        Published(b"shorter"),
    ],
    ids=["another version", "no ranges", "no version", "shorter"],
)
def test_what_changed_meanwhile_is_begun_anew(web: StandInWeb, tmp_path: Path, changed: Published) -> None:
    web.files[HERE] = Published(CONTENT, version=changed.version and '"1"', cuts=[1000, 0, 0, 0])
    with pytest.raises(UnavailableError):
        web.download([HERE], tmp_path / "f")
    web.files[HERE] = changed
    web.download([HERE], tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == changed.content


@pytest.mark.parametrize("note", ["", "[1]", '{"address": 1}', '{"bytes": '])
def test_a_damaged_note_begins_anew(web: StandInWeb, tmp_path: Path, note: str) -> None:
    web.files[HERE] = Published(CONTENT)
    (tmp_path / "f.part").write_bytes(b"?")
    (tmp_path / "f.part.json").write_text(note)
    web.download([HERE], tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == CONTENT


def test_a_part_that_is_all_of_it_needs_no_server(web: StandInWeb, tmp_path: Path) -> None:
    (tmp_path / "f.part").write_bytes(CONTENT)
    (tmp_path / "f.part.json").write_text(json.dumps({"address": HERE, "bytes": len(CONTENT), "version": '"1"'}))
    web.download([HERE], tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == CONTENT
    assert web.asked == []


def test_a_mirror_is_asked_where_the_first_has_nothing(web: StandInWeb, tmp_path: Path) -> None:
    web.files[HERE] = Published(b"", status=403)
    web.files[THERE] = Published(CONTENT)
    assert web.download([HERE, THERE], tmp_path / "f") == THERE
    assert [address for address, _ in web.asked] == [HERE, THERE]
    web.files[HERE].status = web.files[THERE].status = 503
    with pytest.raises(UnavailableError, match=rf"{HERE}: HTTP 503 .*; {THERE}: HTTP 503"):
        web.download([HERE, THERE], tmp_path / "g")


def test_a_server_that_is_not_there_is_told(tmp_path: Path) -> None:
    with stand_in_web() as web:
        pass
    with pytest.raises(UnavailableError, match=rf"{HERE}: .*refused"):
        web.download([HERE], tmp_path / "f")
    assert list(tmp_path.iterdir()) == []


def test_the_page_of_google_drive_is_gone_past(web: StandInWeb, tmp_path: Path) -> None:
    page = FORM.format(action="https://drive.usercontent.google.com/download")
    web.files[DRIVE] = Published(page.encode(), kind="text/html; charset=utf-8", ranges=False)
    web.files["https://drive.usercontent.google.com/download?id=abc&uuid=1%262"] = Published(CONTENT, cuts=[100])
    assert web.download([DRIVE], tmp_path / "f") == DRIVE
    assert (tmp_path / "f").read_bytes() == CONTENT
    assert [wanted for _, wanted in web.asked] == ["", "", "bytes=100-", "bytes=100-"]


@pytest.mark.parametrize(
    ("page", "told"),
    [
        (
            "<title>Google Drive -\n \x1b[31mQuota exceeded</title>",
            r"a web page \(Google Drive - \\x1b\[31mQuota exceeded\)",
        ),
        (FORM.format(action="file:///etc/passwd"), r"a web page \(Google Drive - Virus scan warning\)"),
        (FORM.format(action="https://elsewhere.test/"), "a web page"),
        ("", "a web page instead of the file"),
    ],
)
def test_another_page_is_no_file(web: StandInWeb, tmp_path: Path, page: str, told: str) -> None:
    web.files[DRIVE] = Published(page.encode(), kind="text/html")
    with pytest.raises(UnavailableError, match=f"gives {told}"):
        web.download([DRIVE], tmp_path / "f")
    assert list(tmp_path.iterdir()) == []
    assert len(web.asked) == 1


def test_a_disk_that_is_too_small_is_told_first(
    web: StandInWeb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    web.files[HERE] = Published(CONTENT)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=5119))
    with pytest.raises(XmodelError, match=r"the disk has no room for 5,120 more bytes"):
        web.download([HERE], tmp_path / "f")
    assert not (tmp_path / "f").exists()


def test_words_of_a_server_are_harmless() -> None:
    assert one_line("a\n\x1b]0;b\x07\u202ec" + "d" * 100) == r"a \x1b]0;b\x07\u202ec" + "d" * 59 + "..."
