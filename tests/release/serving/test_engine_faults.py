"""Engines that die, dawdle and talk nonsense, clients that do: the gateway stays up and says what is the matter."""

import asyncio
import http.client
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from aiohttp import web

from tests.release.serving.running import CHAT, HELLO, FakeEngine, Said, Served, chunk, policy, serving, stream
from xmodel2.errors import XmodelError
from xmodel2.release.serving import asking, gateway, service
from xmodel2.release.serving.guard import Guard
from xmodel2.release.serving.limits import Keys, Places, RateLimit

STREAM = HELLO | {"stream": True}


async def hi(request: web.Request) -> web.StreamResponse:
    response = await stream(request)
    usage = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 1}}
    await response.write(chunk("hi") + chunk("", "stop") + f"data: {json.dumps(usage)}\n\ndata: [DONE]\n\n".encode())
    return response


async def dies(request: web.Request) -> web.StreamResponse:
    assert request.transport
    request.transport.abort()
    return web.Response()


async def dies_midway(request: web.Request) -> web.StreamResponse:
    response = await stream(request)
    await response.write(chunk("one"))
    return await dies(request)


async def never_ends(request: web.Request) -> web.StreamResponse:
    response = await stream(request)
    await response.write(chunk("one"))
    await asyncio.sleep(60)
    return response


async def never_begins(request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(60)
    return web.Response()


async def floods(request: web.Request) -> web.StreamResponse:
    response = await stream(request)
    while True:
        await response.write(chunk("x" * 100_000))


def says(data: bytes) -> Said:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = await stream(request)
        await response.write(data)
        return response

    return answer


def refuses(status: int, body: str) -> Said:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, text=body)

    return answer


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def up(stack: ExitStack, say: Said = hi, **changes: Any) -> tuple[Served, FakeEngine]:
    engine = stack.enter_context(FakeEngine(say).listening())
    return stack.enter_context(serving(engine.engine(), policy(**changes))), engine


def test_only_what_is_known_goes_to_the_engine(stack: ExitStack) -> None:
    served, engine = up(stack)
    answer = served.ask(CHAT, HELLO | {"user": "me", "top_p": 0.5, "max_completion_tokens": 4, "metadata": {"a": "b"}})
    assert answer.json["choices"][0]["message"]["content"] == "hi"
    assert answer.json["usage"] == {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}
    asked = {"model": "toy", "messages": HELLO["messages"], "top_p": 0.5, "max_tokens": 4, "stream": True}
    assert engine.asked == [asked]


def test_an_engine_that_goes_away(stack: ExitStack) -> None:
    served, engine = up(stack, dies)
    answer = served.ask(CHAT, STREAM)
    assert (answer.status, answer.error["code"], answer.headers["Retry-After"]) == (503, "engine_lost", "1")
    engine.say = dies_midway
    _, text, error = served.ask(CHAT, STREAM).events
    assert text["choices"][0]["delta"]["content"] == "one"
    assert error["error"]["code"] == "engine_lost"
    assert served.ask(CHAT, HELLO).status == 503
    assert served.gateway.metrics.requests[CHAT, 503] == 3
    engine.say = hi
    assert served.ask(CHAT, HELLO).status == 200


def in_turn(*answers: Said) -> Said:
    """One request after another is answered so."""
    left = list(answers)

    async def answer(request: web.Request) -> web.StreamResponse:
        return await left.pop(0)(request)

    return answer


