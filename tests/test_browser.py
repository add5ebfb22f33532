"""The browser's fixtures notice what pages must not do."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browser import Visits

if TYPE_CHECKING:
    from playwright.sync_api import Browser

WRONG = {
    "console: Seen.": "<script>console.error('Seen.')</script>",
    "uncaught: lost": "<script>throw Error('lost')</script>",
    "request to https://example.org/a.png": "<img src='https://example.org/a.png' alt=''>",
    "request to file:///etc/hostname": "<script src='file:///etc/hostname'></script>",
    "web socket to ws://127.0.0.1:9/": "<script>new WebSocket('ws://127.0.0.1:9/')</script>",
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_noticed(browser: "Browser", tmp_path: Path, what: str) -> None:
    (tmp_path / "page.html").write_text(f"<!doctype html><title>A page</title><p>Text</p>{WRONG[what]}")
    visits = Visits(browser)
    assert visits.open((tmp_path / "page.html").as_uri()).text_content("p") == "Text"
    assert any(line.startswith(what) for line in visits.close())


def test_a_quiet_page_passes_and_what_is_expected_too(browser: "Browser", tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("<!doctype html><title>A page</title><script>console.error('known')</script>")
    visits = Visits(browser)
    visits.expected.append("known$")
    page = visits.open((tmp_path / "page.html").as_uri() + "#part", width=390, color_scheme="dark")
    assert page.evaluate("innerWidth") == 390
    assert page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    assert visits.close() == []
