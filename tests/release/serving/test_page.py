"""The chat page in a browser, against a server that says what each test wrote."""

import json
import re
import threading
from pathlib import Path

from tests.release.serving.chat_page import Opens, answered, ask, notice
from tests.release.serving.scripted_server import DONE, PAGE, Reply, ScriptedServer, event, says


def test_the_page_is_small() -> None:
    files = list(PAGE.iterdir())
    assert {file.suffix for file in files} == {".html", ".css", ".js"}
    assert sum(file.stat().st_size for file in files) < 40 * 1024


def test_an_answer_appears_piece_by_piece(chat: Opens, server: ScriptedServer) -> None:
    gates = [threading.Event(), threading.Event()]
    end = event(reason="stop", usage={"completion_tokens": 7, "total_tokens": 19})
    server.replies = [Reply([event("One "), gates[0], event("two "), gates[1], event("three."), end, DONE])]
    page = chat()
    page.clock.install()
    ask(page, "Count.")
    text = page.locator(".assistant .text")
    page.locator(".busy >> text=One").wait_for()
    assert text.inner_text().strip() == "One"
    assert page.locator(".assistant").get_attribute("aria-busy") == "true"
    page.clock.run_for(2000)
    gates[0].set()
    page.locator(".busy >> text=One two").wait_for()
    assert page.locator("#status").inner_text() == "The model is answering."  # not every token is read out
    gates[1].set()
    assert answered(page).inner_text() == "One two three."
    assert page.locator("#status").inner_text() == "The answer: One two three."
    assert page.locator("#context").inner_text() == "19 of 512 tokens used"
    below = page.locator(".assistant .below").inner_text()
    assert re.fullmatch(r"Copy\s*Regenerate\s*7 tokens in [\d.]+ s · [\d.]+ tokens/s · first after \d+\.\d\d s", below)


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


def test_a_reload_in_the_middle_keeps_the_question(chat: Opens, server: ScriptedServer) -> None:
    reply = Reply([event("Begun"), threading.Event()])
    server.replies = [reply, says("Whole.")]
    page = chat()
    ask(page, "Tell me.")
    page.locator("article >> text=Begun").wait_for()
    page.reload()
    assert reply.gone.wait(5)
    assert page.locator("article").all_inner_texts() == ["Tell me.\nEdit"]
    page.click("text=Edit")
    page.keyboard.press("Enter")
    assert answered(page).inner_text() == "Whole."
    assert server.asked[0]["messages"] == server.asked[1]["messages"]


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
    for _ in range(2000):  # else the first reply would be to the next question
        if not server.asked:
            page.wait_for_timeout(5)
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
