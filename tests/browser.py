"""Pages opened in a real browser, Chromium: whatever a reader must never meet fails the test."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Route

NAMES = ("chromium", "chromium-browser", "google-chrome")
QUIET = ("--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking")
QUIETER = ("--disable-component-update", "--disable-sync", "--no-sandbox")


def _origin(address: str) -> str:
    """Return what a page may load from: its host, or of a file only the file."""
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc}" if parts.netloc else address.split("#")[0].split("?")[0]


class Visits:
    """Opens pages, each in a fresh profile, and keeps in ``wrong`` what they should not have done.

    That is: errors on the console, errors that no script caught, requests to anywhere but the page's own origin (they
    are blocked), web sockets and windows. ``expected`` holds patterns of what a test brings about on purpose.
    """

    def __init__(self, browser: "Browser") -> None:
        self._browser = browser
        self._contexts: list[BrowserContext] = []
        self.wrong: list[str] = []
        self.expected: list[str] = []

    def open(self, address: str, *, width: int = 1280, height: int = 800, **settings: Any) -> "Page":
        """Open an address in a new profile; ``settings`` are those of Playwright's ``new_context``."""
        context = self._browser.new_context(
            viewport={"width": width, "height": height}, service_workers="block", **settings
        )
        context.set_default_timeout(30_000)
        self._contexts.append(context)
        own = _origin(address)

        def pass_own(route: "Route") -> None:
            asked = route.request.url
            if _origin(asked) == own or asked.startswith(("data:", "blob:")):
                route.continue_()
            else:
                self.wrong.append(f"request to {asked}")
                route.abort()

        def heard(said: "ConsoleMessage") -> None:
            if said.type == "error":
                self.wrong.append(f"console: {said.text}")

        context.route("**/*", pass_own)
        page = context.new_page()
        page.on("console", heard)
        page.on("pageerror", lambda error: self.wrong.append(f"uncaught: {error}"))
        page.on("websocket", lambda socket: self.wrong.append(f"web socket to {socket.url}"))
        page.on("popup", lambda window: self.wrong.append(f"window with {window.url}"))
        page.goto(address)
        return page

    def close(self) -> list[str]:
        """Close the pages and return what was wrong and not expected."""
        for context in self._contexts:
            context.close()
        return [what for what in self.wrong if not any(re.search(pattern, what) for pattern in self.expected)]


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    """Chromium, started once for the tests of a file; without it they are skipped.

    Not once for all files: as long as Playwright runs, ``asyncio.run`` is refused to every other test of the process.
    """
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install 'xmodel2[dev]'")
    path = os.environ.get("XMODEL2_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip(f"needs a browser: {', '.join(NAMES)} or its path in XMODEL2_CHROMIUM")
    with ExitStack() as ends:
        playwright = ends.enter_context(sync_api.sync_playwright())
        browser = playwright.chromium.launch(executable_path=path, args=[*QUIET, *QUIETER])
        ends.callback(browser.close)
        yield browser


@pytest.fixture
def visits(browser: "Browser") -> Iterator[Visits]:
    """Pages of one test: ``visits.open(address)``. What was wrong with them fails it in the end."""
    visits = Visits(browser)
    yield visits
    wrong = visits.close()
    assert not wrong, "\n".join(wrong)
