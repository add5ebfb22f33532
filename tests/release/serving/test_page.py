"""The chat page in a browser, against a server that says what each test wrote."""

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.browser import Visits
from tests.release.serving.scripted_server import (
    DONE,
    PAGE,
    Reply,
    ScriptedServer,
    event,
    refuses,
    says,
    scripted_server,
)

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

Opens = Callable[..., "Page"]


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with scripted_server() as server:
        yield server


@pytest.fixture
def chat(visits: Visits, server: ScriptedServer) -> Opens:
    """Return what opens the page of the server."""

    def opened(**settings: Any) -> "Page":
        page = visits.open(server.address, **settings)
        page.locator("#new").wait_for()
        return page

    return opened


def ask(page: "Page", text: str) -> None:
    page.fill("#question", text)
    page.keyboard.press("Enter")


def answered(page: "Page", count: int = 1) -> "Locator":
    """Wait for the end of an answer and return the text of the last one."""
    page.locator(f"article:nth-of-type({2 * count}) .below:has-text('Regenerate')").wait_for()
    return page.locator(f"article:nth-of-type({2 * count}) .text")


def notice(page: "Page", text: str) -> None:
    page.locator(f"#notice p:has-text({json.dumps(text)})").wait_for()


def test_the_page_is_small() -> None:
    files = list(PAGE.iterdir())
    assert {file.suffix for file in files} == {".html", ".css", ".js"}
    assert sum(file.stat().st_size for file in files) < 40 * 1024


def test_no_file_builds_markup_from_text() -> None:
    for file in PAGE.glob("*.js"):
        text = file.read_text()
        for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "DOMParser", "srcdoc"):
            assert word not in text, f"{file.name}: {word}"


def test_an_answer_appears_piece_by_piece(chat: Opens, server: ScriptedServer) -> None:
    gates = [threading.Event(), threading.Event()]
    end = event(reason="stop", usage={"completion_tokens": 7, "total_tokens": 19})
    server.replies = [Reply([event("One "), gates[0], event("two "), gates[1], event("three."), end, DONE])]
    page = chat()
    ask(page, "Count.")
    text = page.locator(".assistant .text")
    page.locator(".busy >> text=One").wait_for()
    assert text.inner_text().strip() == "One"
    assert page.locator(".assistant").get_attribute("aria-busy") == "true"
    gates[0].set()
    page.locator(".busy >> text=One two").wait_for()
    assert page.locator("#status").inner_text() == "The model is answering."  # not every token is read out
    gates[1].set()
    assert answered(page).inner_text() == "One two three."
    assert page.locator("#status").inner_text() == "The answer: One two three."
    assert page.locator("#context").inner_text() == "19 of 512 tokens used"
    below = page.locator(".assistant .below").inner_text()
    assert "7 tokens" in below
    assert "tokens/s" in below
    assert "first token after" in below


def test_what_was_said_is_sent(chat: Opens, server: ScriptedServer) -> None:
    server.replies = [says("Fine."), says("Still fine.")]
    page = chat()
    page.click("#open-settings")
    page.fill("#system", "Be brief.")
    page.fill("#temperature", "0")
    page.fill("#top_k", "40")
    page.fill("#max_tokens", "64")
    page.fill("#seed", "7")
    page.keyboard.press("Escape")
    ask(page, "How are you?")
    answered(page)
    ask(page, "And now?")
    answered(page, 2)
    first, second = server.asked
    assert first["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "How are you?"},
    ]
    assert [message["content"] for message in second["messages"]] == ["Be brief.", "How are you?", "Fine.", "And now?"]
    assert {name: first[name] for name in ("temperature", "top_p", "top_k", "max_tokens", "seed")} == {
        **{"temperature": 0, "top_p": 0.95, "top_k": 40, "max_tokens": 64, "seed": 7}
    }
    assert first["model"] == "tiny-model"
    assert first["stream"] is True


def test_settings_and_conversation_outlast_a_reload(chat: Opens, server: ScriptedServer) -> None:
    server.replies = [says("A `word`."), says("More.")]
    page = chat()
    page.click("#open-settings")
    page.fill("#temperature", "1.25")
    page.fill("#top_p", "7")  # not allowed: the last allowed one stays
    page.keyboard.press("Escape")
    ask(page, "First?")
    answered(page)
    page.reload()
    assert answered(page).inner_text() == "A word."
    assert page.input_value("#temperature") == "1.25"
    assert page.input_value("#top_p") == "0.95"
    ask(page, "Second?")
    answered(page, 2)
    assert [message["content"] for message in server.asked[1]["messages"]] == ["First?", "A `word`.", "Second?"]
    page.click("#open-settings")
    page.click("text=Back to the defaults")
    assert page.input_value("#temperature") == "0.7"


