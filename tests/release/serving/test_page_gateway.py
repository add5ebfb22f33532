"""The chat page as the real gateway serves it, before an engine that says what the test wants."""

import asyncio

from aiohttp import web

from tests.browser import Visits
from tests.release.serving.chat_page import answered, ask, notice
from tests.release.serving.running import FakeEngine, chunk, policy, serving, stream
from tests.release.serving.scripted_server import PAGE
from xmodel2.release.serving.limits import Keys


async def say(request: web.Request) -> web.StreamResponse:
    response = await stream(request)
    for piece in (chunk("Hello **"), chunk("there**, Ä🙂"), chunk(".", "stop"), b"data: [DONE]\n\n"):
        await response.write(piece)
    return response


def test_a_conversation_through_the_gateway(visits: Visits) -> None:
    visits.expected.append("status of 401")
    with FakeEngine(say).listening() as engine, serving(engine.engine(), policy(keys=Keys(["s3cret"]))) as served:
        page = visits.open(f"http://127.0.0.1:{served.port}/")
        notice(page, "This server wants an API key.")
        page.fill("#key", "s3cret")
        page.keyboard.press("Enter")
        page.locator("h1:has-text('toy')").wait_for()
        ask(page, "Hello <b>you</b>")
        assert answered(page).inner_html() == '<p dir="auto">Hello <strong>there</strong>, Ä🙂.</p>'
        assert engine.asked[0]["messages"] == [{"role": "user", "content": "Hello <b>you</b>"}]
        assert engine.asked[0]["temperature"] == 0.7
        for file in PAGE.iterdir():
            assert served.ask(f"/{file.name}").status == 200


def test_stop_reaches_the_engine(visits: Visits) -> None:
    async def forever(request: web.Request) -> web.StreamResponse:
        response = await stream(request)
        await response.write(chunk("Begun"))
        while True:
            await response.write(b": still here\n\n")
            await asyncio.sleep(0.01)

    with FakeEngine(forever).listening() as engine, serving(engine.engine(), policy()) as served:
        page = visits.open(f"http://127.0.0.1:{served.port}/")
        ask(page, "Go on.")
        page.locator("article >> text=Begun").wait_for()
        page.keyboard.press("Escape")
        assert answered(page).inner_text() == "Begun"
        served.wait_for(lambda: engine.gone == 1)
