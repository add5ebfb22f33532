"""The gateway: who may ask, checks of what is asked, places in the engine, answers in OpenAI's forms, metrics, chat page.

    request -> guard (host, origin) -> key, rate -> body -> Asked -> place -> engine -> Piece ... -> events or one object

One process and one thread: a token costs it 0.16 ms of CPU time (64 streams; `benchmarks/serve.py` has the whole picture).
"""

import asyncio
import json
import os
import sys
import time
import traceback
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import ClientSession, web

from xmodel2.release.serving.answers import Answer, Answers
from xmodel2.release.serving.api_error import ApiError
from xmodel2.release.serving.asking import ask, cut, merged, open_session
from xmodel2.release.serving.guard import Guard
from xmodel2.release.serving.limits import Keys, Places, RateLimit
from xmodel2.release.serving.metrics import Metrics, group_bytes, resident_bytes
from xmodel2.release.serving.requests import parse
from xmodel2.release.serving.supervisor import Supervisor
from xmodel2.release.serving.ways import Piece, Question

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
PAGE = Path(__file__).parent / "page"
_KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
PAGE_FILES = {"/": "index.html"} | {f"/{file.name}": file.name for file in PAGE.iterdir() if file.suffix in _KINDS}
"""All files that are served, by path: nothing of a request ever becomes the name of a file."""
_LONG_BODY = 20_000
"""Bytes above which a prompt becomes tokens in a thread, so that answers to others go on meanwhile."""
_BODY_SECONDS = 30.0
_WRITE_SECONDS = 30.0
"""A client that takes none of its answer for so long is let go."""
_GONE = 499
"""What is counted for a client that went away."""


@dataclass
class _Note:
    """What is known of the request that a task answers."""

    headers: dict[str, str] = field(default_factory=dict)
    tokens: tuple[int, int] | None = None
    """Of prompt and answer."""
    status: int = 0
    """Of an error after an answer had begun, when its own status was long read."""


_NOTE: ContextVar[_Note] = ContextVar("note")


@dataclass(frozen=True)
class Policy:
    """One policy for all engines."""

    keys: Keys
    rate: RateLimit
    guard: Guard
    places: Places
    max_body: int = 1_000_000
    timeout: float = 600.0
    quiet: bool = False


