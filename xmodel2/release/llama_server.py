"""llama.cpp's own server in a child process: what `serve`, `chat` and the checks of GGUF files talk to.

    with LlamaServer(Path("model.gguf"), slots=4) as server:
        server.post("/completion", {"prompt": [1, 42], "n_predict": 8})["content"]

The child is `python -m xmodel2.release.llama_server`: a crash of C++ ends it and not us. It listens on a free port of
127.0.0.1 behind a random key, so that other users of the machine cannot talk past our gateway, and it ends when its
standard input does, which the kernel sees to however we end.

Each slot has a key/value cache of the whole context. Slots may share one instead (``cache_tokens``, llama.cpp's
``kv_unified``), which saves memory where contexts are long; but every step then looks at the tokens of all (64 slots of 320
tokens on one core: 75 tokens/s instead of 390), and when it is full llama.cpp ends all answers with an error.
"""

import contextlib
import http.client
import json
import os
import re
import secrets
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from xmodel2.cores import usable_cores
from xmodel2.errors import XmodelError
from xmodel2.release.exporting.gguf_read import context_of, read_metadata

BINDING = "xllamacpp"
CHILD = ("-m", "xmodel2.release.llama_server")
_LOG_LINES = 20
_STAMP = re.compile(r"^[\d.]+ [A-Z] ")


class LlamaError(XmodelError):
    """An answer of llama.cpp's server that is an error; ``status`` is its HTTP status, 0 if there was no answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class LlamaServer:
    """A running server of one GGUF file; a context manager. ``url`` and ``api_key`` are what a client needs."""

    def __init__(
        self,
        gguf: Path,
        *,
        context: int = 0,
        slots: int = 1,
        cache_tokens: int = 0,
        threads: int = 0,
        cache_type: str = "f16",
        batch: int = 2048,
        start_seconds: float = 600.0,
    ) -> None:
        """Start it and wait until it answers.

        ``context`` is the tokens of a sequence (0, and at most: what the model was trained on; llama.cpp makes it a multiple
        of 256), ``slots`` how many sequences run at once, ``cache_tokens`` the tokens of a cache that all slots share (0: each
        has its own), ``threads`` those that calculate (0: one a core), ``cache_type`` f16, or f32, with which attention is
        not rounded to f16 anywhere, ``batch`` the tokens that a step takes at most.
        Raises `XmodelError` with llama.cpp's last words if it does not load.
        """
        if not Path(gguf).is_file():
            raise XmodelError(f"{gguf}: no such file; give a .gguf file, as `xmodel2 export --to gguf` writes it")
        self.gguf, self.slots = Path(gguf), slots
        trained = context_of(read_metadata(self.gguf), self.gguf)
        self.context = min(context or trained, trained)
        self.api_key = secrets.token_urlsafe(24)
        asked = {
            "gguf": str(gguf),
            "context": self.context,
            "slots": slots,
            "cache_tokens": cache_tokens,
            "threads": threads or usable_cores(),
            "cache_type": cache_type.upper(),
            "batch": batch,
            "api_key": self.api_key,
        }
        self._log: deque[str] = deque(maxlen=_LOG_LINES)
        self._child = subprocess.Popen(
            [sys.executable, *CHILD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,  # Ctrl-C is for us: who chats stops an answer with it, and `serve` ends in good order
        )
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()
        try:
            self.url = self._started(json.dumps(asked), start_seconds)
        except BaseException:
            self.close()
            raise

    def _started(self, asked: str, seconds: float) -> str:
        assert self._child.stdin
        assert self._child.stdout
        late = threading.Timer(seconds, self._child.kill)
        late.daemon = True
        began = time.monotonic()
        late.start()
        try:
            self._child.stdin.write(asked + "\n")  # not as arguments, which every user of the machine can read
            self._child.stdin.flush()
            url = self._child.stdout.readline().strip()
        except BrokenPipeError:
            url = ""
        finally:
            late.cancel()
        if not url:
            code = self._child.wait()
            if code == _NOT_INSTALLED:
                raise XmodelError("llama.cpp's binding is not installed; pip install 'xmodel2[serve]'")
            if time.monotonic() - began >= seconds:
                raise XmodelError(f"{self.gguf}: llama.cpp was not ready after {seconds:g} s{self._last_words()}")
            raise XmodelError(f"{self.gguf}: llama.cpp could not load it{self._last_words()}")
        return url

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def alive(self) -> bool:
        """Whether the child runs."""
        return self._child.poll() is None

    @property
    def pid(self) -> int:
        """The child's process, whose memory the metrics show."""
        return self._child.pid

    def close(self) -> None:
        """End the child; answers that are being made are cut."""
        self._child.kill()
        self._child.wait()
        self._reader.join(1)
        for pipe in (self._child.stdin, self._child.stdout, self._child.stderr):
            assert pipe
            with contextlib.suppress(OSError):
                pipe.close()

    def post(self, path: str, body: dict[str, Any], seconds: float = 600.0) -> dict[str, Any]:
        """Return the answer to a request; raises `LlamaError` for any other than 200."""
        connection, response = self._send(path, body, seconds)
        try:
            answer: dict[str, Any] = json.loads(response.read())
            return answer
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise self._lost(error) from None
        finally:
            connection.close()

    def stream(self, path: str, body: dict[str, Any], seconds: float = 600.0) -> Iterator[dict[str, Any]]:
        """Yield the events of a request with ``"stream": True``, whose ``seconds`` are the longest wait between two.

        Closing the iterator closes the connection, at which llama.cpp stops generating.
        """
        connection, response = self._send(path, body | {"stream": True}, seconds)
        try:
            for line in response:
                name, _, data = line.partition(b":")
                if name == b"data" and data.strip() != b"[DONE]":
                    yield json.loads(data)
                elif name == b"error":
                    raise LlamaError(500, _message(data))
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise self._lost(error) from None
        finally:
            connection.close()

    def _send(
        self, path: str, body: dict[str, Any], seconds: float
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        connection = http.client.HTTPConnection(self.url.removeprefix("http://"), timeout=seconds)
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self.api_key}"}
        try:
            connection.request("POST", path, json.dumps(body), headers)
            response = connection.getresponse()
            if response.status != 200:
                raise LlamaError(response.status, _message(response.read()))
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise self._lost(error) from None
        except BaseException:
            connection.close()
            raise
        return connection, response

    def _lost(self, error: Exception) -> LlamaError:
        if self.alive:
            return LlamaError(0, f"llama.cpp's server does not answer ({type(error).__name__}: {error})")
        return LlamaError(0, f"llama.cpp's server has ended (exit code {self._child.returncode}){self._last_words()}")

    def _last_words(self) -> str:
        self._reader.join(1)  # the child has ended: what it said last is read, and changes no more
        return ":\n  " + "\n  ".join(self._log) if self._log else ", and said nothing"

    def _read_log(self) -> None:
        assert self._child.stderr
        for line in self._child.stderr:
            self._log.append(_STAMP.sub("", line.rstrip()))


