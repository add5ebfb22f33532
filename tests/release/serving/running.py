"""A gateway in a thread of its own, asked over real sockets; and an engine whose every word a test decides."""

import asyncio
import http.client
import json
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from xmodel2.release.serving.engines import Engine
from xmodel2.release.serving.gateway import Gateway, Policy
from xmodel2.release.serving.guard import Guard
from xmodel2.release.serving.limits import Keys, Places, RateLimit
from xmodel2.release.serving.service import listen, run_gateway
from xmodel2.release.serving.supervisor import Supervisor
from xmodel2.release.serving.ways import OpenAIWay

CHAT = "/v1/chat/completions"
HELLO = {"messages": [{"role": "user", "content": "hello"}]}


@dataclass
class Answer:
    """Status, headers and body of one answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        return dict(self.json["error"])

    @property
    def events(self) -> list[Any]:
        """The events of a stream, its end as the text [DONE]."""
        data = [line[6:] for line in self.body.decode().split("\n") if line.startswith("data: ")]
        return [line if line == "[DONE]" else json.loads(line) for line in data]


@dataclass
class Served:
    """A running gateway."""

    gateway: Gateway
    supervisor: Supervisor
    port: int
    loop: asyncio.AbstractEventLoop

    def ask(self, path: str, body: Any = None, method: str = "", headers: dict[str, str] | None = None) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        with suppress(BrokenPipeError, ConnectionResetError):
            connection.request(method or ("GET" if data is None else "POST"), path, data, headers or {})
        response = connection.getresponse()
        answer = Answer(response.status, dict(response.headers), response.read())
        connection.close()
        return answer

    def wait_for(self, what: Callable[[], bool]) -> None:
        """Wait until something holds in the gateway's loop."""

        async def until() -> None:
            while not what():
                await asyncio.sleep(0.005)

        asyncio.run_coroutine_threadsafe(asyncio.wait_for(until(), 10), self.loop).result()


def policy(**changes: Any) -> Policy:
    given: dict[str, Any] = {"keys": Keys([]), "rate": RateLimit(0), "guard": Guard("127.0.0.1"), "quiet": True}
    return Policy(**{**given, "places": Places(4, 16), **changes})


@contextmanager
def serving(engine: Engine, policy: Policy) -> Iterator[Served]:
    """Yield a gateway before an engine that has started."""
    ready: Future[Served] = Future()
    over = asyncio.Event()

    async def run() -> None:
        supervisor = Supervisor(engine, pauses=(0.01,))
        gateway = Gateway(supervisor, policy)
        listener = listen("127.0.0.1", 0)
        runner = await run_gateway(gateway, listener)
        try:
            await supervisor.begin()
            ready.set_result(Served(gateway, supervisor, listener.getsockname()[1], asyncio.get_running_loop()))
            await over.wait()
        except BaseException as error:
            if ready.done():
                raise
            ready.set_exception(error)
        finally:
            await supervisor.end()
            await runner.cleanup()

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    served = ready.result(60)
    try:
        yield served
    finally:
        served.loop.call_soon_threadsafe(over.set)
        thread.join()


Said = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class FakeEngine:
    """An OpenAI-compatible engine on a socket: ``say`` answers, ``asked`` keeps what it was asked."""

    say: Said
    asked: list[dict[str, Any]] = field(default_factory=list)
    url: str = ""
    api_key: str = "secret"
    pid: int = 0
    alive: bool = True
    starts: int = 0
    heard: threading.Event = field(default_factory=threading.Event)
    """Set once it was asked something."""
    gone: int = 0
    """Requests whose client went away."""

    def engine(self) -> Engine:
        def start() -> "FakeEngine":
            self.starts += 1
            self.alive = True
            return self

        return Engine("fake", "toy", OpenAIWay("toy"), start, 4, None, "/home/somebody/model")

    def close(self) -> None:
        """Ends with the thread."""

    async def _models(self, request: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "toy"}]})

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(await request.json())
        self.heard.set()
        try:
            return await self.say(request)
        except (asyncio.CancelledError, ConnectionError):
            self.gone += 1
            raise

    @contextmanager
    def listening(self) -> Iterator["FakeEngine"]:
        ready, loop = threading.Event(), asyncio.new_event_loop()
        over = asyncio.Event()

        async def run() -> None:
            app = web.Application()
            app.router.add_post("/v1/{rest:.+}", self.answer)
            app.router.add_get("/v1/models", self._models)
            runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            ready.set()
            await over.wait()
            await runner.cleanup()

        thread = threading.Thread(target=lambda: loop.run_until_complete(run()))
        thread.start()
        ready.wait(10)
        try:
            yield self
        finally:
            loop.call_soon_threadsafe(over.set)
            thread.join()
            loop.close()


def chunk(text: str, finish: str | None = None) -> bytes:
    """Return an event of a chat."""
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    return f"data: {json.dumps({'choices': [choice]})}\n\n".encode()


async def stream(request: web.Request) -> web.StreamResponse:
    """Begin an answer."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    return response