def test_without_storage_it_works_as_long_as_the_page(chat: Opens, server: ScriptedServer) -> None:
    server.replies = [says("Yes.")]
    page = chat()
    forbidden = "Object.defineProperty(window, '{}', {{ get() {{ throw new DOMException('no', 'SecurityError'); }} }});"
    page.add_init_script("".join(map(forbidden.format, ("localStorage", "sessionStorage"))))
    page.reload()
    page.click("#open-settings")
    page.fill("#seed", "3")
    page.keyboard.press("Escape")
    page.click("#theme")
    ask(page, "Do you work?")
    answered(page)
    assert server.asked[0]["seed"] == 3


HOSTILE = [
    "<script>window.__pwned = 1</script>",
    "<img src=x onerror='window.__pwned = 1'>",
    "[click](javascript:window.__pwned=1) [data](data:text/html,<script>window.__pwned=1</script>)",
    "**<svg onload=window.__pwned=1>** and `<iframe srcdoc='<script>parent.__pwned=1</script>'>`",
    "```<b>x</b>\n</code></pre><script>window.__pwned = 1</script>\n```",
    "- <a href='javascript:window.__pwned=1'>list</a>\n  - <style>*{display:none}</style>\n\n# <h1 onclick=alert(1)>",
    "[a](https://example.org/\"onmouseover=\"window.__pwned=1) https://example.org/'onload='x",
    "\x1b[31mred\x1b]0;title\x07 \x9b31m \u202egnp.exe\u202c &lt;b&gt; \0",
]


def test_what_a_model_writes_stays_text(chat: Opens, server: ScriptedServer) -> None:
    server.replies = [says(*text) for text in HOSTILE]
    server.model = "<img src=x onerror=window.__pwned=1>"
    page = chat()
    for number, text in enumerate(HOSTILE, start=1):
        ask(page, text)
        shown = answered(page, number).inner_text()
        for tag in ("<script>", "<img", "<svg", "<iframe", "javascript:", "<a href", "<style>", "&lt;b&gt;"):
            assert (tag in text) == (tag in shown), f"{text!r} is shown as {shown!r}"
    assert "␛[31mred" in shown
    assert "\x1b" not in page.locator("#turns").inner_text()
    assert page.inner_text("h1") == server.model
    assert page.evaluate("window.__pwned") is None
    foreign = page.locator(
        "#turns :is(script, img, iframe, style, svg, object, [onclick], [onmouseover], [onload], [style])"
    )
    assert foreign.count() == 0
    links = page.locator("#turns a")
    assert all(link.get_attribute("href").startswith("https://example.org/") for link in links.all())
    assert all(link.get_attribute("rel") == "noopener noreferrer" for link in links.all())


def test_markdown_is_shown(chat: Opens, server: ScriptedServer) -> None:
    text = (
        "# Head\nTwo *lines*\nof **text** and a_b_c, 2 * 3 * 4.\n\n3. three\n4. four\n   - in\n   more\n\n- other\n\n"
        "1. Run:\n   ```sh\n   ls\n     -l\n   ```\n2. Done, see [it](https://example.org/a_b) or http://example.org/.\n"
        "```python\nif a < b:\n    pass"
    )
    server.replies = [says(*text)]
    page = chat()
    ask(page, "Show.")
    answered(page)
    build = """node => [...node.childNodes].map(function tree(n) {
      return n.nodeType === 3 ? n.data : n.tagName === 'BUTTON' ? '' :
        [n.tagName.toLowerCase(), ...[...n.childNodes].map(tree).filter(Boolean)] })"""
    assert page.locator(".assistant .text").evaluate(build) == [
        ["h3", "Head"],
        ["p", "Two ", ["em", "lines"], "\nof ", ["strong", "text"], " and a_b_c, 2 * 3 * 4."],
        ["ol", ["li", "three"], ["li", "four", ["ul", ["li", "in\nmore"]]]],
        ["ul", ["li", "other"]],
        ["ol", ["li", "Run:"]],
        ["div", ["div", ["span", "sh"]], ["pre", ["code", "ls\n  -l"]]],
        ["ol", ["li", "Done, see ", ["a", "it"], " or ", ["a", "http://example.org/"], "."]],
        ["div", ["div", ["span", "python"]], ["pre", ["code", "if a < b:\n    pass"]]],
    ]
    assert page.locator(".text ol").first.get_attribute("start") == "3"


