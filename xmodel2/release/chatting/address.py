"""An OpenAI-compatible server at an address: its models, and its answers as they come.

The key is in the header of a request and nowhere else; what a server repeats of it is not shown.
"""

import http.client
import json
import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from xmodel2.errors import XmodelError
from xmodel2.page import printable

_LONGEST_WAIT_S = 600.0
_LONGEST_MESSAGE = 500
_LONGEST_LINE = 1 << 20
_LONGEST_LIST = 16 << 20


class AddressError(XmodelError):
    """A server's refusal; ``status`` is HTTP's, 0 if there was no answer, and ``code`` OpenAI's, if there was one."""

    def __init__(self, status: int, message: str, code: str = "") -> None:
        super().__init__(printable(message))  # a server may say anything
        self.status, self.code = status, code


class Address:
    """A server under a URL with or without ``/v1``. Raises `XmodelError` for what is no such URL, and for a bad key file."""

    def __init__(self, url: str, api_key_file: Path | None = None, wait_s: float = _LONGEST_WAIT_S) -> None:
        try:
            parts = urlsplit(url)
            usable, port = parts.scheme in ("http", "https") and parts.hostname, parts.port
        except ValueError:
            usable, port = None, None
        if not usable:
            raise XmodelError(f"{url}: not an address; give one like http://127.0.0.1:8000")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise XmodelError("give the address without user, password and query; a key goes into --api-key-file")
        self._host, self._port, self._secure, self._wait_s = str(parts.hostname), port, parts.scheme == "https", wait_s
        self._prefix = parts.path.rstrip("/").removesuffix("/v1")
        self.url = f"{parts.scheme}://{parts.netloc}{self._prefix}"
        self._key_file, self._key = api_key_file, _read_key(api_key_file) if api_key_file else ""

    def models(self) -> list[dict[str, Any]]:
        """Return what the server lists, each with an ``id``; nothing if it has no list."""
        try:
            with self._open("GET", "/v1/models") as response:
                found = json.loads(response.read(_LONGEST_LIST))
        except AddressError as error:
            if error.status in (404, 405, 501):
                return []
            raise
        except ValueError:
            raise XmodelError(f"{self.url}/v1/models: is no JSON; is that an OpenAI-compatible server?") from None
        rows = found.get("data") if isinstance(found, dict) else None
        return [row for row in rows if isinstance(row, dict) and "id" in row] if isinstance(rows, list) else []

    def stream(self, path: str, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Yield the events of an answer; closing the iterator closes the connection, at which servers stop."""
        with self._open("POST", path, body) as response:
            while line := response.readline(_LONGEST_LINE):
                name, _, data = line.strip().partition(b":")
                if name not in (b"data", b"error") or not data.strip():
                    continue
                if data.strip() == b"[DONE]":
                    return
                try:
                    event = json.loads(data)
                except ValueError:
                    raise AddressError(0, f"{self.url}{path}: an event that is no JSON: {data[:80]!r}") from None
                if isinstance(event, dict):
                    yield {"error": event} if name == b"error" else event
            if not str(response.headers.get_content_type()).endswith("event-stream"):
                raise AddressError(0, f"{self.url}{path}: does not stream; is that an OpenAI-compatible server?")

    @contextmanager
    def _open(self, method: str, path: str, body: dict[str, Any] | None = None) -> Iterator[http.client.HTTPResponse]:
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        connection = kind(self._host, self._port, timeout=self._wait_s)
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        headers |= {"Content-Type": "application/json"} if body is not None else {}
        try:
            connection.request(method, self._prefix + path, json.dumps(body) if body is not None else None, headers)
            response = connection.getresponse()
            if response.status != 200:
                raise self._refusal(path, response)
            yield response
        except ConnectionRefusedError:
            raise AddressError(
                0,
                f"{self.url}: nobody listens there; start a server with `xmodel2 serve MODEL`, or correct the address",
            ) from None
        except ssl.SSLError as error:
            raise AddressError(0, f"{self.url}: no secure connection ({error.reason}); is it http://?") from None
        except TimeoutError:
            raise AddressError(0, f"{self.url}{path}: said nothing for {self._wait_s:g} s") from None
        except (OSError, http.client.HTTPException) as error:
            raise AddressError(0, f"{self.url}: no whole answer ({type(error).__name__}: {error})") from None
        finally:
            connection.close()

    def _refusal(self, path: str, response: http.client.HTTPResponse) -> AddressError:
        status = response.status
        said = f"{self.url}{path}: HTTP {status} {response.reason}"
        message, code = _message(response.read(_LONGEST_LINE))
        if status == 401 or (
            status == 403 and re.search(r"\bkeys?\b|authent|credential|token", message, re.IGNORECASE)
        ):
            what = (
                f"does not take the key in {self._key_file}" if self._key else "wants a key: give --api-key-file FILE"
            )
            return AddressError(status, f"{self.url}: {what} (HTTP {status})")
        if 300 <= status < 400:
            return AddressError(status, f"{said}, to {response.headers.get('Location')}; give that address")
        later = response.headers.get("Retry-After")
        again = f" (again in {later} s)" if later else ""
        return AddressError(status, f"{said}: {self._hidden(message)}{again}", code)

    def _hidden(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text


def _read_key(file: Path) -> str:
    try:
        key = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise XmodelError(f"--api-key-file {file}: cannot be read ({error})") from None
    if not key or not (key.isascii() and key.isprintable()) or " " in key:
        raise XmodelError(f"--api-key-file {file}: must hold the key and nothing else")
    return key


def _message(body: bytes) -> tuple[str, str]:
    """Return the message and the code of an error's body, whatever its form."""
    text = body.decode(errors="replace")
    try:
        found = json.loads(text)
    except ValueError:
        return text.strip()[:_LONGEST_MESSAGE], ""
    error = found.get("error", found) if isinstance(found, dict) else found
    if not isinstance(error, dict):
        return str(error)[:_LONGEST_MESSAGE], ""
    return str(error.get("message", error))[:_LONGEST_MESSAGE], str(error.get("code", ""))
