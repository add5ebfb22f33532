"""Any OpenAI-compatible server: what is sent, what is shown, and what a user is told when it goes wrong."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from xmodel2.errors import XmodelError
from xmodel2.release.chatting.address import Address
from xmodel2.release.chatting.open_engine import open_engine
from xmodel2.release.chatting.streams import Sampling, TooLongError, Usage
from xmodel2.tokenizer import Message

HI: list[Message] = [{"role": "user", "content": "hi"}]
MODELS = {"data": [{"id": "small", "max_model_len": 512}, {"id": "large"}]}


class Server:
    """A server whose answers are (status, body) by path; a list of events streams."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, Any]] = {"/v1/models": (200, MODELS)}
        self.asked: list[tuple[str, dict[str, Any], str]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length) or b"{}")
                outer.asked.append((self.path, body, self.headers.get("Authorization", "")))
                status, found = outer.answers.get(self.path, (404, {"error": {"message": "no such path"}}))
                self.send_response(status)
                streams = isinstance(found, list)
                self.send_header("Content-Type", "text/event-stream" if streams else "application/json")
                self.send_header("Location", "http://elsewhere/")
                self.end_headers()
                lines = [row if isinstance(row, str) else f"data: {json.dumps(row)}" for row in found]
                text = (
                    "\n\n".join(lines) + "\n\n" if streams else found if isinstance(found, str) else json.dumps(found)
                )
                self.wfile.write(text.encode())

            do_GET = do_POST = answer

            def log_message(self, format: str, *values: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def says(self, *rows: Any, path: str = "/v1/chat/completions") -> None:
        self.answers[path] = (200, list(rows))

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    opened = Server()
    yield opened
    opened.close()


def piece(text: str, finish: str | None = None) -> dict[str, Any]:
    return {"choices": [{"delta": {"content": text}, "finish_reason": finish}]}


def said(server: Server, sampling: Sampling | None = None, usage: Usage | None = None) -> str:
    return "".join(open_engine(server.url).stream(HI, sampling or Sampling(), usage or Usage()))


def test_an_answer_comes_with_its_usage(server: Server) -> None:
    counts = {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 9}}
    role = {"choices": [{"delta": {"role": "assistant"}}]}
    server.says(": ping", role, piece("Hel"), piece("lo", "length"), counts, "data: [DONE]")
    engine, usage = open_engine(server.url + "/v1/"), Usage()
    assert (engine.model, engine.context) == ("small", 512)
    assert list(engine.stream(HI, Sampling(temperature=0.5), usage)) == ["Hel", "lo"]
    assert (usage.prompt_tokens, usage.tokens, usage.finish) == (7, 9, "length")
    path, body, key = server.asked[-1]
    assert (path, key) == ("/v1/chat/completions", "")
    assert body["messages"] == HI
    assert (body["model"], body["temperature"], body["max_tokens"], body["stream"]) == ("small", 0.5, 256, True)
    assert not {"top_k", "min_p", "repetition_penalty"} & set(body)  # servers refuse what OpenAI does not have


def test_settings_beyond_openai_are_sent_if_asked_for(server: Server) -> None:
    server.says(piece("x"))
    said(server, Sampling(top_k=5, repetition_penalty=1.2))
    assert (server.asked[-1][1]["top_k"], server.asked[-1][1]["repetition_penalty"]) == (5, 1.2)