def test_nothing_is_left_of_several_answers(stack: ExitStack) -> None:
    served, engine = up(stack, never_ends, places=Places(2, 1), timeout=1.0)
    several = HELLO | {"n": 3}
    places = served.gateway._policy.places

    def idle() -> bool:
        return (places.taken, places.waiting, served.gateway.metrics.in_flight) == (0, 0, 0)

    connection = http.client.HTTPConnection("127.0.0.1", served.port)
    connection.request("POST", CHAT, json.dumps(several | {"stream": True}))
    served.wait_for(lambda: len(engine.asked) == 2 and places.waiting == 1)  # the third has no place yet
    assert served.ask(CHAT, HELLO).error["code"] == "queue_full"  # by that one; the others are not in line
    connection.close()
    served.wait_for(lambda: engine.gone == 2 and idle())

    assert served.ask(CHAT, several).error["code"] == "timeout"
    served.wait_for(lambda: engine.gone == 4 and idle())

    engine.say = in_turn(never_ends, dies)
    assert served.ask(CHAT, several).error["code"] == "engine_lost"
    served.wait_for(lambda: engine.gone == 5 and idle())

    engine.say = in_turn(never_ends, dies_midway)
    *events, error = served.ask(CHAT, several | {"stream": True}).events
    assert error["error"]["code"] == "engine_lost"
    assert {event["choices"][0]["index"] for event in events} <= {0, 1}
    served.wait_for(lambda: engine.gone == 6 and idle())

    engine.say = hi
    assert [choice["message"]["content"] for choice in served.ask(CHAT, several).json["choices"]] == ["hi"] * 3
    assert len(engine.asked) == 11


def test_answers_count_as_requests(stack: ExitStack) -> None:
    served, engine = up(stack, rate=RateLimit(4))
    assert [served.ask(CHAT, HELLO | {"n": count}).status for count in (3, 2, 1)] == [200, 429, 429]
    assert len(engine.asked) == 3


@pytest.mark.parametrize(
    "data",
    [
        b"data: {half\n\n",
        b"data: [1]\n\n",
        b'data: {"choices": {"a": 1}}\n\n',
        b'data: {"choices": [{"delta": {"content": 5}}]}\n\n',
        b'data: {"error": {"message": "at /home/somebody/model"}}\n\n',
        b"\xff\xfe\x00",
        b"",
        chunk("no end"),
        b"data: " + b"x" * 5000,
    ],
)
def test_an_engine_that_talks_nonsense(stack: ExitStack, data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "_MAX_EVENT", 1000)
    served, _ = up(stack, says(data))
    answer = served.ask(CHAT, HELLO)
    assert (answer.status, answer.error["code"]) == (502, "engine_error")
    assert b"/home" not in answer.body


def test_half_a_letter_of_the_engine_does_not_end_the_answer(stack: ExitStack) -> None:
    served, _ = up(stack, says(chunk("a\ud83d") + chunk("b", "stop")))
    assert served.ask(CHAT, HELLO).json["choices"][0]["message"]["content"] == "a?b"
    assert served.ask(CHAT, STREAM).events[-1] == "[DONE]"


def test_an_error_of_our_own_is_logged_and_not_told(stack: ExitStack, capfd: pytest.CaptureFixture[str]) -> None:
    served, _ = up(stack, hi)
    object.__setattr__(served.supervisor.engine, "way", None)
    answer = served.ask(CHAT, HELLO)
    assert (answer.status, answer.error["code"]) == (500, "internal_error")
    assert "AttributeError" in capfd.readouterr().err


def test_refusals_of_the_engine(stack: ExitStack) -> None:
    served, engine = up(stack, refuses(500, "<html>Traceback: /home/somebody/model</html>"))
    answer = served.ask(CHAT, HELLO)
    assert (answer.status, b"/home" in answer.body) == (502, False)
    engine.say = refuses(400, json.dumps({"error": {"message": "no such template in /home/somebody/model"}}))
    answer = served.ask(CHAT, HELLO)
    assert (answer.status, answer.error["message"]) == (400, "no such template in toy")
    engine.say = refuses(422, json.dumps({"detail": "unexpected field"}))
    assert served.ask(CHAT, HELLO).error["message"] == "unexpected field"
    engine.say = refuses(503, "busy")
    assert served.ask(CHAT, HELLO).headers["Retry-After"] == "1"
    engine.say = refuses(401, "who are you")
    assert served.ask(CHAT, HELLO).status == 502