@pytest.mark.parametrize(
    "text",
    ["w" * 100_000, "**a" * 30_000, "[" * 100_000, "`" * 99_999, "https://" * 12_000, "- x\n" * 9_000],
)
def test_long_and_odd_texts_are_shown_soon(chat: Opens, server: ScriptedServer, text: str) -> None:
    server.replies = [says(*(text[begin : begin + 20_000] for begin in range(0, len(text), 20_000)))]
    page = chat(width=390)
    ask(page, text[:99])
    answered(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.evaluate("document.getElementById('log').scrollWidth") <= 390


def test_chunks_may_end_anywhere(chat: Opens) -> None:
    stream = (
        event("Ä—語🙂")
        + b": a comment\r\n\r\n"
        + event("é", "stop").replace(b"\n", b"\r\n")
        + DONE.replace(b"\n", b"\r")
    )
    read = """async (bytes) => {
      const { events } = await import("./stream.js");
      const cuts = [...bytes.keys()].map((cut) => [bytes.slice(0, cut), bytes.slice(cut)]);
      const seen = new Set();
      for (const chunks of [...cuts, bytes.map((byte) => [byte])]) {
        const body = new ReadableStream({
          start(to) { chunks.forEach((chunk) => to.enqueue(new Uint8Array(chunk))); to.close(); },
        });
        const found = [];
        for await (const data of events(body)) found.push(data);
        seen.add(found.join("|"));
      }
      return [...seen];
    }"""
    (seen,) = chat().evaluate(read, list(stream + b"\n"))
    first, second, done = seen.split("|")
    assert [json.loads(data)["choices"][0]["delta"]["content"] for data in (first, second)] == ["Ä—語🙂", "é"]
    assert done == "[DONE]"


def test_stop_ends_the_request_and_keeps_what_came(chat: Opens, server: ScriptedServer) -> None:
    replies = [Reply([event(f"Part {number}. "), threading.Event()]) for number in range(2)]
    server.replies = [*replies, says("Whole.")]
    page = chat()
    ask(page, "Tell me.")
    page.locator("article >> text=Part 0.").wait_for()
    page.click("#stop")
    assert replies[0].gone.wait(5)
    assert answered(page).inner_text().strip() == "Part 0."
    assert "stopped" in page.locator(".assistant .below").inner_text()
    page.click("text=Regenerate")
    page.locator("article >> text=Part 1.").wait_for()
    page.keyboard.press("Escape")
    assert replies[1].gone.wait(5)
    page.click("text=Regenerate")
    page.locator("article >> text=Whole.").wait_for()
    assert [len(asked["messages"]) for asked in server.asked] == [1, 1, 1]


def test_stopped_before_the_first_word(chat: Opens, server: ScriptedServer) -> None:
    server.replies = [Reply([threading.Event()]), says("Now.")]
    page = chat()
    ask(page, "Tell me.")
    page.locator("#stop").wait_for()
    page.keyboard.press("Escape")
    notice(page, "Stopped before the answer began.")
    ask(page, "Tell me something else.")
    answered_text = page.locator(".assistant .text")
    page.locator("text=Regenerate").wait_for()
    assert answered_text.inner_text() == "Now."
    assert [message["content"] for message in server.asked[1]["messages"]] == ["Tell me something else."]


def test_the_last_question_is_edited(chat: Opens, server: ScriptedServer) -> None:
    server.replies = [says("One."), says("Two."), says("Three.")]
    page = chat()
    ask(page, "First?")
    answered(page)
    ask(page, "Second?")
    answered(page, 2)
    page.fill("#question", "A draft")
    page.click("text=Edit")
    assert page.input_value("#question") == "Second?"
    page.keyboard.press("Escape")
    assert page.input_value("#question") == "A draft"
    page.fill("#question", "")
    page.keyboard.press("ArrowUp")
    ask(page, "Second, better?")
    page.locator("article >> text=Three.").wait_for()
    assert [message["content"] for message in server.asked[2]["messages"]] == ["First?", "One.", "Second, better?"]
    assert page.locator("article").count() == 4


def test_a_key_is_asked_for_and_kept_in_the_tab(chat: Opens, server: ScriptedServer, visits: Visits) -> None:
    visits.expected.append("status of 401")
    server.key, server.replies = "s3cret", [says("Come in.")]
    page = chat()
    notice(page, "This server wants an API key.")
    page.fill("#key", "wrong")
    page.keyboard.press("Enter")
    notice(page, "This server does not accept the key.")
    ask(page, "May I?")
    page.locator("#key").wait_for()
    page.fill("#key", "s3cret")
    page.click("text=Use this key")
    assert answered(page).inner_text() == "Come in."
    assert page.inner_text("h1") == "tiny-model"
    assert page.evaluate("JSON.stringify(localStorage)").find("s3cret") < 0
    assert "s3cret" in page.evaluate("JSON.stringify(sessionStorage)")
    page.click("#open-settings")
    page.click("text=Forget the API key")
    assert "s3cret" not in page.evaluate("JSON.stringify(sessionStorage)")


@pytest.mark.parametrize(("status", "text"), [(429, "too many requests"), (503, "is being started")])
def test_a_busy_server_is_asked_again_later(
    chat: Opens, server: ScriptedServer, visits: Visits, status: int, text: str
) -> None:
    visits.expected.append(f"status of {status}")
    server.replies = [refuses(status, Retry_After="20"), says("Here.")]
    page = chat()
    page.clock.install()
    ask(page, "Now?")
    notice(page, text)
    assert page.locator("#notice button >> nth=1").inner_text().startswith("Trying again in ")
    page.clock.run_for(19_000)
    assert len(server.asked) == 1
    page.clock.run_for(3_000)
    assert answered(page).inner_text() == "Here."


FAULTS = {
    "more text than the server takes": refuses(413),
    "The server refused this: top_p: no": refuses(400, "top_p: no"),
    "The server failed: <b>out of memory</b>": refuses(500, "<b>out of memory</b>"),
    "is not an answer": Reply([event("Half "), b"data: {broken\n\n"]),
    "before the answer was complete": Reply([event("Half ")], whole=False),
    "the answer was complete": Reply([event("Half ")]),
    "The server failed: engine gone": Reply([event("Half "), b'data: {"error": {"message": "engine gone"}}\n\n']),
    "had nothing to say": Reply([event(reason="stop"), DONE]),
}


@pytest.mark.parametrize("text", FAULTS)
def test_what_goes_wrong_is_said_in_words(chat: Opens, server: ScriptedServer, visits: Visits, text: str) -> None:
    visits.expected += ["status of (400|413|500)", "ERR_INCOMPLETE_CHUNKED_ENCODING"]
    server.replies = [FAULTS[text], says("Better.")]
    page = chat()
    ask(page, "Please.")
    notice(page, text)
    half = any(isinstance(part, bytes) and b"Half" in part for part in FAULTS[text].parts)
    assert page.locator("article.assistant").count() == half
    page.click("text=Regenerate" if half else "text=Try again")
    page.locator("article >> text=Better.").wait_for()
    assert page.locator("article").count() == 2
    assert page.locator("#notice").is_hidden()
    assert server.asked[0]["messages"] == server.asked[1]["messages"]


def test_a_lost_network_is_told(chat: Opens, server: ScriptedServer, visits: Visits) -> None:
    visits.expected.append("ERR_INTERNET_DISCONNECTED")
    server.replies = [says("Back.")]
    page = chat()
    page.locator("h1:has-text('tiny')").wait_for()
    page.context.set_offline(True)
    ask(page, "Anyone?")
    notice(page, "can't be reached")
    page.context.set_offline(False)
    page.click("text=Try again")
    assert answered(page).inner_text() == "Back."


def test_the_oldest_turns_are_left_out_until_it_fits(chat: Opens, server: ScriptedServer, visits: Visits) -> None:
    visits.expected.append("status of 400")
    full = refuses(400, "too long", "context_length_exceeded")
    server.replies = [says("1"), says("2"), says("3"), full, full, says("4"), full]
    page = chat()
    for number in range(1, 4):
        ask(page, f"Q{number}")
        answered(page, number)
    ask(page, "Q4")
    notice(page, "longer than the model's context")
    page.click("text=Leave out the oldest turns")
    assert answered(page, 4).inner_text() == "4"
    assert [message["content"] for message in server.asked[-1]["messages"]] == ["Q3", "3", "Q4"]
    assert page.locator("article.dropped").count() == 4
    page.click("#new")
    ask(page, "Q5")
    notice(page, "This question alone is longer")


def test_a_new_chat_ends_the_old_one_and_can_be_undone(chat: Opens, server: ScriptedServer) -> None:
    reply = Reply([event("Begun"), threading.Event()])
    server.replies = [reply, says("Fresh.")]
    page = chat()
    ask(page, "Old?")
    page.locator("article >> text=Begun").wait_for()
    page.click("#new")
    assert reply.gone.wait(5)
    assert page.locator("article").count() == 0
    assert page.locator("#welcome").is_visible()
    page.click("#notice button >> text=Undo")
    assert answered(page).inner_text() == "Begun"
    page.click("#new")
    page.click("#examples button >> nth=0")
    assert answered(page).inner_text() == "Fresh."
    assert len(server.asked[1]["messages"]) == 1


def test_copy_and_save(chat: Opens, server: ScriptedServer, tmp_path: Path) -> None:
    server.replies = [says("Run `x`:\n```sh\nls \x1b[1m\n```\n")]
    page = chat(permissions=["clipboard-read", "clipboard-write"])
    ask(page, "How?")
    answered(page)
    page.click(".code .copy")
    page.locator("text=Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == "ls ␛[1m"  # no escape reaches a terminal
    page.click(".assistant .below >> text=Copy")
    assert page.evaluate("navigator.clipboard.readText()").startswith("Run `x`:\n```sh")
    saved = {}
    page.click("#open-settings")
    for kind in ("json", "markdown"):
        with page.expect_download() as download:
            page.click(f"#save-{kind}")
        saved[download.value.suggested_filename] = Path(download.value.path()).read_text()
    assert saved["conversation.md"].startswith(
        "# Conversation with tiny-model\n\n**You:**\n\nHow?\n\n**Model:**\n\nRun `x`"
    )
    whole = json.loads(saved["conversation.json"])
    assert [(turn["role"], turn["content"]) for turn in whole["messages"]] == [
        ("user", "How?"),
        ("assistant", "Run `x`:\n```sh\nls \x1b[1m\n```\n"),
    ]
    assert whole["model"] == "tiny-model"


def test_copying_without_a_clipboard(chat: Opens, server: ScriptedServer) -> None:
    server.replies = [says("Text.")]
    page = chat(permissions=["clipboard-read", "clipboard-write"])
    ask(page, "How?")
    answered(page)
    page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(Error('not allowed')); }")
    page.click(".below >> text=Copy")
    page.locator("text=Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == "Text."


def test_the_reader_is_not_pulled_to_the_end(chat: Opens, server: ScriptedServer) -> None:
    gates = [threading.Event(), threading.Event()]
    lines = "line\n\n" * 60
    server.replies = [Reply([event(lines), gates[0], event(lines), event("END"), gates[1], event(".", "stop"), DONE])]
    page = chat()
    ask(page, "Many lines.")
    end = "(log => log.scrollHeight - log.clientHeight - log.scrollTop)(document.getElementById('log'))"
    page.locator("text=line >> nth=59").wait_for()
    assert page.evaluate(end) < 8
    page.mouse.move(600, 300)
    page.mouse.wheel(0, -300)
    page.locator("#latest").wait_for()
    before = page.evaluate("document.getElementById('log').scrollTop")
    gates[0].set()
    page.locator("article >> text=END").wait_for()
    assert page.evaluate("document.getElementById('log').scrollTop") == before
    page.click("#latest")
    assert page.evaluate(end) < 8
    gates[1].set()
    answered(page)
    assert page.evaluate(end) < 8


def test_words_that_are_being_composed_are_not_sent(chat: Opens, server: ScriptedServer) -> None:
    page = chat()
    page.fill("#question", "nihao")
    page.evaluate(
        "document.activeElement.dispatchEvent(new KeyboardEvent('keydown', "
        "{ key: 'Enter', isComposing: true, bubbles: true, cancelable: true }))"
    )
    page.keyboard.press("Shift+Enter")
    assert page.input_value("#question") == "nihao\n"
    page.fill("#question", " \n ")
    page.keyboard.press("Enter")
    assert server.asked == []
