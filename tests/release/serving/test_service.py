"""`xmodel2 serve` as a process: what it prints, its signals, and what it refuses."""

import asyncio
import http.client
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from aiohttp import web

from tests.release.serving.running import CHAT, HELLO, FakeEngine, chunk, stream
from tests.release.serving.test_engine_faults import never_ends
from xmodel2.errors import XmodelError
from xmodel2.release.serving.child import Child
from xmodel2.release.serving.options import ServeOptions
from xmodel2.release.serving.service import keys_of, listen, serve


def refusal(model: Path, **options: object) -> str:
    with pytest.raises(XmodelError) as error:
        serve(model, ServeOptions(**options), lambda url, engine: None)  # type: ignore[arg-type]
    return str(error.value)


@contextmanager
def process(engine: FakeEngine, *options: str) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-m", "xmodel2.cli", "serve", "toy", "--engine", engine.url, "--port", "0", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def request(url: str) -> http.client.HTTPConnection:
    """Send a chat; its answer is not waited for."""
    connection = http.client.HTTPConnection(url.split("/")[2], timeout=20)
    connection.request("POST", CHAT, json.dumps(HELLO))
    return connection


def test_it_says_where_it_is_and_finishes_answers_before_it_ends() -> None:
    go_on = threading.Event()

    async def slow(request: web.Request) -> web.StreamResponse:
        response = await stream(request)
        await response.write(chunk("one"))
        await asyncio.to_thread(go_on.wait, 20)
        await response.write(chunk(" two", "stop"))
        return response

    with FakeEngine(slow).listening() as engine, process(engine, "--json") as serves:
        assert serves.stdout
        assert serves.stderr
        told = json.loads(serves.stdout.readline())
        assert (told["model"], told["engine"]) == ("toy", "other")
        connection = request(told["url"])
        assert engine.heard.wait(20)
        serves.send_signal(signal.SIGTERM)
        assert "1 answers are being finished" in serves.stderr.readline()
        go_on.set()
        assert json.load(connection.getresponse())["choices"][0]["message"]["content"] == "one two"
        assert serves.wait(20) == 0
        assert f"POST {CHAT} 200" in serves.stderr.read()


def test_a_second_signal_does_not_wait() -> None:
    with FakeEngine(never_ends).listening() as engine, process(engine) as serves:
        assert serves.stdout
        assert serves.stderr
        assert "toy (other): chat at http://127.0.0.1:" in serves.stdout.readline()
        curl = serves.stdout.readline()
        assert curl.startswith("curl http://127.0.0.1:")
        connection = request(curl.split()[1])
        assert engine.heard.wait(20)
        serves.send_signal(signal.SIGINT)
        assert "being finished" in serves.stderr.readline()
        serves.send_signal(signal.SIGINT)
        assert serves.wait(20) == 0
        connection.close()


def test_a_port_that_is_taken() -> None:
    with listen("127.0.0.1", 0) as first, pytest.raises(XmodelError, match=r"is in use: .* choose another --port"):
        listen("127.0.0.1", first.getsockname()[1])
    with pytest.raises(XmodelError, match="from 0 to 65535"):
        listen("127.0.0.1", 70_000)
    with pytest.raises(XmodelError, match="cannot listen"):
        listen("192.0.2.1", 0)


def test_what_is_refused(tmp_path: Path) -> None:
    assert "--api-key-file, or --allow-no-key" in refusal(tmp_path, host="0.0.0.0")
    assert "must not be negative" in refusal(tmp_path, slots=-1)
    assert "must not be negative" in refusal(tmp_path, requests_per_minute=math.nan)
    assert "--max-body: must be above 0" in refusal(tmp_path, max_body=0)
    assert "--timeout: must be above 0" in refusal(tmp_path, timeout=math.inf)
    assert "must be auto, vllm, llama, transformers or the URL" in refusal(tmp_path, engine="lama", port=0)
    assert "does not answer as it should" in refusal(tmp_path, engine="http://127.0.0.1:1", port=0)
    assert "or the URL" in refusal(tmp_path, engine="file:///etc", port=0)
    absent = tmp_path / "absent"
    assert "--engine-key-file" in refusal(tmp_path, engine="http://127.0.0.1:1", engine_key_file=absent, port=0)
    assert "takes a native directory" in refusal(tmp_path, engine="transformers", port=0)
    empty = tmp_path / "keys"
    empty.write_text("# none\n\n")
    assert "has no key" in refusal(tmp_path, api_key_file=empty)
    assert "cannot be read" in refusal(tmp_path, api_key_file=absent)
    assert "is empty" in refusal(tmp_path, api_key=("",))


def test_keys_of_a_file_and_of_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# mine\none\n\n two \n")
    assert keys_of(ServeOptions(api_key=("zero",), api_key_file=file)) == ["zero", "one", "two"]


def test_a_child_answers_and_ends_with_all_it_started(tmp_path: Path) -> None:
    (tmp_path / "health").write_text("ok")

    def command(port: int) -> list[str]:
        serves = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", str(tmp_path)]
        return ["sh", "-c", " ".join(serves) + " & echo $! > pid; wait"]

    here = Path.cwd()
    os.chdir(tmp_path)
    try:
        child = Child(command, "/health", {}, "key")
    finally:
        os.chdir(here)
    pid = int((tmp_path / "pid").read_text())
    assert child.alive
    child.close()
    assert not child.alive
    deadline = time.monotonic() + 10
    while _runs(pid) and time.monotonic() < deadline:
        pass
    assert not _runs(pid)


def _runs(pid: int) -> bool:
    try:
        return ") Z" not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


def test_a_child_that_does_not_start_is_quoted() -> None:
    with pytest.raises(XmodelError, match="did not start:\n  no GPU here"):
        Child(lambda port: [sys.executable, "-c", "print('no GPU here')"], "/health", {}, "")
    with pytest.raises(XmodelError, match="no-such-program: No such file"):
        Child(lambda port: ["no-such-program"], "/health", {}, "")


@pytest.mark.parametrize("how", ["our end", "SIGTERM"])
def test_a_child_ends_with_what_ties_it_to_us(how: str) -> None:
    tied = [sys.executable, "-m", "xmodel2.release.serving.tied", "sh", "-c", "echo on; sleep 60"]
    with subprocess.Popen(tied, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdin
        assert process.stdout
        assert process.stdout.readline() == b"on\n"
        process.stdin.close() if how == "our end" else process.terminate()
        assert process.wait(20) == -signal.SIGKILL
        assert process.stdout.read() == b""  # whoever could write there has ended
