"""Files from the web: streamed to disk, gone on with where a download was stopped, and there whole or not at all.

    Web().download(("https://host/rows.json", "https://mirror/rows.json"), folder / "rows.json")

What a stopped one leaves is rows.json.part, and rows.json.part.json: the address, size and version of what it is a part of.
"""

import http.client
import re
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

from xmodel2.errors import XmodelError
from xmodel2.files import fsync_dir, read_json, write_json_atomic
from xmodel2.page import printable

OnBytes = Callable[[int, int], None]
"""Receives (bytes that are here, bytes of the file), the latter 0 where the server does not say."""
_CHUNK = 2**20
_DRIVE = "https://drive.usercontent.google.com/"
_FAILURES = 3
"""In a row, without a byte between them, after which an address is given up."""
_SECONDS = 30.0
"""That a server may be silent."""


def drive_address(file_id: str) -> str:
    """Return where Google Drive gives a file, past the page that says it was not checked for viruses."""
    return f"{_DRIVE}download?{urlencode({'id': file_id, 'export': 'download', 'confirm': 't'})}"


class UnavailableError(XmodelError):
    """An address that does not give its file; the message is the reason."""


class Web:
    """The web; with ``located``, which maps an address to the one that is asked, what stands in for it.

    ``pause`` is what is waited after the first failure in a row, in seconds; twice that after the next.
    """

    def __init__(self, located: Callable[[str], str] = str, pause: float = 1.0) -> None:
        self._located, self._pause = located, pause

    def download(self, addresses: Sequence[str], to: Path, on_bytes: OnBytes | None = None) -> str:
        """Write a file from the first address that gives it, and return that address.

        Raises `UnavailableError` with the reason of each if none does, `XmodelError` if the disk is too small.
        """
        to.parent.mkdir(parents=True, exist_ok=True)
        begun = _Part(to).about.get("address")
        reasons = []
        for address in sorted(addresses, key=lambda address: address != begun):
            try:
                self._download(address, _Part(to), on_bytes or (lambda done, size: None))
                return address
            except UnavailableError as error:
                reasons.append(f"{address}: {error}")
        raise UnavailableError("; ".join(reasons))

    def _download(self, address: str, part: "_Part", on_bytes: OnBytes) -> None:
        failures = 0
        while True:
            before = part.size
            try:
                self._receive(address, part, on_bytes)
                return
            except HTTPError as error:
                reason = f"HTTP {error.code} {one_line(str(error.reason))}"
                if error.code < 500 and error.code not in (408, 416, 429):
                    raise UnavailableError(reason) from None
                if error.code == 416:  # our part is no beginning of what is there now
                    part.discard()
            except (OSError, http.client.HTTPException) as error:
                reason = one_line(f"{getattr(error, 'reason', error) or type(error).__name__}")
            failures = 1 if part.size > before else failures + 1
            if failures == _FAILURES:
                raise UnavailableError(reason)
            time.sleep(self._pause * 2 ** (failures - 1))

    def _receive(self, address: str, part: "_Part", on_bytes: OnBytes) -> None:
        begin = part.size if part.about.get("address") == address else 0
        if begin and begin == part.about["bytes"]:
            part.publish()
            return
        headers = {"User-Agent": "xmodel2", "Accept-Encoding": "identity"}
        if begin:
            headers["Range"] = f"bytes={begin}-"
            if part.about["version"]:
                headers["If-Range"] = part.about["version"]
        with self._open(address, headers) as response:
            if response.status == 206:
                about = _about(address, response, response.headers.get("Content-Range", "").rpartition("/")[2])
                if about != part.about or not response.headers["Content-Range"].startswith(f"bytes {begin}-"):
                    part.discard()
                    raise OSError("another version of the file is there now")
            else:
                begin = 0
                about = _about(address, response, response.headers.get("Content-Length"))
                part.begin(about)
            if about["bytes"] and shutil.disk_usage(part.file.parent).free < about["bytes"] - begin:
                needed = about["bytes"] - begin
                raise XmodelError(f"{part.file.parent}: the disk has no room for {needed:,} more bytes of {address}")
            with open(part.file, "ab") as handle:
                while chunk := response.read(_CHUNK):
                    handle.write(chunk)
                    on_bytes(handle.tell(), about["bytes"])
        if about["bytes"] and part.size != about["bytes"]:
            raise OSError(f"the connection ended after {part.size:,} of {about['bytes']:,} bytes")
        part.publish()

    def _open(self, address: str, headers: dict[str, str]) -> Any:
        page = ""
        for _ in range(2):
            response = urlopen(Request(self._located(address), headers=headers), timeout=_SECONDS)
            if response.headers.get_content_type() != "text/html":
                return response
            with response:
                page = response.read(_CHUNK).decode(errors="replace")
            address = _form_address(page)
            if not address.startswith(_DRIVE):
                break
        found = re.search(r"<title[^>]*>(.*?)</title>", page, re.DOTALL | re.IGNORECASE)
        title = f" ({one_line(found[1])})" if found else ""
        raise UnavailableError(f"gives a web page{title} instead of the file")


class _Part:
    """The beginning of a file, and what it is the beginning of."""

    def __init__(self, to: Path) -> None:
        self._to, self.file = to, to.with_name(f"{to.name}.part")
        self._note = to.with_name(f"{to.name}.part.json")
        self.about: dict[str, Any] = {}
        with suppress(XmodelError):
            about = read_json(self._note) if self.file.exists() else None
            self.about = about if isinstance(about, dict) and about.keys() == {"address", "bytes", "version"} else {}

    @property
    def size(self) -> int:
        """Bytes that are here."""
        return self.file.stat().st_size if self.file.exists() else 0

    def begin(self, about: dict[str, Any]) -> None:
        """Begin anew with the first byte of another file."""
        self.discard()
        self.file.touch()
        write_json_atomic(self._note, about)
        self.about = about

    def discard(self) -> None:
        """Forget it."""
        self.about = {}
        self.file.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)

    def publish(self) -> None:
        """Give it its name: it is whole."""
        self.file.replace(self._to)
        self._note.unlink(missing_ok=True)
        fsync_dir(self._to.parent)


def _about(address: str, response: Any, size: str | None) -> dict[str, Any]:
    tag = response.headers.get("ETag", "")
    version = response.headers.get("Last-Modified", "") if tag.startswith("W/") or not tag else tag
    return {"address": address, "bytes": int(size) if size and size.isdigit() else 0, "version": version}


class _DownloadForm(HTMLParser):
    """The form of the page that Google Drive shows before a large file."""

    def __init__(self) -> None:
        super().__init__()
        self.action, self.fields = "", dict[str, str]()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take the form's address and fields."""
        named = {name: value or "" for name, value in attrs}
        if tag == "form" and named.get("id") == "download-form":
            self.action = named.get("action", "")
        elif tag == "input" and self.action and named.get("name"):
            self.fields[named["name"]] = named.get("value", "")


def _form_address(page: str) -> str:
    form = _DownloadForm()
    form.feed(page)
    return f"{form.action}?{urlencode(form.fields)}" if form.action else ""


def one_line(text: str, longest: int = 80) -> str:
    r"""Return a server's words on one line, with what a terminal would obey written out.

    >>> one_line("Quota\n exceeded\x1b[31m")
    'Quota exceeded\\x1b[31m'
    """
    line = printable(" ".join(text.split()))
    return line if len(line) <= longest else f"{line[:longest]}..."