def test_an_engine_that_takes_too_long(stack: ExitStack) -> None:
    served, engine = up(stack, never_begins, timeout=0.2)
    answer = served.ask(CHAT, STREAM)
    assert (answer.status, answer.error["code"]) == (504, "timeout")
    engine.say = never_ends
    assert served.ask(CHAT, STREAM).events[-1]["error"]["code"] == "timeout"
    served.wait_for(lambda: engine.gone == 2)


def test_an_engine_that_dies_is_started_again(stack: ExitStack, capfd: pytest.CaptureFixture[str]) -> None:
    served, engine = up(stack)
    engine.alive = False
    assert served.ask(CHAT, HELLO).error["code"] == "engine_not_ready"
    assert served.ask("/health").status == 503
    served.wait_for(lambda: served.supervisor.up)
    assert served.ask(CHAT, HELLO).status == 200
    assert (engine.starts, served.supervisor.restarts) == (2, 1)
    assert "the engine ended; it is started again" in capfd.readouterr().err


def test_an_engine_that_does_not_start_again_is_tried_again(stack: ExitStack) -> None:
    served, engine = up(stack)
    tries = []

    def start() -> FakeEngine:
        tries.append(1)
        if len(tries) < 3:
            raise XmodelError("no memory") if len(tries) == 1 else BlockingIOError("no process")
        engine.alive = True
        return engine

    object.__setattr__(served.supervisor.engine, "start", start)
    engine.alive = False
    served.wait_for(lambda: served.supervisor.up)
    assert len(tries) == 3


def test_an_engine_that_never_starts_is_an_error() -> None:
    engine = FakeEngine(hi)
    fails = engine.engine()

    def start() -> FakeEngine:
        raise XmodelError("not today")

    object.__setattr__(fails, "start", start)
    with pytest.raises(XmodelError, match="not today"), serving(fails, policy()):
        pass


@pytest.mark.parametrize("body", [HELLO, STREAM])
def test_a_client_that_goes_away_stops_the_engine(stack: ExitStack, body: dict[str, Any]) -> None:
    served, engine = up(stack, never_ends)
    connection = http.client.HTTPConnection("127.0.0.1", served.port)
    connection.request("POST", CHAT, json.dumps(body))
    served.wait_for(lambda: len(engine.asked) == 1)
    connection.close()
    served.wait_for(lambda: engine.gone == 1)
    served.wait_for(lambda: served.gateway.metrics.requests[CHAT, 499] == 1)


def test_a_client_that_does_not_read_is_let_go(stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway, "_WRITE_SECONDS", 0.1)
    served, engine = up(stack, floods)
    connection = http.client.HTTPConnection("127.0.0.1", served.port)
    connection.request("POST", CHAT, json.dumps(STREAM))
    served.wait_for(lambda: engine.gone == 1)
    connection.close()


def test_a_client_that_dawdles_with_its_request(stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway, "_BODY_SECONDS", 0.1)
    monkeypatch.setattr(service, "_IDLE_SECONDS", 0.2)
    served, _ = up(stack)
    with socket.create_connection(("127.0.0.1", served.port), timeout=10) as slow:
        slow.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
        assert slow.recv(1000).startswith(b"HTTP/1.1 408 ")
    with socket.create_connection(("127.0.0.1", served.port), timeout=10) as slow:
        slow.sendall(b"GET / HTTP/1.1\r\nHost: loc")
        assert slow.recv(1000) == b""


