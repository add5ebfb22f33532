"""Articles out of the files they go around in, recognised by their content, one after another: a dump need not fit into memory.

    HotpotQA's questions (distractor)    {"question": ..., "context": [["Ed Wood", ["Ed Wood is ...", ...]], ...]}
                                         or "context": {"title": [...], "sentences": [[...], ...]}
    HotpotQA's Wikipedia (abstracts)     {"title": "Ed Wood", "text": ["Ed Wood is ...", ...]}, paragraphs of sentences too
    FEVER's wiki-pages                   {"id": "Ed_Wood_-LRB-film-RRB-", "text": "...", "lines": "0\\t..."}
    Wikimedia's CirrusSearch dump        {"index": ...} and {"namespace": 0, "title": ..., "text": ..., "redirect": [...]} in turn
    anything else                        {"title": ..., "text": ..., "redirects": [...]}, or a "text" that begins with its title

Packed as `packed_rows` reads it; a folder is all such files below it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from xmodel2.errors import XmodelError
from xmodel2.eval.agents.article_store import Article
from xmodel2.eval.agents.article_titles import unescape_text, unescape_title
from xmodel2.eval.agents.hotpotqa_rows import titled
from xmodel2.eval.agents.packed_rows import DATA_NAME, packed_rows

_LONGEST_TITLE = 300
_REPORTED = 1000
"""Rows between two reports of progress."""


def article_files(paths: Sequence[Path]) -> list[Path]:
    """Return the files, and those below folders, sorted. Raises `XmodelError` for what is not there, or a folder without any."""
    files = list[Path]()
    for path in paths:
        found = [path] if path.is_file() else sorted(filter(_is_data, path.rglob("*")))
        if not found:
            missing = f"no files of articles in it ({DATA_NAME.pattern})" if path.is_dir() else "no such file or folder"
            raise XmodelError(f"{path}: {missing}")
        files += found
    return files


def _is_data(path: Path) -> bool:
    return path.is_file() and DATA_NAME.fullmatch(path.name) is not None and not path.name.startswith(".")


def read_articles(files: Sequence[Path], progress: Callable[[str, int, int], None] | None = None) -> Iterator[Article]:
    """Yield the articles of files, as they come. ``progress`` gets ("read", bytes, bytes of all).

    Raises `XmodelError` naming file and line of what is damaged or holds no article.
    """
    total, before, rows = sum(file.stat().st_size for file in files), 0, 0

    def on_row(done: int) -> None:
        nonlocal rows
        rows += 1
        if progress and rows % _REPORTED == 0:
            progress("read", before + done, total)

    for file in files:
        for place, row in packed_rows(file, on_row):
            try:
                yield from _of_row(row)
            except ValueError as error:
                raise XmodelError(f"{place}: {error}") from None
        before += file.stat().st_size
    if progress:
        progress("read", total, total)


def _of_row(row: Any) -> Iterator[Article]:
    if not isinstance(row, dict):
        raise ValueError("not a JSON object")
    if "context" in row:
        for title, sentences in titled(row["context"], "context", "sentences"):
            yield Article(title, _joined(sentences, "sentences"))
    elif "lines" in row and "id" in row:
        if title := _text(row, "id"):
            yield Article(unescape_title(title), unescape_text(_text(row, "text")))
    elif "title" in row and "text" in row:
        if row.get("namespace", 0) == 0:
            yield _of_page(row)
    elif "text" in row:
        yield _with_its_title(_text(row, "text"))
    elif "index" not in row:
        known = "known are 'context', 'id' with 'lines', 'title' with 'text', and 'text'"
        raise ValueError(f"no article: its fields are {', '.join(map(repr, row)) or 'none'}; {known}")


def _of_page(row: Mapping[str, Any]) -> Article:
    title, text = _text(row, "title"), row["text"]
    text = _joined(text, "field 'text'") if isinstance(text, list) else _text(row, "text")
    first, _, rest = text.lstrip().partition("\n")
    if first.strip() == title.strip():
        text = rest.strip()
    opening = row.get("opening_text")
    if isinstance(opening, str) and not text.startswith(opening):
        text = f"{opening}\n{text}"
    pages = [page for page in _names(row, "redirect", dict) if page.get("namespace", 0) == 0]
    return Article(title, text, (*_names(row, "redirects", str), *(_text(page, "title") for page in pages)))


def _names(row: Mapping[str, Any], field: str, of: type) -> list[Any]:
    value = row.get(field)
    return [] if value is None else _list(value, f"field {field!r}", of)


def _with_its_title(text: str) -> Article:
    first, _, rest = text.lstrip().partition("\n")
    title = first.strip(" =\r")
    if not title or len(title) > _LONGEST_TITLE:
        raise ValueError(f"the first line of 'text' is no title: {title[:60]!r}; give a field 'title'")
    return Article(title, rest.strip())


def _joined(sentences: Any, name: str) -> str:
    """Join sentences, that have their spaces with them or not, and paragraphs of them."""
    if isinstance(sentences, list) and any(isinstance(part, list) for part in sentences):
        return "\n".join(text for part in sentences if (text := _joined(part, name).strip()))
    text = ""
    for sentence in _list(sentences, name, str):
        text += sentence if not text or text[-1:].isspace() or sentence[:1].isspace() else f" {sentence}"
    return text


def _list(value: Any, name: str, of: type) -> list[Any]:
    if not isinstance(value, list) or not all(isinstance(one, of) for one in value):
        raise ValueError(f"{name} must be a list of {'texts' if of is str else 'objects'}, and is {str(value)[:40]!r}")
    return value


def _text(row: Mapping[str, Any], field: str) -> str:
    value = row.get(field)
    if not isinstance(value, str):
        raise ValueError(f"field {field!r} is {str(value)[:40]!r}, and must be a text")
    return value
