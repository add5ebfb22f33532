"""JSON over HTTP to an OpenAI-compatible server that may be slow, busy or broken.

    jobs -> ask_all: some threads -> ask: send, read, wait and try again -> answers as they come

What may pass (no connection, timeout, 429, 5xx, half an answer, garbage) is tried again; what will not is an `XmodelError`
that says what was expected and what came. The key is in the header of a request and nowhere else.
"""

import html
import json
import os
import queue
import random
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar
from urllib.parse import quote, quote_plus, urlsplit

import requests
import urllib3

from xmodel2.errors import XmodelError

_TEMPORARY = {408, 409, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529}
_LONGEST_WAIT_S = 60.0
"""Backoff grows up to here."""
_LONGEST_RETRY_AFTER_S = 600.0
"""A server that wants a longer pause is given up."""
_MAX_BYTES = 64 << 20
"""No answer is larger: a thousandth of it is usual."""
Job = TypeVar("Job")
Answer = TypeVar("Answer")


class EndpointError(XmodelError):
    """No try gave an answer; ``status`` is that of HTTP, 0 if there was none."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class UnusableError(Exception):
    """What came instead of an answer; ``temporary`` if another try may help, ``wait_s`` if the server said when."""

    def __init__(self, came: str, body: str = "", temporary: bool = True, wait_s: float = 0.0, status: int = 0) -> None:
        super().__init__(came)
        self.came, self.body, self.temporary, self.wait_s, self.status = came, body, temporary, wait_s, status


class EndpointClient:
    """A server under one base URL ("http://localhost:8000/v1")."""

    def __init__(
        self,
        base_url: str,
        api_key_env: str | None,
        concurrency: int,
        timeout_s: float,
        retries: int,
        backoff_s: float,
        seed: int,
    ) -> None:
        if concurrency < 1 or retries < 0 or not 0 < timeout_s < threading.TIMEOUT_MAX:
            raise XmodelError(
                f"endpoint: --concurrency {concurrency} must be 1 or more, --timeout {timeout_s:g} above 0 seconds, and "
                f"retries ({retries}) 0 or more"
            )
        self.base_url = _base_url(base_url)
        self.concurrency, self._timeout_s, self._retries = concurrency, timeout_s, retries
        self._backoff_s, self._seed, self._api_key_env = backoff_s, seed, api_key_env
        self._key = (os.environ.get(api_key_env) or "").strip() if api_key_env else ""
        if not (self._key.isascii() and self._key.isprintable()):
            raise XmodelError(f"{api_key_env}: holds characters that no key has; set it again")
        self._written = _writings(self._key)
        self._session = requests.Session()
        adapter = requests.adapters.HTTPAdapter(pool_connections=1, pool_maxsize=concurrency)
        self._session.mount("http://", adapter)
        self._session.mount("https://", adapter)

    def ask_all(
        self, jobs: Iterable[Job], ask: Callable[[Job, threading.Event], Answer]
    ) -> Iterator[tuple[Job, Answer]]:
        """Yield (job, answer) as answers come. If one fails, those under way are still yielded before its error is raised.

        ``ask`` also gets the event that tells it to try no more.
        """
        todo, lock, stop = iter(jobs), threading.Lock(), threading.Event()
        done: queue.SimpleQueue[tuple[Job, Answer] | Exception | None] = queue.SimpleQueue()

        def work() -> None:
            try:
                while not stop.is_set():
                    with lock:
                        job = next(todo)
                    done.put((job, ask(job, stop)))
            except StopIteration:
                pass
            except Exception as error:
                stop.set()
                done.put(error)
            done.put(None)

        # Daemons: an interrupted evaluation does not wait for a server that hangs.
        for _ in range(self.concurrency):
            threading.Thread(target=work, daemon=True).start()
        failure, working = None, self.concurrency
        try:
            while working:
                found = done.get()
                if found is None:
                    working -= 1
                elif isinstance(found, Exception):
                    failure = failure or found
                else:
                    yield found
        finally:
            stop.set()
        if failure:
            raise failure

    def ask(
        self,
        path: str,
        body: dict[str, Any] | None,
        read: Callable[[Any], Answer],
        expected: str,
        stop: threading.Event | None = None,
    ) -> Answer:
        """Return what ``read`` makes of the JSON that comes back for ``body`` (None: GET).

        ``read`` raises `UnusableError`, or KeyError, IndexError or TypeError for a field that is not there. Raises
        `EndpointError` when no try gave what was ``expected``.
        """
        chance = random.Random(f"{self._seed} {path} {json.dumps(body)}")
        for attempt in range(self._retries + 1):
            text = ""
            try:
                text = self._send(path, body)
                return read(_parse(text))
            except UnusableError as error:
                failure = error
            except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
                failure = UnusableError(f"JSON that lacks a field ({type(error).__name__}: {error})")
            failure.body = failure.body or text
            if failure.status in (401, 403):  # servers repeat the key there, in parts or otherwise written
                failure.body = ""
            if not failure.temporary or attempt == self._retries:
                break
            backoff = self._backoff_s * 2**attempt * (0.5 + chance.random())
            if (stop or threading.Event()).wait(max(failure.wait_s, min(backoff, _LONGEST_WAIT_S))):
                break
        tries = f" in {attempt + 1} tries" if attempt else ""
        shown = f": {self.hide(failure.body)[:200]!r}" if failure.body else ""
        raise EndpointError(
            f"{self.base_url}{path}: expected {expected}, but{tries} came {self.hide(failure.came)}{shown}",
            failure.status,
        )

    def _send(self, path: str, body: dict[str, Any] | None) -> str:
        """Return the body of a successful answer, within the time limit; raises `UnusableError`."""
        deadline = time.monotonic() + self._timeout_s
        url = self.base_url + path
        try:
            with self._session.request(
                "GET" if body is None else "POST",
                url,
                json=body,
                auth=self._authorize,
                timeout=self._timeout_s,
                stream=True,
                allow_redirects=False,
            ) as response:
                parts, size = list[bytes](), 0
                while part := response.raw.read1(1 << 16, decode_content=True):
                    parts.append(part)
                    size += len(part)
                    if size > _MAX_BYTES:
                        raise UnusableError(f"more than {_MAX_BYTES >> 20} MiB", temporary=False)
                    if time.monotonic() > deadline:
                        raise UnusableError(f"only a part within {self._timeout_s:g} s")
                text = b"".join(parts).decode("utf-8", errors="replace")
                if response.status_code == 200:
                    return text
                raise self._refusal(response, text)
        except (requests.Timeout, urllib3.exceptions.TimeoutError):
            raise UnusableError(f"nothing within {self._timeout_s:g} s") from None
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            raise UnusableError(f"no whole answer ({_root(error)})") from None

    def _refusal(self, response: requests.Response, text: str) -> UnusableError:
        code = response.status_code
        came, temporary, wait = f"HTTP {code} {response.reason}", code in _TEMPORARY, 0.0
        if 300 <= code < 400:
            came += f" to {response.headers.get('Location')} (give that URL)"
        elif code in (401, 403):
            name = self._api_key_env
            came += (
                f" (is the key in {name} right?)"
                if self._key
                else f" ({name} holds no key)"
                if name
                else " (no key was given)"
            )
        elif temporary:
            wait = retry_after_s(response.headers.get("Retry-After"))
            if wait > _LONGEST_RETRY_AFTER_S:
                came, temporary = f"{came} that asks for a pause of {wait:.0f} s", False
        return UnusableError(came, text, temporary, wait, code)

    def _authorize(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        # A callable also keeps ~/.netrc from being sent.
        if self._key:
            request.headers["Authorization"] = f"Bearer {self._key}"
        return request

    def hide(self, text: str) -> str:
        """Return a text of the server's without the key, however it is written."""
        return self._written.sub("***", text) if self._written else text


