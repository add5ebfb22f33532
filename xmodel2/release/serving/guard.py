"""What browsers may do: pages of other origins may not ask, unless named, and names that were bent to us are refused."""

import ipaddress
from collections.abc import Sequence
from urllib.parse import urlsplit

from aiohttp import web

from xmodel2.release.serving.api_error import ApiError

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Server": "xmodel2",
}


class Guard:
    """Checks of the headers Host and Origin.

    A server on loopback answers to loopback's names only: a foreign site whose name was made to point here (DNS
    rebinding) sends its own.
    """

    def __init__(self, host: str, allow_hosts: Sequence[str] = (), allow_origins: Sequence[str] = ()) -> None:
        self._hosts = {*_LOOPBACK, host.lower(), *(name.lower() for name in allow_hosts)} if is_loopback(host) else None
        self._origins = {origin.rstrip("/").lower() for origin in allow_origins}

    def check(self, request: web.Request) -> dict[str, str]:
        """Return the headers of the answer. Raises `ApiError` (403)."""
        host = request.headers.get("Host", "").lower()
        if self._hosts is not None and _name(host) not in self._hosts:
            raise ApiError(403, "the Host header names another machine; see --allow-host", code="host_not_allowed")
        origin = request.headers.get("Origin", "").lower()
        if not origin or _authority(origin) == host:
            return {}
        if "*" not in self._origins and origin not in self._origins:
            raise ApiError(403, "pages of this origin may not ask; see --allow-origin", code="origin_not_allowed")
        return {
            "Access-Control-Allow-Origin": "*" if "*" in self._origins else origin,
            "Access-Control-Allow-Methods": "GET, POST",
            "Access-Control-Allow-Headers": request.headers.get(
                "Access-Control-Request-Headers", "authorization, content-type"
            ),
            "Access-Control-Max-Age": "600",
            "Vary": "Origin",
        }


async def add_headers(request: web.BaseRequest, response: web.StreamResponse) -> None:
    """Give every answer what browsers must know (a signal of aiohttp)."""
    response.headers.update(_HEADERS)
    if "Access-Control-Allow-Origin" in response.headers:
        response.headers["Cross-Origin-Resource-Policy"] = "cross-origin"


def is_loopback(host: str) -> bool:
    """Tell whether only this machine reaches an address or name."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _name(host: str) -> str:
    """Return a Host header without its port, and an IPv6 address without its brackets."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _authority(origin: str) -> str:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""
