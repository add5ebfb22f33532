"""A scripted server, and its chat page in a browser."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.browser import Visits
from tests.release.serving.chat_page import Opens
from tests.release.serving.scripted_server import ScriptedServer, scripted_server

if TYPE_CHECKING:
    from playwright.sync_api import Page


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with scripted_server() as server:
        yield server


@pytest.fixture
def chat(visits: Visits, server: ScriptedServer) -> Opens:
    """Return what opens the page of the server; ``settings`` are those of `Visits.open`."""

    def opened(**settings: Any) -> "Page":
        page = visits.open(server.address, **settings)
        page.locator("#new").wait_for()
        return page

    return opened
