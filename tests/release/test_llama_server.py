"""llama.cpp's server in a child process: it answers, tells what is wrong, and never outlives us."""

import contextlib
import os
import select
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from xmodel2.errors import XmodelError

pytest.importorskip("xllamacpp")

from xmodel2.release import llama_server
from xmodel2.release.llama_server import LlamaError, LlamaServer
from xmodel2.release.served import served_model


@pytest.fixture(scope="module")
def gguf(road: Path) -> Path:
    return served_model(road / "run").gguf


@pytest.fixture(scope="module")
def server(gguf: Path) -> Iterator[LlamaServer]:
    with LlamaServer(gguf, slots=2, threads=1) as running:
        yield running


def test_post_and_stream_give_the_same_answer(server: LlamaServer) -> None:
    asked = {"prompt": [1, 300, 301], "n_predict": 6, "temperature": 0, "ignore_eos": True, "return_tokens": True}
    whole = server.post("/completion", asked)["tokens"]
    events = list(server.stream("/completion", asked))
    assert [token for event in events for token in event["tokens"]] == whole
    assert len(whole) == 6
    assert events[-1]["stop"]


def test_a_closed_stream_frees_its_slot(server: LlamaServer) -> None:
    asked = {"prompt": [1, 300], "n_predict": 400, "temperature": 0, "ignore_eos": True}
    for _ in range(3):  # more than there are slots
        stream = server.stream("/completion", asked)
        next(stream)
        stream.close()  # type: ignore[attr-defined]
    assert server.post("/completion", asked | {"n_predict": 2})["tokens_predicted"] == 2


def test_every_slot_has_the_whole_context(server: LlamaServer) -> None:
    assert server.context == 512
    assert server.post("/completion", {"prompt": [1] * 511, "n_predict": 1})["tokens_evaluated"] == 511
    with pytest.raises(LlamaError, match="exceeds the available context size") as caught:
        server.post("/completion", {"prompt": [1] * 513, "n_predict": 1})
    assert caught.value.status == 400


def test_nobody_gets_past_the_key(server: LlamaServer) -> None:
    request = urllib.request.Request(server.url + "/completion", b'{"prompt": "x"}')
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(request)
    assert server.url.startswith("http://127.0.0.1:")
    assert server.api_key not in Path(f"/proc/{server.pid}/cmdline").read_text()


def test_slots_may_share_a_cache(gguf: Path) -> None:
    with LlamaServer(gguf, context=100, slots=4, cache_tokens=300, threads=1) as shared:
        assert shared.post("/completion", {"prompt": [1] * 99, "n_predict": 1})["tokens_predicted"] == 1
        with pytest.raises(LlamaError, match="context size"):
            shared.post("/completion", {"prompt": [1] * 101, "n_predict": 1})


def test_a_killed_child_is_told(gguf: Path) -> None:
    server = LlamaServer(gguf, threads=1)
    assert server.alive
    os.kill(server.pid, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        os.waitid(os.P_PID, server.pid, os.WEXITED | os.WNOWAIT)
    with pytest.raises(LlamaError, match=r"has ended|does not answer") as caught:
        server.post("/completion", {"prompt": [1], "n_predict": 1})
    assert caught.value.status == 0
    server.close()
    assert not server.alive
    server.close()  # once more does no harm


def test_the_child_ends_when_we_are_killed(gguf: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from xmodel2.release.llama_server import LlamaServer\n"
        "print(LlamaServer(Path(sys.argv[1]), threads=1).pid, flush=True); sys.stdin.read()"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program, str(gguf)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout
    child = os.pidfd_open(int(parent.stdout.readline()))
    parent.kill()
    parent.communicate()
    assert select.select([child], [], [], 20)[0]  # readable once the process has ended
    os.close(child)


def test_what_cannot_be_loaded_is_told(gguf: Path, tmp_path: Path) -> None:
    for name, content, message in (
        ("cut.gguf", gguf.read_bytes()[:-5000], "llama.cpp could not load it:.*within the file bounds"),
        ("head.gguf", gguf.read_bytes()[:300], "not a whole GGUF file"),
        ("text.gguf", b"this is text and no model at all", "not a GGUF file"),
        ("empty.gguf", b"", "not a whole GGUF file"),
    ):
        file = tmp_path / name
        file.write_bytes(content)
        with pytest.raises(XmodelError, match=f"(?s){name}: {message}"):
            LlamaServer(file, threads=1)
    for path in (tmp_path, tmp_path / "absent.gguf"):
        with pytest.raises(XmodelError, match="no such file"):
            LlamaServer(path)


def test_a_missing_binding_names_the_extra(gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "xllamacpp.py").write_text("raise ImportError")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(XmodelError, match=r"pip install 'xmodel2\[serve\]'"):
        LlamaServer(gguf)


def test_one_that_does_not_start_in_time_is_ended(gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llama_server, "CHILD", ("-c", "import sys; sys.stdin.readline(); sys.stdin.read()"))
    with pytest.raises(XmodelError, match=r"not ready after 0\.2 s"):
        LlamaServer(gguf, start_seconds=0.2)
