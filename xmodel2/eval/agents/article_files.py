"""Articles out of the files they go around in, recognised by their content, one after another: a dump need not fit into memory.

    HotpotQA's questions (distractor)    {"question": ..., "context": [["Ed Wood", ["Ed Wood is ...", ...]], ...]}
                                         or "context": {"title": [...], "sentences": [[...], ...]}
    HotpotQA's Wikipedia (abstracts)     {"title": "Ed Wood", "text": ["Ed Wood is ...", ...]}, paragraphs of sentences too
    FEVER's wiki-pages                   {"id": "Ed_Wood_-LRB-film-RRB-", "text": "...", "lines": "0\\t..."}
    Wikimedia's CirrusSearch dump        {"index": ...} and {"namespace": 0, "title": ..., "text": ..., "redirect": [...]} in turn
    anything else                        {"title": ..., "text": ..., "redirects": [...]}, or a "text" that begins with its title

JSON lines or one JSON array, as they are or in gzip, bzip2, zstd, tar or zip; a folder is all such files below it.
"""

import bz2
import gzip
import hashlib
import io
import json
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import zstandard

from xmodel2.errors import XmodelError
from xmodel2.eval.agents.article_store import Article
from xmodel2.eval.agents.article_titles import unescape_text, unescape_title
from xmodel2.eval.agents.json_parts import json_parts

_DATA = re.compile(r"wiki_\d+|.+\.(jsonl?|gz|bz2|zst|zip|tar)")
"""Names of files that a folder is searched for."""
_LONGEST_TITLE = 300
_DAMAGE = (EOFError, OSError, zlib.error, zstandard.ZstdError, zipfile.BadZipFile, tarfile.TarError, UnicodeDecodeError)


def article_files(paths: Sequence[Path]) -> list[Path]:
    """Return the files, and those below folders, sorted. Raises `XmodelError` for what is not there, or a folder without any."""
    files = list[Path]()
    for path in paths:
        found = [path] if path.is_file() else sorted(filter(_is_data, path.rglob("*")))
        if not found:
            missing = f"no files of articles in it ({_DATA.pattern})" if path.is_dir() else "no such file or folder"
            raise XmodelError(f"{path}: {missing}")
        files += found
    return files


def _is_data(path: Path) -> bool:
    return path.is_file() and _DATA.fullmatch(path.name) is not None and not path.name.startswith(".")


def read_articles(files: Sequence[Path], progress: Callable[[str, int, int], None] | None = None) -> Iterator[Article]:
    """Yield the articles of files, as they come. ``progress`` gets ("read", bytes, bytes of all).

    Raises `XmodelError` naming file and line of what is damaged or holds no article.
    """
    total, before = sum(file.stat().st_size for file in files), 0
    for file in files:
        place = "its beginning"
        with open(file, "rb") as raw:
            try:
                for count, (place, row) in enumerate(_rows(str(file), raw)):
                    yield from _articles(place, row)
                    if progress and count % 1000 == 0:
                        progress("read", before + raw.tell(), total)
            except _DAMAGE as error:
                raise XmodelError(
                    f"{file}: damaged, or not whole, after {place.rpartition(', ')[2]} ({error}); get it again"
                ) from None
        before += file.stat().st_size
    if progress:
        progress("read", total, total)


def _rows(name: str, raw: IO[bytes]) -> Iterator[tuple[str, Any]]:
    """Yield (place, value) of JSON lines, or of the elements of an array, in a file and in the files in it."""
    for member, stream in _unpacked(name, raw):
        array = stream.peek(64).lstrip().startswith(b"[")
        yield from _elements(member, stream) if array else _lines(member, stream)


def _unpacked(name: str, raw: Any) -> Iterator[tuple[str, io.BufferedReader]]:
    """Yield (name, content) of a file, or of each file in it."""
    stream = io.BufferedReader(raw, 1 << 16)
    head = stream.peek(512)
    if head.startswith(b"\x1f\x8b"):
        yield from _unpacked(name, gzip.GzipFile(fileobj=stream))
    elif head.startswith(b"BZh"):
        yield from _unpacked(name, bz2.BZ2File(stream))
    elif head.startswith(b"\x28\xb5\x2f\xfd"):
        yield from _unpacked(name, zstandard.ZstdDecompressor().stream_reader(stream, read_across_frames=True))
    elif head.startswith(b"PK\x03\x04"):
        with zipfile.ZipFile(stream) as archive:
            for member in archive.infolist():
                if _is_member(member.filename):
                    yield from _unpacked(f"{name}/{member.filename}", archive.open(member))
    elif head[257:262] == b"ustar":
        with tarfile.open(fileobj=stream, mode="r|") as tape:
            for entry in tape:
                if entry.isfile() and _is_member(entry.name):
                    yield from _unpacked(f"{name}/{entry.name}", tape.extractfile(entry))
    else:
        yield name, stream


