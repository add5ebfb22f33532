"""A server that speaks OpenAI's interface and says what a test wrote: the chat page is served as the gateway does it."""

import json
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import xmodel2

PAGE = Path(xmodel2.__file__).parent / "release" / "serving" / "page"
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
DONE = b"data: [DONE]\n\n"


def event(text: str = "", reason: str | None = None, **more: Any) -> bytes:
    """Return a piece of an answer as an event of the stream."""
    choice = {"index": 0, "delta": {"content": text} if text else {}, "finish_reason": reason}
    return f"data: {json.dumps({'choices': [choice], **more}, ensure_ascii=False)}\n\n".encode()


@dataclass
class Reply:
    """What the server does at one request for an answer."""

    parts: list[bytes | threading.Event] = field(default_factory=list)
    """Sent one by one, each at once; an event is waited for."""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    whole: bool = True
    """False: the connection ends in the middle."""
    gone: threading.Event = field(default_factory=threading.Event)
    """Set when the page has left before the end."""


def says(*texts: str, reason: str = "stop", tokens: int | None = None) -> Reply:
    """Return an answer of these pieces."""
    count = len(texts) if tokens is None else tokens
    usage = {"prompt_tokens": 10, "completion_tokens": count, "total_tokens": 10 + count}
    return Reply([*map(event, texts), event(reason=reason, usage=usage), DONE])


def refuses(status: int, message: str = "No.", code: str = "refused", **headers: str) -> Reply:
    """Return an error as OpenAI's interface tells it."""
    body = json.dumps({"error": {"message": message, "type": "error", "code": code}}).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply([body], status, {"Content-Type": "application/json", **named})


@dataclass
class ScriptedServer:
    """``replies`` are given one after another; ``asked`` are the requests' bodies, ``keys`` their Authorization."""

    address: str = ""
    model: str = "tiny-model"
    context: int = 512
    key: str = ""
    replies: list[Reply] = field(default_factory=list)
    asked: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)


@contextmanager
def scripted_server() -> Iterator[ScriptedServer]:
    """Serve the page and the script until the block ends."""
    script = ScriptedServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            name = self.path[1:] or "index.html"
            if name == "v1/models":
                entry = {"id": script.model, "object": "model", "max_model_len": script.context}
                self.answer(self.checked(Reply([json.dumps({"data": [entry]}).encode()])), "application/json")
            elif (PAGE / name).is_file():
                policy = {"Content-Security-Policy": POLICY}
                self.answer(Reply([(PAGE / name).read_bytes()], headers=policy), TYPES[Path(name).suffix])
            else:
                self.answer(refuses(404))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            reply = self.checked(None)
            if reply is None:
                script.asked.append(body)
                reply = script.replies.pop(0)
            self.answer(reply)

        def checked(self, reply: Any) -> Any:
            script.keys.append(self.headers.get("Authorization", ""))
            return reply if script.keys[-1] == (script.key and f"Bearer {script.key}") else refuses(401)

        def answer(self, reply: Reply, kind: str = "text/event-stream") -> None:
            self.send_response(reply.status)
            for name, value in {"Content-Type": kind, **reply.headers, "Transfer-Encoding": "chunked"}.items():
                self.send_header(name, value)
            self.end_headers()
            try:
                for part in reply.parts:
                    if isinstance(part, bytes):
                        self.wfile.write(b"%x\r\n%b\r\n" % (len(part), part))
                    elif not self.waited(part):
                        raise ConnectionResetError
                if reply.whole:
                    self.wfile.write(b"0\r\n\r\n")
            except ConnectionError:
                reply.gone.set()
            self.close_connection = reply.gone.is_set() or not reply.whole

        def waited(self, gate: threading.Event) -> bool:
            """Return whether the event came before the page left."""
            while not gate.wait(0.02):
                if select.select([self.connection], [], [], 0)[0] and not self.connection.recv(1, socket.MSG_PEEK):
                    return False
            return True

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        script.address = f"http://127.0.0.1:{server.server_port}/"
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield script
        finally:
            server.shutdown()