@pytest.mark.parametrize(
    "head", [b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\nA: " + b"a" * 100_000, b"GET /" + b"a" * 100_000]
)
def test_what_is_no_http(stack: ExitStack, head: bytes) -> None:
    served, _ = up(stack)
    with socket.create_connection(("127.0.0.1", served.port), timeout=10) as connection:
        connection.sendall(head)
        assert connection.recv(100).startswith(b"HTTP/1.0 400 ") or b" 400 " in connection.recv(100)
    assert served.ask("/health").status == 200


def test_a_packed_body(stack: ExitStack) -> None:
    served, _ = up(stack)
    answer = served.ask(CHAT, b"no gzip", headers={"Content-Encoding": "gzip"})
    assert (answer.status, answer.error["code"]) == (415, "unsupported_encoding")


def test_an_engine_that_is_still_starting_does_not_hold_up_the_end(stack: ExitStack) -> None:
    served, engine = up(stack)
    begun, go_on, closed = threading.Event(), threading.Event(), threading.Event()

    def start() -> FakeEngine:
        begun.set()
        go_on.wait(20)
        return engine

    engine.close = closed.set  # type: ignore[method-assign]
    object.__setattr__(served.supervisor.engine, "start", start)
    engine.alive = False
    assert begun.wait(10)
    asyncio.run_coroutine_threadsafe(served.supervisor.end(), served.loop).result(10)
    closed.clear()
    go_on.set()
    assert closed.wait(10)  # what came up too late is ended


def test_a_full_queue(stack: ExitStack) -> None:
    served, engine = up(stack, never_ends, places=Places(1, 0))
    connection = http.client.HTTPConnection("127.0.0.1", served.port)
    connection.request("POST", CHAT, json.dumps(HELLO))
    served.wait_for(lambda: len(engine.asked) == 1)
    answer = served.ask(CHAT, HELLO)
    assert (answer.status, answer.error["code"], answer.headers["Retry-After"]) == (429, "queue_full", "1")
    connection.close()


def test_keys_and_rates(stack: ExitStack) -> None:
    served, _ = up(stack, keys=Keys(["open sesame", "other"]), rate=RateLimit(2))
    mine, other = ({"Authorization": f"Bearer {key}"} for key in ("open sesame", "other"))
    for path in ("/v1/models", "/metrics"):
        assert served.ask(path).status == 401
        assert served.ask(path, headers=mine).status == 200
    assert [served.ask(path).status for path in ("/health", "/")] == [200, 200]
    assert [served.ask(CHAT, HELLO, headers=mine).status for _ in range(3)] == [200, 200, 429]
    assert served.ask(CHAT, HELLO, headers=other).status == 200
    wrong = [served.ask(CHAT, HELLO, headers={"Authorization": "Bearer x"}) for _ in range(3)]
    assert [answer.status for answer in wrong] == [401, 401, 401]
    assert wrong[0].error["type"] == "authentication_error"


def test_pages_of_an_allowed_origin(stack: ExitStack) -> None:
    served, _ = up(stack, guard=Guard("127.0.0.1", ["chat.example"], ["https://app.example/"]))
    origin = {"Origin": "https://app.example"}
    wants = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization, x-stainless-os"}
    asks = served.ask(CHAT, method="OPTIONS", headers=origin | wants)
    assert (asks.status, asks.headers["Access-Control-Allow-Headers"]) == (204, wants["Access-Control-Request-Headers"])
    for body in (HELLO, STREAM, b"{"):
        answer = served.ask(CHAT, body, headers=origin)
        assert answer.headers["Access-Control-Allow-Origin"] == "https://app.example"
    assert served.ask(CHAT, method="OPTIONS", headers={"Origin": "https://b.example"}).status == 403
    assert served.ask("/", headers={"Host": "chat.example"}).status == 200


def test_the_log_tells_no_prompts(stack: ExitStack, capfd: pytest.CaptureFixture[str]) -> None:
    served, _ = up(stack, quiet=False)
    served.ask(CHAT, {"messages": [{"role": "user", "content": "a secret"}]})
    served.ask("/v1/models/%1b[31msecret")
    log = capfd.readouterr().err
    assert f"POST {CHAT} 200 prompt 3 answer 1" in log
    assert "secret" not in log
    assert "\x1b" not in log


def test_while_the_server_stops(stack: ExitStack) -> None:
    served, _ = up(stack)
    served.gateway.stopping = True
    assert served.ask(CHAT, HELLO).error["code"] == "stopping"
    assert served.ask("/health").json == {"status": "stopping"}
