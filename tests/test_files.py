"""Files are whole or as before: what a kill tears goes, what is damaged or does not fit is named, and processes take turns."""

import resource
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from xmodel2.errors import XmodelError
from xmodel2.files import append_json_line, read_json_lines, replaced_folder, write_text_atomic


def test_rows_come_back_in_order_and_a_torn_one_is_written_over(tmp_path: Path) -> None:
    path = tmp_path / "new" / "rows.jsonl"
    assert read_json_lines(path) == []
    append_json_line(path, {"a": 1})
    path.write_bytes(path.read_bytes() + b'{"a": ')
    assert read_json_lines(path) == [{"a": 1}]
    append_json_line(path, {"a": 2})
    assert read_json_lines(path) == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize("line", ["{", "3", "[" * 100_000])
def test_a_damaged_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n' + line + '\n{"a": 2}\n')
    with pytest.raises(XmodelError, match=r"rows.jsonl, line 2"):
        read_json_lines(path)


def test_many_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: append_json_line(path, {"number": number}), range(100)))
    assert {row["number"] for row in read_json_lines(path)} == set(range(100))


def test_two_at_once_do_not_write_the_same_folder(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with replaced_folder(out, True, "export") as folder:
        (folder / "whole.txt").write_text("mine")
        with pytest.raises(XmodelError, match="another `xmodel2` writes it"), replaced_folder(out, True, "export"):
            pass
    assert (out / "whole.txt").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_disk_that_takes_no_more_is_told_with_the_file_and_nothing_changes(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("before")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match=r"a\.txt"):
            write_text_atomic(path, "x" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, previous)
    assert path.read_text() == "before"
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]
