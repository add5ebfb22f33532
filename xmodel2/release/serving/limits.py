"""Who may ask, how often, and how many at once."""

import asyncio
import hashlib
import hmac
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from xmodel2.errors import XmodelError
from xmodel2.release.serving.api_error import ApiError

_MAX_CLIENTS = 10_000


def read_keys(file: Path, option: str) -> list[str]:
    """Return the keys of a file, one a line. Raises `XmodelError`, which names the option, for a file that has none."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise XmodelError(f"{option} {file}: cannot be read ({error})") from None
    keys = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if not keys:
        raise XmodelError(f"{option} {file}: has no key; write one a line")
    return keys


class Keys:
    """API keys; without any, everybody may ask."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._digests = [_digest(key) for key in keys]

    def __bool__(self) -> bool:
        return bool(self._digests)

    def client(self, authorization: str | None) -> str:
        """Return what names the bearer of a header, "" if no keys are asked for. Raises `ApiError` (401)."""
        if not self._digests:
            return ""
        scheme, _, key = (authorization or "").partition(" ")
        digest = _digest(key.strip())
        # Digests of one length, and all of them: the time taken tells nothing of a key.
        known = sum([hmac.compare_digest(digest, other) for other in self._digests])
        if scheme.lower() != "bearer" or not known:
            message = "wrong API key" if authorization else "an API key is needed: send 'Authorization: Bearer KEY'"
            raise ApiError(401, message, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})
        return digest.hex()


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


class RateLimit:
    """A bucket of ``per_minute`` requests a client, filled evenly; 0: no limit."""

    def __init__(self, per_minute: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute, self._clock = per_minute, clock
        self._size, self._rate = max(1.0, per_minute), per_minute / 60
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str, count: int = 1) -> None:
        """Count a request, or so many answers. Raises `ApiError` (429) if the bucket has not so many left."""
        if not self._per_minute:
            return
        now = self._clock()
        left, then = self._buckets.pop(client, (self._size, now))
        left = min(self._size, left + (now - then) * self._rate)
        self._buckets[client] = (left - count if left >= count else left, now)
        if len(self._buckets) > _MAX_CLIENTS:
            self._buckets.popitem(last=False)  # who asked longest ago
        if left < count:
            raise ApiError(
                429,
                f"more than {self._per_minute:g} requests, or answers, a minute; try again later",
                code="rate_limit_exceeded",
                retry_after=(count - left) / self._rate,
            )


class Places:
    """At most ``at_once`` answers in the engine, and ``queue`` requests waiting, first come first served."""

    def __init__(self, at_once: int, queue: int) -> None:
        self._queue, self._free = queue, asyncio.Semaphore(at_once)
        self.waiting = 0
        self.taken = 0

    @asynccontextmanager
    async def one(self, within: bool = False) -> AsyncIterator[None]:
        """Wait for a place and hold it. Raises `ApiError` (429) if the queue is full.

        ``within``: for another answer to a request that the queue has let in.
        """
        if not within and self._free.locked() and self.waiting >= self._queue:
            raise ApiError(429, "too many requests are waiting; try again later", code="queue_full", retry_after=1)
        self.waiting += 1
        try:
            await self._free.acquire()
        finally:
            self.waiting -= 1
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1
            self._free.release()
