"""`xmodel2 serve`: engine and gateway from the start to the last answer."""

import asyncio
import errno
import math
import resource
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from aiohttp import web

from xmodel2.errors import XmodelError
from xmodel2.release.serving.engines import Engine, choose
from xmodel2.release.serving.gateway import Gateway, Policy
from xmodel2.release.serving.guard import Guard, add_headers, is_loopback
from xmodel2.release.serving.limits import Keys, Places, RateLimit, read_keys
from xmodel2.release.serving.options import ServeOptions
from xmodel2.release.serving.supervisor import Supervisor

_IDLE_SECONDS = 75.0
"""A connection that sends no whole request header for so long is closed."""
_NOT_NEGATIVE = ("slots", "context", "threads", "max_concurrent", "max_queue", "requests_per_minute", "drain")


def serve(model: Path, options: ServeOptions, announce: Callable[[str, Engine], None]) -> None:
    """Serve until a signal. ``announce`` is called with the address once the engine answers.

    Raises `XmodelError` for what cannot be served, or not there.
    """
    keys = keys_of(options)
    if not is_loopback(options.host) and not keys and not options.allow_no_key:
        raise XmodelError(
            f"--host {options.host}: everybody on the network could ask; give --api-key-file, or --allow-no-key to let them"
        )
    for name in _NOT_NEGATIVE:
        if not 0 <= getattr(options, name) < math.inf:
            raise XmodelError(f"--{name.replace('_', '-')}: must not be negative")
    for name in ("max_body", "timeout"):
        if not 0 < getattr(options, name) < math.inf:
            raise XmodelError(f"--{name.replace('_', '-')}: must be above 0")
    # Each connection is an open file: with the usual 1,024, somebody who only connects would keep all others out.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with listen(options.host, options.port) as listener:
        asyncio.run(_serve(choose(model, options), options, keys, listener, announce))


def keys_of(options: ServeOptions) -> list[str]:
    """Return the keys of the options. Raises `XmodelError` for a file that has none."""
    keys = [*options.api_key, *(read_keys(options.api_key_file, "--api-key-file") if options.api_key_file else ())]
    if any(not key.strip() for key in keys):
        raise XmodelError("--api-key: is empty")
    return keys


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket, before anything is loaded. Raises `XmodelError` if the port is taken."""
    if not 0 <= port <= 65535:
        raise XmodelError(f"--port {port}: must be from 0 to 65535")
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(256)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            hint = "another server listens there; choose another --port, or 0 for a free one"
            raise XmodelError(f"port {port} of {host} is in use: {hint}") from None
        raise XmodelError(f"cannot listen on port {port} of {host}: {error.strerror}") from None
    return listener


async def _serve(
    engine: Engine,
    options: ServeOptions,
    keys: list[str],
    listener: socket.socket,
    announce: Callable[[str, Engine], None],
) -> None:
    supervisor = Supervisor(engine)
    policy = Policy(
        keys=Keys(keys),
        rate=RateLimit(options.requests_per_minute),
        guard=Guard(options.host, options.allow_host, options.allow_origin),
        places=Places(options.max_concurrent or engine.at_once, options.max_queue),
        max_body=options.max_body,
        timeout=options.timeout,
        quiet=options.quiet,
    )
    gateway = Gateway(supervisor, policy)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    runner = await run_gateway(gateway, listener)
    try:
        beginning = asyncio.create_task(supervisor.begin())
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait([beginning, stopped], return_when=asyncio.FIRST_COMPLETED)
        if not beginning.done():
            beginning.cancel()
            return
        await beginning
        announce(address_of(options.host, listener), engine)
        await stopped
        stop.clear()
        gateway.stopping = True
        if gateway.metrics.in_flight:
            print(f"xmodel2: {gateway.metrics.in_flight} answers are being finished", file=sys.stderr, flush=True)
        drained = asyncio.create_task(gateway.drained())
        again = asyncio.create_task(stop.wait())  # a second signal does not wait
        await asyncio.wait([drained, again], timeout=options.drain, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await supervisor.end()
        await runner.cleanup()


async def run_gateway(gateway: Gateway, listener: socket.socket) -> web.AppRunner:
    """Answer what comes in on a socket; `cleanup` of what is returned ends it."""
    runner = web.AppRunner(
        gateway.app,
        auto_decompress=False,  # bodies with a Content-Encoding are refused
        handler_cancellation=True,  # a client that goes away stops its answer
        access_log=None,
        keepalive_timeout=_IDLE_SECONDS,
        shutdown_timeout=1.0,
    )
    gateway.app.on_response_prepare.append(add_headers)
    await runner.setup()
    await web.SockSite(runner, listener).start()
    return runner


def address_of(host: str, listener: socket.socket) -> str:
    """Return the URL of a listening socket."""
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{listener.getsockname()[1]}"