class Gateway:
    """The web application before one engine."""

    def __init__(self, supervisor: Supervisor, policy: Policy) -> None:
        self._supervisor, self._policy = supervisor, policy
        self._engine = supervisor.engine
        self._session: ClientSession | None = None
        self._born = int(time.time())
        self.metrics = Metrics()
        self.stopping = False
        self._idle = asyncio.Event()
        self.app = web.Application(middlewares=[self._middleware], client_max_size=policy.max_body)
        for path in PAGE_FILES:
            self.app.router.add_get(path, self._page)
        self.app.router.add_get("/health", self._health)
        self.app.router.add_get("/metrics", self._metrics)
        self.app.router.add_get("/v1/models", self._models)
        self.app.router.add_get("/v1/models/{model:.+}", self._model)
        self.app.router.add_post("/v1/chat/completions", self._chat)
        self.app.router.add_post("/v1/completions", self._completion)
        self.app.cleanup_ctx.append(self._with_session)

    async def drained(self) -> None:
        """Wait until nothing is being answered."""
        while self.metrics.in_flight:
            self._idle.clear()
            await self._idle.wait()

    async def _with_session(self, app: web.Application) -> AsyncIterator[None]:
        async with open_session() as self._session:
            yield

    @web.middleware
    async def _middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        began = time.monotonic()
        resource = request.match_info.route.resource
        route = resource.canonical if resource else "other"
        self.metrics.in_flight += 1
        status, note = _GONE, _Note()
        _NOTE.set(note)
        try:
            response = await self._answered(request, handler)
            status = note.status or response.status
            return response
        finally:
            self.metrics.in_flight -= 1
            if not self.metrics.in_flight:
                self._idle.set()
            self.metrics.requests[route, status] += 1
            if not self._policy.quiet:
                took = time.monotonic() - began
                tokens = "prompt {} answer {} ".format(*note.tokens) if note.tokens else ""
                method = request.method if request.method.isalpha() else "?"
                line = f"{request.remote} {method[:8]} {route} {status} {tokens}{took:.3f}s"
                with suppress(OSError):  # nobody reads the log any more
                    print(time.strftime("%Y-%m-%dT%H:%M:%S"), line, file=sys.stderr)

    async def _answered(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Return the handler's answer, or what went wrong in OpenAI's form."""
        headers: dict[str, str] = {}
        try:
            headers = self._policy.guard.check(request)
            if request.method == "OPTIONS" and headers:
                return web.Response(status=204, headers=headers)
            _NOTE.get().headers = headers
            response = await handler(request)
            if not response.prepared:
                response.headers.update(headers)
            return response
        except ConnectionError:
            raise
        except Exception as error:
            told = self._told(error)
            return web.json_response(told.as_json(), status=told.status, headers={**told.headers, **headers})

    def _told(self, error: Exception) -> ApiError:
        """Return what the client is told of an error."""
        if isinstance(error, ApiError):
            return error
        if isinstance(error, web.HTTPException):
            return _error_of(error, self._policy.max_body)
        if isinstance(error, TimeoutError):
            return ApiError(504, f"no whole answer within {self._policy.timeout:g} s", code="timeout")
        traceback.print_exception(error)
        return ApiError(500, "an error of the server, which its log tells", code="internal_error")

    async def _page(self, request: web.Request) -> web.Response:
        resource = request.match_info.route.resource
        assert resource
        file = PAGE / PAGE_FILES[resource.canonical]
        return web.Response(body=file.read_bytes(), content_type=_KINDS[file.suffix], charset="utf-8")

    async def _health(self, request: web.Request) -> web.Response:
        word = "stopping" if self.stopping else "ok" if self._supervisor.up else "engine starting"
        return web.json_response({"status": word}, status=200 if word == "ok" else 503)

    async def _metrics(self, request: web.Request) -> web.Response:
        self._client(request)
        memory = {"gateway": resident_bytes(os.getpid()), "engine": group_bytes(self._supervisor.pid)}
        up, restarts = self._supervisor.up, self._supervisor.restarts
        text = self.metrics.text(self._policy.places.waiting, up, restarts, memory)
        return web.Response(text=text, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    def _described(self) -> dict[str, Any]:
        more = {"max_model_len": self._engine.context} if self._engine.context else {}
        return {"id": self._engine.model, "object": "model", "created": self._born, "owned_by": "xmodel2", **more}

    async def _models(self, request: web.Request) -> web.Response:
        self._client(request)
        return web.json_response({"object": "list", "data": [self._described()]})

    async def _model(self, request: web.Request) -> web.Response:
        self._client(request)
        self._check_model(request.match_info["model"])
        return web.json_response(self._described())

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        return await self._generate(request, chat=True)

    async def _completion(self, request: web.Request) -> web.StreamResponse:
        return await self._generate(request, chat=False)

    async def _generate(self, request: web.Request, chat: bool) -> web.StreamResponse:
        began = time.monotonic()
        client = self._client(request)
        self._policy.rate.take(client)
        if self.stopping:
            raise ApiError(503, "the server is stopping", code="stopping", retry_after=5)
        body = await self._body(request)
        asked = parse(body, chat)
        self._check_model(asked[0].model)
        if len(asked) > 1:
            self._policy.rate.take(client, len(asked) - 1)

        def prepared() -> list[Question]:
            return [self._engine.way.prepare(one) for one in asked]

        questions = await asyncio.to_thread(prepared) if len(body) > _LONG_BODY else prepared()
        answers = Answers(asked, self._engine.model, [question.prompt_tokens for question in questions])
        response: web.StreamResponse | None = None
        try:
            pairs = zip(questions, answers.each, strict=True)
            line = asyncio.Lock()
            streams = [self._pieces(*pair, began, line, within=number > 0) for number, pair in enumerate(pairs)]
            async with asyncio.timeout(self._policy.timeout), aclosing(merged(streams)) as pieces:
                if not asked[0].stream:
                    said_by: list[list[Piece]] = [[] for _ in streams]
                    async for number, piece in pieces:
                        said_by[number] += [piece] if piece else []
                    return web.Response(body=answers.whole(said_by), content_type="application/json")
                async for number, piece in pieces:
                    if response is None:
                        response = await _opened(request)
                    if said := answers.each[number].said(piece):
                        await _write(response, said)
                assert response is not None  # an answer that has ended has begun
                await _write(response, answers.ending())
        except ConnectionError:
            raise
        except Exception as error:
            if response is None:
                raise
            told = self._told(error)
            _NOTE.get().status = told.status
            await _write(response, f"data: {json.dumps(told.as_json())}\n\n".encode())
        finally:
            _NOTE.get().tokens = (answers.prompt_tokens, answers.tokens)
            self.metrics.prompt_tokens += answers.prompt_tokens
            self.metrics.generated_tokens += answers.tokens
            self.metrics.whole.add(time.monotonic() - began)
        return response

    async def _pieces(
        self, question: Question, answer: Answer, began: float, line: asyncio.Lock, within: bool
    ) -> AsyncGenerator[Piece]:
        """Yield the pieces of one choice, in a place of its own; of those of a request one at a time stands in ``line``.

        ``within``: not of a request's first.
        """
        async with AsyncExitStack() as held:
            async with line:
                await held.enter_async_context(self._policy.places.one(within))
            assert self._session
            running = self._supervisor.ready()
            async with aclosing(ask(self._session, self._engine, running, question)) as pieces:
                ended = cut(pieces, question.stops, question.read_on) if question.stops else pieces
                async for piece in self._timed(ended, answer, None if within else began):
                    yield piece

    async def _timed(self, pieces: AsyncIterator[Piece], answer: Answer, began: float | None) -> AsyncIterator[Piece]:
        """Count and time pieces; ``began``: the request, whose first answer this is."""
        last: float | None = None
        async for piece in pieces:
            now = time.monotonic()
            if piece.tokens and last is None:
                if began is not None:
                    self.metrics.first_token.add(now - began)
            elif piece.tokens and last is not None:
                self.metrics.between_tokens.add((now - last) / piece.tokens, piece.tokens)
            last = now if piece.tokens else last
            answer.count(piece)
            yield piece
        if answer.finish is None:
            raise ApiError(502, "the engine's answer broke off", code="engine_error")

    def _client(self, request: web.Request) -> str:
        return self._policy.keys.client(request.headers.get("Authorization")) or request.remote or ""

    async def _body(self, request: web.Request) -> bytes:
        if request.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise ApiError(415, "send the body as it is, without Content-Encoding", code="unsupported_encoding")
        if request.content_length is not None and request.content_length > self._policy.max_body:
            raise web.HTTPRequestEntityTooLarge(self._policy.max_body, request.content_length)
        try:
            async with asyncio.timeout(_BODY_SECONDS):
                return await request.read()
        except TimeoutError:
            raise ApiError(408, f"the body did not come within {_BODY_SECONDS:g} s", code="timeout") from None

    def _check_model(self, name: str | None) -> None:
        if name is not None and name != self._engine.model:
            known = self._engine.model
            raise ApiError(404, f"no such model here; there is {known!r}", code="model_not_found", param="model")


async def _opened(request: web.Request) -> web.StreamResponse:
    """Begin a stream: not before the engine has said something, so that errors have their status."""
    headers = {
        "Content-Type": "text/event-stream; charset=utf-8",
        "Cache-Control": "no-store",
        "X-Accel-Buffering": "no",
    }
    response = web.StreamResponse(headers={**headers, **_NOTE.get().headers})
    await response.prepare(request)
    return response


async def _write(response: web.StreamResponse, data: bytes) -> None:
    try:
        async with asyncio.timeout(_WRITE_SECONDS):
            await response.write(data)
    except TimeoutError:
        raise ConnectionResetError("the client does not read its answer") from None


def _error_of(error: web.HTTPException, max_body: int) -> ApiError:
    if error.status == 413:
        return ApiError(413, f"the body is above {max_body:,} bytes", code="request_too_large")
    if error.status == 405:
        allowed = error.headers.get("Allow", "")
        return ApiError(405, f"this path takes {allowed} only", code="method_not_allowed", headers={"Allow": allowed})
    if error.status == 404:
        return ApiError(404, "no such path; see /v1/models, /v1/completions, /v1/chat/completions", code="unknown_path")
    return ApiError(error.status, error.reason, code="http_error")
