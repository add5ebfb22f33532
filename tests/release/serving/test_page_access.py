"""The chat page for everybody: names, keyboard, contrast, themes, widths, motion."""

import threading
from typing import TYPE_CHECKING, Any

import pytest

from tests.browser import Visits
from tests.release.serving.chat_page import Opens, answered, ask, notice
from tests.release.serving.scripted_server import DONE, Reply, ScriptedServer, event, refuses, says

if TYPE_CHECKING:
    from playwright.sync_api import Page

RICH = "# Head\nSome `code`, **bold**, [a link](https://example.org/).\n\n- one\n\n```python\nx = 1\n```"
# Texts and edges of controls with the least contrast that WCAG 2 AA wants: 4.5, of large texts and of edges 3.
CONTRASTS = """() => {
  const paint = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const mixed = (...colours) => {
    paint.fillStyle = "#fff"; paint.fillRect(0, 0, 1, 1);
    for (const colour of colours) { paint.fillStyle = colour; paint.fillRect(0, 0, 1, 1); }
    const [r, g, b] = [...paint.getImageData(0, 0, 1, 1).data].slice(0, 3)
      .map((c) => c / 255).map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (node) => (node ? [...behind(node.parentElement), getComputedStyle(node).backgroundColor] : []);
  const bad = [];
  const check = (what, colour, node, least) => {
    const [a, b] = [mixed(...behind(node), colour), mixed(...behind(node))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < least) bad.push(`${what}: ${ratio.toFixed(2)} of ${least}`);
  };
  let seen = 0;
  for (const node of document.body.querySelectorAll("*")) {
    if (!node.checkVisibility({ visibilityProperty: true })) continue;
    const style = getComputedStyle(node);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
    const name = `${node.tagName} ${node.id} ${node.textContent.slice(0, 30)}`;
    if ([...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim())) {
      seen++;
      check(name, style.color, node, large ? 3 : 4.5);
    }
    if (node.placeholder) check(`${name} placeholder`, getComputedStyle(node, "::placeholder").color, node, 4.5);
    const edge = node.matches("input, textarea") && parseFloat(style.borderTopWidth);
    if (edge) check(`${name} edge`, style.borderTopColor, node.parentElement, 3);
    if (node.matches(".icon")) check(`${name} icon`, style.color, node, 3);
  }
  return [seen, bad];
}"""
CONTROLS = ("button", "textbox", "spinbutton", "link", "searchbox", "combobox", "checkbox", "dialog", "region")


def focused(page: "Page") -> str:
    return str(page.evaluate("document.activeElement.id || document.activeElement.textContent"))


def full_page(page: "Page", server: ScriptedServer) -> None:
    """Show a turn of everything, and a notice."""
    server.replies = [says(RICH), refuses(500)]
    ask(page, "Question?")
    answered(page)
    ask(page, "Another?")
    notice(page, "failed")


def test_every_control_has_a_name_and_every_part_its_place(chat: Opens, server: ScriptedServer, visits: Visits) -> None:
    visits.expected.append("status of 500")
    page = chat()
    full_page(page, server)
    tree = page.context.new_cdp_session(page)

    def seen() -> list[tuple[str, str]]:
        nodes: list[dict[str, Any]] = tree.send("Accessibility.getFullAXTree")["nodes"]
        parts = [node for node in nodes if not node["ignored"]]
        return [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in parts]

    parts = seen()
    page.click("#open-settings")
    parts += seen()
    assert [part for part in parts if part[0] in CONTROLS and not part[1].strip()] == []
    named = set(parts)
    assert {("main", ""), ("banner", ""), ("region", "Conversation"), ("dialog", "Settings")} <= named
    assert {("textbox", "Your question"), ("button", "Send (Enter)"), ("button", "New chat")} <= named
    assert {("article", "You"), ("article", "Model"), ("spinbutton", "Temperature"), ("heading", "tiny-model")} <= named
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map((node) => node.id)")
    assert len(ids) == len(set(ids))
    assert page.evaluate("document.documentElement.lang") == "en"
    assert page.title() == "tiny-model · chat"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast_suffices(chat: Opens, server: ScriptedServer, visits: Visits, scheme: str) -> None:
    visits.expected.append("status of 500")
    page = chat(color_scheme=scheme)
    page.locator("h1:has-text('tiny')").wait_for()
    assert page.evaluate(CONTRASTS)[1] == []
    full_page(page, server)
    page.evaluate("document.querySelector('article').classList.add('dropped')")
    seen, bad = page.evaluate(CONTRASTS)
    assert bad == []
    page.click("#open-settings")
    more, bad = page.evaluate(CONTRASTS)
    assert bad == []
    assert more > seen > 15