def _is_member(name: str) -> bool:
    parts = Path(name).parts
    return bool(parts) and _DATA.fullmatch(parts[-1]) is not None and not any(p.startswith((".", "__")) for p in parts)


def _lines(name: str, stream: io.BufferedReader) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(stream, 1):
        if line.strip():
            try:
                yield f"{name}, line {number}", json.loads(line)
            except (ValueError, RecursionError) as error:
                raise XmodelError(f"{name}, line {number}: not valid JSON ({error})") from None


def _elements(name: str, stream: io.BufferedReader) -> Iterator[tuple[str, Any]]:
    for number, part in enumerate(json_parts(stream, Path(name), "[]", hashlib.sha256()), 1):
        yield f"{name}, entry {number}", part.value


def _articles(place: str, row: Any) -> Iterator[Article]:
    try:
        yield from _of_row(row)
    except ValueError as error:
        raise XmodelError(f"{place}: {error}") from None


def _of_row(row: Any) -> Iterator[Article]:
    if not isinstance(row, dict):
        raise ValueError("not a JSON object")
    if "context" in row:
        yield from _of_question(row["context"])
    elif "lines" in row and "id" in row:
        if row["id"]:
            yield Article(unescape_title(str(row["id"])), unescape_text(_string(row, "text")))
    elif "title" in row and "text" in row:
        if row.get("namespace", 0) == 0:
            yield _of_page(row)
    elif "text" in row:
        yield _with_its_title(_string(row, "text"))
    elif "index" not in row:
        known = "known are 'context', 'id' with 'lines', 'title' with 'text', and 'text'"
        raise ValueError(f"no article: its fields are {', '.join(map(repr, row)) or 'none'}; {known}")


def _of_question(context: Any) -> Iterator[Article]:
    if isinstance(context, Mapping):
        context = list(zip(context.get("title", ()), context.get("sentences", ()), strict=False))
    if not isinstance(context, list) or any(not isinstance(pair, (list, tuple)) or len(pair) != 2 for pair in context):
        raise ValueError("field 'context' must be pairs of a title and sentences")
    for title, sentences in context:
        yield Article(str(title), _joined(sentences))


def _of_page(row: Mapping[str, Any]) -> Article:
    title, text = _string(row, "title"), row["text"]
    text = _joined(text) if isinstance(text, list) else _string(row, "text")
    first, _, rest = text.lstrip().partition("\n")
    if first.strip() == title.strip():
        text = rest.strip()
    opening = row.get("opening_text")
    if isinstance(opening, str) and not text.startswith(opening):
        text = f"{opening}\n{text}"
    names = [name for name in row.get("redirect") or () if isinstance(name, dict) and name.get("namespace", 0) == 0]
    redirects = (*(row.get("redirects") or ()), *(name.get("title", "") for name in names))
    return Article(title, text, tuple(map(str, redirects)))


def _with_its_title(text: str) -> Article:
    first, _, rest = text.lstrip().partition("\n")
    title = first.strip(" =\r")
    if not title or len(title) > _LONGEST_TITLE:
        raise ValueError(f"the first line of 'text' is no title: {title[:60]!r}; give a field 'title'")
    return Article(title, rest.strip())


def _joined(sentences: Any) -> str:
    """Join sentences, that have their spaces with them or not, and paragraphs of them."""
    if not isinstance(sentences, list):
        raise ValueError("sentences must be a list of texts")
    if any(isinstance(part, list) for part in sentences):
        return "\n".join(text for part in sentences if (text := _joined(part).strip()))
    text = ""
    for sentence in map(str, sentences):
        text += sentence if not text or text[-1:].isspace() or sentence[:1].isspace() else f" {sentence}"
    return text


def _string(row: Mapping[str, Any], field: str) -> str:
    if not isinstance(row[field], str):
        raise ValueError(f"field {field!r} is {str(row[field])[:40]!r}, and must be a text")
    value: str = row[field]
    return value
