"""A server on this machine in the place of the web: the same addresses, and what goes wrong there."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from xmodel2.eval.download import Web


@dataclass
class Published:
    """What an address gives."""

    content: bytes
    kind: str = "application/octet-stream"
    version: str = '"1"'
    """ETag; "" for none."""
    cuts: list[int] = field(default_factory=list)
    """Bytes after which the connection ends, of this request and the next ones."""
    status: int = 200
    ranges: bool = True


class StandInWeb(Web):
    """``files`` by address; ``asked`` are (address, Range or "")."""

    def __init__(self, port: int) -> None:
        super().__init__(lambda address: f"http://127.0.0.1:{port}/{address}", pause=0)
        self.files, self.asked = dict[str, Published](), list[tuple[str, str]]()


@contextmanager
def stand_in_web() -> Iterator[StandInWeb]:
    """Serve until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            address, begin = self.path[1:], 0
            wanted = self.headers.get("Range", "")
            web.asked.append((address, wanted))
            file = web.files.get(address, Published(b"", status=404))
            same = self.headers.get("If-Range", file.version) == file.version
            if wanted and file.ranges and same and file.status == 200:
                begin = int(wanted.removeprefix("bytes=").removesuffix("-"))
                self.send_response(206 if begin < len(file.content) else 416)
                self.send_header("Content-Range", f"bytes {begin}-{len(file.content) - 1}/{len(file.content)}")
            else:
                self.send_response(file.status)
            self.send_header("Content-Type", file.kind)
            self.send_header("Content-Length", str(len(file.content) - begin))
            if file.version:
                self.send_header("ETag", file.version)
            self.end_headers()
            end = begin + file.cuts.pop(0) if file.cuts else len(file.content)
            self.wfile.write(file.content[begin:end])

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    web = StandInWeb(server.server_port)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield web
    finally:
        server.shutdown()
        server.server_close()
