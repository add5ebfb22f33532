"""Keeps an engine running: started, watched, started again when it dies, with growing pauses."""

import asyncio
import sys
import threading
import time
from concurrent.futures import Future
from contextlib import suppress

from xmodel2.errors import XmodelError
from xmodel2.release.serving.api_error import ApiError
from xmodel2.release.serving.child import Running
from xmodel2.release.serving.engines import Engine

_LOOK_SECONDS = 0.2
_STEADY_SECONDS = 60.0
"""An engine that ran for so long is started again at once."""


class Supervisor:
    """One engine's process over time. ``pauses`` (seconds) come before each start after a death, the last one repeatedly."""

    def __init__(self, engine: Engine, pauses: tuple[float, ...] = (0.2, 1, 2, 5, 15, 30)) -> None:
        self.engine, self._pauses = engine, pauses
        self._running: Running | None = None
        self._ended = False
        self._watcher: asyncio.Task[None] | None = None
        self.restarts = 0

    @property
    def up(self) -> bool:
        """Whether the engine takes requests, as far as its process tells."""
        return self._running is not None and self._running.alive

    @property
    def pid(self) -> int:
        """Its process, 0 if there is none of ours."""
        return self._running.pid if self._running else 0

    def ready(self) -> Running:
        """Return the running engine. Raises `ApiError` (503) while there is none."""
        if self._running is None or not self._running.alive:
            raise ApiError(503, "the engine is starting; try again soon", code="engine_not_ready", retry_after=1)
        return self._running

    async def begin(self) -> None:
        """Start the engine and watch it. Raises `XmodelError` if it does not start."""
        self._running = await self._start()
        self._watcher = asyncio.create_task(self._watch())

    async def end(self) -> None:
        """Stop watching, and the engine."""
        if self._watcher:
            self._watcher.cancel()
            with suppress(asyncio.CancelledError):
                await self._watcher
        self._ended = True
        if self._running:
            await asyncio.to_thread(self._running.close)
            self._running = None

    async def _start(self) -> Running:
        """Start in a thread that our end does not wait for: loading may take minutes, and what is begun ends with us."""
        started: Future[Running] = Future()

        def start() -> None:
            if not started.set_running_or_notify_cancel():
                return
            try:
                running = self.engine.start()
            except BaseException as error:
                started.set_exception(error)
                return
            started.set_result(running)
            if self._ended:
                running.close()

        threading.Thread(target=start, daemon=True).start()
        return await asyncio.wrap_future(started)

    async def _watch(self) -> None:
        deaths, since = 0, time.monotonic()
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            if self.up:
                continue
            if self._running:
                await asyncio.to_thread(self._running.close)
                self._running = None
            deaths = 0 if time.monotonic() - since > _STEADY_SECONDS else deaths
            pause = self._pauses[min(deaths, len(self._pauses) - 1)]
            print(f"xmodel2: the engine ended; it is started again in {pause:g} s", file=sys.stderr, flush=True)
            await asyncio.sleep(pause)
            deaths += 1
            self.restarts += 1
            since = time.monotonic()
            try:
                self._running = await self._start()
            except (XmodelError, OSError) as error:  # OSError: no memory or file for a process, just now
                print(f"xmodel2: {error}", file=sys.stderr, flush=True)
