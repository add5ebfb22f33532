"""A server on loopback that answers: a child process of ours, or one that somebody else started."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from xmodel2.errors import XmodelError

_START_SECONDS = 900.0
_LOG_LINES = 12
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Asks engines past the proxies of the environment, which should not see our keys and cannot reach our ports."""


class Running(Protocol):
    """A server that answers."""

    @property
    def url(self) -> str: ...
    @property
    def api_key(self) -> str: ...
    @property
    def pid(self) -> int: ...
    @property
    def alive(self) -> bool: ...
    def close(self) -> None: ...


class Child:
    """A server's process, tied to ours: it ends however we end. ``command`` is given a port."""

    def __init__(self, command: Callable[[int], list[str]], ready: str, environment: dict[str, str], key: str) -> None:
        self.api_key = key
        port = _free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._log: deque[str] = deque(maxlen=_LOG_LINES)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "xmodel2.release.serving.tied", *command(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**os.environ, **environment},
            start_new_session=True,  # Ctrl-C is ours: answers are finished first
        )
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()
        try:
            self._wait(self.url + ready, time.monotonic() + _START_SECONDS)
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """The process that ties the server to ours."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    def close(self) -> None:
        """End it, and what it started."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._reader.join(1)

    def _wait(self, url: str, until: float) -> None:
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {self.api_key}"})
        while self.alive:
            try:
                with DIRECT.open(request, timeout=5):
                    return
            except (OSError, urllib.error.URLError):
                if time.monotonic() > until:
                    raise XmodelError(f"the engine does not answer after {_START_SECONDS:.0f} s") from None
            time.sleep(0.1)
        self._reader.join(1)
        raise XmodelError("the engine did not start:\n  " + "\n  ".join(self._log))

    def _read_log(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            self._log.append(line.rstrip())


@dataclass(frozen=True)
class Elsewhere:
    """A server that somebody else started."""

    url: str
    api_key: str
    pid: int = 0
    alive: bool = True

    def close(self) -> None:
        """Leave it as it is."""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