def test_a_key_comes_from_a_file_and_is_never_shown(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("secret-key\n")
    server.says(piece("x"))
    engine = open_engine(server.url, api_key_file=file)
    assert "".join(engine.stream(HI, Sampling(), Usage())) == "x"
    assert {key for _, _, key in server.asked} == {"Bearer secret-key"}
    for status in (400, 401):
        server.answers["/v1/chat/completions"] = (status, {"error": {"message": "your key is secret-key"}})
        with pytest.raises(XmodelError) as caught:
            list(engine.stream(HI, Sampling(), Usage()))
        assert "secret-key" not in str(caught.value)


def test_the_model_is_chosen_by_name(server: Server) -> None:
    assert open_engine(server.url, name="large").context == 0
    with pytest.raises(XmodelError, match="no model 'huge'; it has small, large"):
        open_engine(server.url, name="huge")
    server.answers["/v1/models"] = (404, {})
    assert open_engine(server.url).model == "default"


@pytest.mark.parametrize(
    ("status", "message"), [(404, "no such path"), (400, "the tokenizer has no chat template"), (501, "no chats")]
)
def test_without_chats_texts_are_continued(server: Server, status: int, message: str) -> None:
    server.answers["/v1/chat/completions"] = (status, {"error": {"message": message}})
    server.says({"choices": [{"text": " there", "finish_reason": "stop"}]}, path="/v1/completions")
    usage = Usage()
    assert said(server, usage=usage) == " there"
    assert "texts are continued" in usage.notes[0]
    assert server.asked[-1][1]["prompt"] == "hi"


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (400, "This model's maximum context length is 512 tokens"),
        (400, "the request exceeds the available context size"),
        (413, "the prompt is too long for the context"),
    ],
)
def test_a_full_context_is_told_apart(server: Server, status: int, message: str) -> None:
    server.answers["/v1/chat/completions"] = (status, {"error": {"message": message}})
    with pytest.raises(TooLongError, match="context"):
        said(server)
    server.answers["/v1/chat/completions"] = (400, {"error": {"message": "no", "code": "context_length_exceeded"}})
    with pytest.raises(TooLongError):
        said(server)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((401, {}), "wants a key: give --api-key-file FILE"),
        ((403, {"error": {"message": "Invalid API key"}}), "wants a key"),
        ((403, {"error": {"message": "unknown host 'box'"}}), "HTTP 403 Forbidden: unknown host 'box'$"),
        ((429, {"error": "slow down"}), "slow down"),
        ((500, "<html>\x1b[2Jbroken"), r"HTTP 500 .*\\x1b\[2Jbroken"),
        ((302, ""), "to http://elsewhere/; give that address"),
        ((200, {"choices": []}), "does not stream"),
        ((200, ["data: {nonsense"]), "no JSON"),
        ((200, [{"error": {"message": "engine died"}}]), "engine died"),
        ((200, ['error: {"message": "engine died"}']), "engine died"),
    ],
)
def test_what_goes_wrong_is_told(server: Server, answer: tuple[int, Any], message: str) -> None:
    server.answers["/v1/chat/completions"] = answer
    with pytest.raises(XmodelError, match=message):
        said(server)


@pytest.mark.parametrize("event", ["data: 3", "data: []", 'data: {"choices": 3}', 'data: {"choices": [{"delta": 1}]}'])
def test_odd_events_say_nothing(server: Server, event: str) -> None:
    server.says(event, piece("x"))
    assert said(server) == "x"


def test_turns_that_leave_little_room_are_too_long(server: Server) -> None:
    server.says(piece("x"), {"choices": [], "usage": {"prompt_tokens": 400, "completion_tokens": 1}})
    engine = open_engine(server.url)
    question: Message = {"role": "user", "content": "a" * 1000}
    assert list(engine.stream([question], Sampling(), Usage())) == ["x"]
    assert list(engine.stream([question], Sampling(), Usage())) == ["x"]  # the server knows better than a guess
    with pytest.raises(TooLongError, match="512 tokens is full"):
        list(engine.stream([question, {"role": "assistant", "content": "x"}, question], Sampling(), Usage()))


def test_nobody_listens(server: Server) -> None:
    server.close()
    with pytest.raises(XmodelError, match="nobody listens there; start a server with `xmodel2 serve MODEL`"):
        open_engine(server.url)


def test_a_list_of_models_that_is_none(server: Server) -> None:
    for found in ("<html>", "[1]", {"data": [3, {"name": "x"}]}):
        server.answers["/v1/models"] = (200, found)
        reading: Callable[[], Any] = Address(server.url).models
        if found == "<html>":
            with pytest.raises(XmodelError, match="is that an OpenAI-compatible server"):
                reading()
        else:
            assert reading() == []


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://", "not an address"),
        ("http://a:b", "not an address"),
        ("http://user:pass@host", "without user"),
        ("http://host/?key=1", "without user"),
    ],
)
def test_addresses_that_are_none(url: str, message: str) -> None:
    with pytest.raises(XmodelError, match=message) as caught:
        open_engine(url)
    assert "pass" not in str(caught.value).replace("password", "")


def test_key_files_that_are_none(tmp_path: Path) -> None:
    for content in (b"", b"two words", b"\xff", b"a\nb"):
        (tmp_path / "key").write_bytes(content)
        with pytest.raises(XmodelError, match="--api-key-file"):
            open_engine("http://127.0.0.1:9", api_key_file=tmp_path / "key")
    with pytest.raises(XmodelError, match="cannot be read"):
        open_engine("http://127.0.0.1:9", api_key_file=tmp_path / "absent")
    with pytest.raises(XmodelError, match="has its own engine"):
        open_engine("http://127.0.0.1:9", "torch")