def _message(answer: bytes) -> str:
    try:
        return str(json.loads(answer)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return answer.decode(errors="replace")[:500]


_NOT_INSTALLED = 3


def _child() -> None:
    """Serve what one line of standard input asks for until that input ends."""
    asked = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    say = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what llama.cpp prints is log
    try:
        import xllamacpp
    except ImportError:
        os._exit(_NOT_INSTALLED)
    params = xllamacpp.CommonParams()
    params.model.path = asked["gguf"]
    params.n_parallel = asked["slots"]
    params.n_ctx = asked["cache_tokens"] or asked["slots"] * asked["context"]
    if asked["cache_tokens"]:
        params.kv_unified, params.kv_unified_per_slot = True, asked["context"]
    params.n_batch = asked["batch"]
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = asked["threads"]
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type[f"GGML_TYPE_{asked['cache_type']}"]
    if asked["cache_type"] == "F32":  # flash attention calculates in f16 whatever the cache is
        params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.fit_params = False  # it would shorten the context in silence
    params.cache_ram_mib = 0  # a store of earlier prompts, up to 8 GiB
    params.hostnames, params.port, params.api_keys = ["127.0.0.1"], 0, [asked["api_key"]]
    params.endpoint_metrics, params.ui = True, False
    params.verbosity = 1  # errors
    try:
        server = xllamacpp.Server(params)
    except RuntimeError as error:
        time.sleep(0.3)  # llama.cpp logs by a thread of its own, which no exit waits for: it has still to say why
        print(error, file=sys.stderr, flush=True)
        os._exit(1)
    print(server.listening_address, file=say, flush=True)
    threading.Event().wait()


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    _child()
