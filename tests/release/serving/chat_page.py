"""What tests do with the chat page."""

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

Opens = Callable[..., "Page"]


def ask(page: "Page", text: str) -> None:
    page.fill("#question", text)
    page.keyboard.press("Enter")


def answered(page: "Page", count: int = 1) -> "Locator":
    """Wait for the end of an answer, of so many, and return the text of the last one."""
    page.locator(f"article:nth-of-type({2 * count}) .below:has-text('Regenerate')").wait_for()
    return page.locator(f"article:nth-of-type({2 * count}) .text")


def notice(page: "Page", text: str) -> None:
    """Wait until the page says something."""
    page.locator(f"#notice p:has-text({json.dumps(text)})").wait_for()