def test_dark_and_light(chat: Opens) -> None:
    page = chat(color_scheme="dark")

    def back() -> str:
        return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))

    dark = back()
    page.get_by_role("button", name="Switch to the light theme").click()
    light = back()
    assert (dark, light) == ("rgb(13, 17, 23)", "rgb(255, 255, 255)")
    page.reload()
    assert back() == light
    page.get_by_role("button", name="Switch to the dark theme").click()
    assert back() == dark
    page.emulate_media(color_scheme="light")  # which the page follows again
    page.locator("html[data-theme=light]").wait_for()
    assert back() == light


def test_everything_works_by_keyboard(chat: Opens, server: ScriptedServer) -> None:
    server.replies = [says("One.\n```\nx\n```"), Reply([event("Two"), threading.Event()])]
    page = chat()
    assert focused(page) == "question"
    page.keyboard.type("First line")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("second line")
    page.keyboard.press("Enter")
    answered(page)
    assert server.asked[0]["messages"] == [{"role": "user", "content": "First line\nsecond line"}]
    assert focused(page) == "question"
    assert page.input_value("#question") == ""
    stops: list[str] = []
    while not stops or stops[-1] != "new":
        page.keyboard.press("Shift+Tab")
        stops.append(focused(page))
        ring = "(({ outlineStyle, outlineWidth }) => outlineStyle + parseFloat(outlineWidth))"
        assert page.evaluate(f"{ring}(getComputedStyle(document.activeElement))") == "solid2"
    wanted = ["Regenerate", "Copy", "x", "Copy", "Edit", "log", "open-settings", "theme", "new"]
    assert [stop.strip() for stop in stops] == wanted
    page.focus("#open-settings")
    page.keyboard.press("Enter")
    for _ in range(30):
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement === document.body || !!document.activeElement.closest('dialog')")
    page.keyboard.press("Escape")
    assert focused(page) == "open-settings"
    page.focus("#question")
    page.keyboard.type("Next")
    page.keyboard.press("Enter")
    page.locator("article >> text=Two").wait_for()
    page.keyboard.press("Escape")
    assert answered(page, 2).inner_text().strip() == "Two"


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_nothing_is_wider_than_the_window(chat: Opens, server: ScriptedServer, visits: Visits, width: int) -> None:
    visits.expected.append("status of 500")
    server.model = "models/" + "a-very-long-name" * 20
    page = chat(width=width)
    page.locator("h1:has-text('models')").wait_for()
    long = "Donaudampfschifffahrt" * 30
    arabic = "مرحبا بالعالم، هذا نص طويل من اليمين إلى اليسار. " * 5
    server.replies = [says(f"{long}\n\n{arabic}\n\n- {long}\n\n```{long}\n{long}\n```\n{RICH}"), refuses(500, long)]
    ask(page, f"{arabic}{long}")
    answered(page)
    assert page.locator(".assistant p >> nth=1").evaluate("node => getComputedStyle(node).direction") == "rtl"
    assert page.evaluate("getComputedStyle(document.body).direction") == "ltr"
    ask(page, "Next?")
    notice(page, "Donau")
    page.click("#open-settings")
    wide = """[document.documentElement, ...document.querySelectorAll("#log, dialog, header, #ask, #notice, .user .text")]
      .filter((node) => node.scrollWidth > node.clientWidth + 1 || node.getBoundingClientRect().right > innerWidth + 1)
      .map((node) => `${node.tagName} ${node.id}`)"""
    assert page.evaluate(wide) == []
    for control in page.locator("dialog :is(button, input):visible").all():
        box = control.bounding_box()
        assert box
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width


def test_nothing_moves_for_those_who_do_not_want_it(chat: Opens, server: ScriptedServer) -> None:
    moves = "getComputedStyle(document.querySelector('.busy .text > p'), '::after').animationName"
    for motion, name in (("reduce", "none"), ("no-preference", "beat")):
        gate = threading.Event()
        server.replies = [Reply([event("A word"), gate, event(".", "stop"), DONE])]
        page = chat(reduced_motion=motion)
        ask(page, "Say.")
        page.locator(".busy >> text=A word").wait_for()
        assert page.evaluate(moves) == name
        gate.set()
        answered(page)
