"""A question goes to the engine over HTTP and comes back as pieces, as they arrive."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any

import aiohttp

from xmodel2.release.serving.api_error import ApiError
from xmodel2.release.serving.child import Running
from xmodel2.release.serving.engines import Engine
from xmodel2.release.serving.ways import Logprob, Piece, Question

_MAX_EVENT = 4_000_000
_PASSED_ON = (400, 404, 413, 422)
"""Statuses of an engine that are the client's doing."""


def open_session() -> aiohttp.ClientSession:
    """Return what requests to the engine are sent with: no limit of connections, no cookies, no proxies."""
    return aiohttp.ClientSession(
        # A connection each: an engine may close an idle one at the very moment that it is used again.
        connector=aiohttp.TCPConnector(limit=0, force_close=True),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=10),
        headers={"Accept-Encoding": "identity"},  # a proxy that compresses would hold events back
    )


async def ask(
    session: aiohttp.ClientSession, engine: Engine, running: Running, question: Question
) -> AsyncGenerator[Piece]:
    """Yield the pieces of an answer; those that arrive together are one, unless a text may stop it.

    Closing the iterator closes the connection, at which engines stop generating. Raises `ApiError` if the engine refuses the
    question, goes away, or says what cannot be read.
    """
    headers = {"Authorization": f"Bearer {running.api_key}"} if running.api_key else {}
    try:
        async with session.post(running.url + question.path, json=question.body, headers=headers) as response:
            if response.status != 200:
                raise _refusal(engine, response.status, await response.content.read(_MAX_EVENT))
            rest = b""
            while not response.content.at_eof():
                rest += await response.content.readany()
                whole, newline, rest = rest.rpartition(b"\n")
                if newline:
                    read = [engine.way.read(event) for event in _events(whole)]
                    for piece in read if question.stops else _as_one(read):  # a stop text must not count what follows
                        yield piece
                if len(rest) > _MAX_EVENT:
                    raise _garbage()
    except (aiohttp.ClientError, ConnectionError, asyncio.IncompleteReadError):
        raise ApiError(503, "the engine went away; try again soon", code="engine_lost", retry_after=1) from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise _garbage() from None


async def cut(pieces: AsyncIterator[Piece], stops: Sequence[str], read_on: bool = False) -> AsyncIterator[Piece]:
    """Yield the pieces up to the first of the texts; what may be the beginning of one is held back until it is not.

    Log-probabilities go with their texts. ``read_on``: to the engine's end without text, for its count of tokens.
    """
    held, entries, over = "", list[Logprob](), False
    said = begins = 0  # letters yielded, and those before the first of the entries
    async for piece in pieces:
        if over:
            yield Piece(tokens=piece.tokens, prompt_tokens=piece.prompt_tokens, all_tokens=piece.all_tokens)
            continue
        held, entries = held + piece.text, entries + (piece.logprobs or [])
        ends = [at for at in map(held.find, stops) if at >= 0]
        if ends:
            at, piece.finish, over = min(ends), "stop", True
        else:
            at = len(held) - (0 if piece.finish else max(_begun(held, stop) for stop in stops))
        piece.text, held = held[:at], held[at:]
        said += at
        piece.logprobs = []
        while entries and (begins < said or (piece.finish and not ends)):
            begins += len(entries[0]["token"])
            piece.logprobs.append(entries.pop(0))
        yield piece
        if over and not read_on:
            return  # the caller closes the connection, at which the engine stops


async def merged(streams: Sequence[AsyncGenerator[Piece]]) -> AsyncGenerator[tuple[int, Piece | None]]:
    """Yield the pieces of several answers as they come, by number; None where one has ended. The first error ends all."""
    if len(streams) == 1:  # the usual: no task, no queue
        async with aclosing(streams[0]) as only:
            async for piece in only:
                yield 0, piece
        yield 0, None
        return
    ready = asyncio.Queue[tuple[int, Piece | Exception | None]](maxsize=len(streams))

    async def follow(number: int, stream: AsyncGenerator[Piece]) -> None:
        said: Exception | None = None
        try:
            async with aclosing(stream):
                async for piece in stream:
                    await ready.put((number, piece))
        except Exception as error:
            said = error
        await ready.put((number, said))

    tasks = [asyncio.create_task(follow(number, stream)) for number, stream in enumerate(streams)]
    try:
        left = len(streams)
        while left:
            number, said = await ready.get()
            if isinstance(said, Exception):
                raise said
            left -= said is None
            yield number, said
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(
            *tasks, return_exceptions=True
        )  # their places are free, and the engine's connections closed


def _begun(text: str, stop: str) -> int:
    """Return how many letters at the end of a text may be the beginning of another."""
    return next((n for n in range(min(len(stop), len(text)), 0, -1) if text.endswith(stop[:n])), 0)


def _events(lines: bytes) -> list[dict[str, Any]]:
    events = []
    for line in lines.split(b"\n"):
        name, _, data = line.partition(b":")
        data = data.strip()
        if name == b"error" or (name == b"data" and data.startswith(b'{"error"')):
            raise ApiError(502, "the engine could not finish the answer", code="engine_error")
        if name == b"data" and data != b"[DONE]":
            events.append(json.loads(data))
    return events


def _as_one(pieces: list[Piece]) -> list[Piece]:
    """Return pieces as one, if there are any."""
    if len(pieces) < 2:
        return pieces
    merged = pieces[0]
    for piece in pieces[1:]:
        merged.text += piece.text
        merged.tokens += piece.tokens
        merged.finish = piece.finish or merged.finish
        merged.prompt_tokens = piece.prompt_tokens or merged.prompt_tokens
        merged.all_tokens = piece.all_tokens if piece.all_tokens is not None else merged.all_tokens
        if piece.logprobs:
            merged.logprobs = [*(merged.logprobs or []), *piece.logprobs]
    return [merged]


def _garbage() -> ApiError:
    return ApiError(502, "the engine's answer cannot be read", code="engine_error")


def _refusal(engine: Engine, status: int, body: bytes) -> ApiError:
    if status in (429, 503):
        return ApiError(503, "the engine is busy or not ready; try again soon", code="engine_busy", retry_after=1)
    try:
        said = json.loads(body)
        said = said.get("error", said)
        message = str(said["message"] if isinstance(said, dict) and "message" in said else said.get("detail", said))
    except (ValueError, AttributeError):
        message = ""
    if status not in _PASSED_ON or not message:
        return ApiError(502, f"the engine refused the request (status {status})", code="engine_error")
    shown = message[:500].replace(engine.hidden, engine.model) if engine.hidden else message[:500]
    code = "context_length_exceeded" if "context" in shown and "token" in shown else "engine_refused"
    return ApiError(400, shown, code=code)