def _writings(key: str) -> re.Pattern[str] | None:
    """Return what finds a key as it is, as in JSON, in a URL or in HTML."""
    in_json = json.dumps(key)[1:-1]
    found = {key, in_json, key.replace("/", r"\/"), in_json.replace("/", r"\/"), html.escape(key), quote_plus(key)}
    found |= {quote(key), quote(key, safe="")}
    longest_first = sorted(map(re.escape, found), key=len, reverse=True)
    return re.compile("|".join(longest_first), re.IGNORECASE) if key else None


def retry_after_s(value: str | None) -> float:
    """Return the seconds of a Retry-After header, a number or a date; 0 if it says nothing.

    >>> retry_after_s("2"), retry_after_s("Thu, 01 Jan 1970 00:00:00 GMT"), retry_after_s("soon"), retry_after_s(None)
    (2.0, 0.0, 0.0, 0.0)
    """
    if not value:
        return 0.0
    if value.isascii() and value.strip().isdigit():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0


def _root(error: BaseException) -> str:
    """Return what the libraries in between have wrapped, such as ConnectionRefusedError."""
    while error.__context__ is not None:
        error = error.__context__
    return f"{type(error).__name__}: {error}"


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise UnusableError("no JSON" if text.strip() else "an empty answer") from None


def _base_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname)
        secret = bool(parts.username or parts.password or parts.query or parts.fragment)
        _ = parts.port  # raises if it is none
    except ValueError:
        usable, secret = False, "@" in url or "?" in url
    # Not shown where it may be secret: results and errors name the URL.
    if secret:
        raise XmodelError(
            "endpoint: give the URL without user, password and query; the key comes from an environment variable"
        )
    if not usable:
        raise XmodelError(f"endpoint {url!r}: not an http or https URL; give one like http://localhost:8000/v1")
    return url.rstrip("/").removesuffix("/completions").removesuffix("/chat")
