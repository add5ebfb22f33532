"""What a model writes is shown by the chat page as text, whatever it is."""

from tests.release.serving.chat_page import Opens, answered, ask
from tests.release.serving.scripted_server import PAGE, ScriptedServer, says


def test_no_file_builds_markup_from_text() -> None:
    for file in PAGE.glob("*.js"):
        text = file.read_text()
        for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "DOMParser", "srcdoc"):
            assert word not in text, f"{file.name}: {word}"


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
    assert all(str(link.get_attribute("href")).startswith("https://example.org/") for link in links.all())
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


def test_long_and_odd_texts_are_shown_soon(chat: Opens, server: ScriptedServer) -> None:
    page = chat(width=390)
    texts = ["w" * 100_000, "**a" * 30_000, "[" * 100_000, "`" * 99_999, "https://" * 12_000, "- x\n" * 3_000]
    for text in texts:
        pieces = [text[begin : begin + 20_000] for begin in range(0, len(text), 20_000)]
        server.replies = [says(*pieces)]
        ask(page, text[:99])
        answered(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert page.evaluate("document.getElementById('log').scrollWidth") <= 390
        page.click("#new")
