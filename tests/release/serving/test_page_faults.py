"""The chat page when something goes wrong: said in words, and mended where the page can."""

import json
import threading

from tests.browser import Visits
from tests.release.serving.chat_page import Opens, answered, ask, notice
from tests.release.serving.scripted_server import DONE, Reply, ScriptedServer, event, refuses, says


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
    page.locator("h1:has-text('tiny-model')").wait_for()
    assert page.evaluate("JSON.stringify(localStorage)").find("s3cret") < 0
    assert "s3cret" in page.evaluate("JSON.stringify(sessionStorage)")
    page.click("#open-settings")
    page.click("text=Forget the API key")
    assert "s3cret" not in page.evaluate("JSON.stringify(sessionStorage)")


def test_a_busy_server_is_asked_again_later(chat: Opens, server: ScriptedServer, visits: Visits) -> None:
    visits.expected += ["status of (429|503)"]
    server.replies = [refuses(429, Retry_After="20"), refuses(503, Retry_After="3"), says("Here."), refuses(429)]
    page = chat()
    page.clock.install()
    ask(page, "Now?")
    notice(page, "too many requests")
    page.clock.run_for(19_000)
    assert page.locator("#notice .actions button >> nth=0").inner_text().startswith("Trying again in ")
    assert len(server.asked) == 1
    page.clock.run_for(3_000)
    notice(page, "is being started")
    page.clock.run_for(5_000)
    assert answered(page).inner_text() == "Here."
    ask(page, "And now?")
    notice(page, "too many requests")
    page.click("text=Don't")
    page.clock.run_for(30_000)
    assert len(server.asked) == 4


HALF = "Half "


def faults() -> dict[str, Reply]:
    """Return what can go wrong, by what the page says of it; a gate stands after half an answer."""
    engine_gone = b'data: {"error": {"message": "engine gone"}}\n\n'
    return {
        "more text than the server takes": refuses(413),
        "The server refused this: top_p: no": refuses(400, "top_p: no"),
        "The server failed: <b>out of memory</b>": refuses(500, "<b>out of memory</b>"),
        "had nothing to say": Reply([event(reason="stop"), DONE]),
        "is not an answer": Reply([event(HALF), threading.Event(), b"data: {broken\n\n"]),
        "before the answer was complete": Reply([event(HALF), threading.Event()], whole=False),
        "the answer was complete": Reply([event(HALF), threading.Event()]),
        "The server failed: engine gone": Reply([event(HALF), threading.Event(), engine_gone]),
    }


def test_what_goes_wrong_is_said_in_words(chat: Opens, server: ScriptedServer, visits: Visits) -> None:
    visits.expected += ["status of (400|413|500)", "ERR_INCOMPLETE_CHUNKED_ENCODING"]
    page = chat()
    for text, fault in faults().items():
        server.replies, server.asked = [fault, says("Better.")], []
        ask(page, "Please.")
        gates = [part for part in fault.parts if isinstance(part, threading.Event)]
        for gate in gates:
            page.locator("article >> text=Half").wait_for()
            gate.set()
        notice(page, text)
        assert page.locator("article.assistant").count() == len(gates)
        page.click("text=Try again")
        page.locator("article >> text=Better.").wait_for()
        assert page.locator("article").count() == 2
        assert page.locator("#notice").is_hidden()
        assert server.asked[0]["messages"] == server.asked[1]["messages"]
        page.click("#new")


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


def test_copying_without_a_clipboard(chat: Opens, server: ScriptedServer) -> None:
    server.replies = [says("Text.")]
    page = chat(permissions=["clipboard-read", "clipboard-write"])
    ask(page, "How?")
    answered(page)
    page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(Error('not allowed')); }")
    page.click(".below >> text=Copy")
    page.locator("text=Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == "Text."
