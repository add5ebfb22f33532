"""The live Wikipedia as articles, through MediaWiki's API; what it answered is kept, so that a resumed run sees the same pages.

    "Ed Wood" -> kept in the cache? -> near match with its whole text -> Found(article)
                                    -> no match, or a page of meanings: full-text search -> Found(similar titles)

Source: API:Search ("nearmatch" is what Wikipedia's search box does) and TextExtracts (pages as plain text).
"""

import hashlib
import json
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode

from xmodel2 import __version__
from xmodel2.errors import XmodelError
from xmodel2.eval.agents.article_store import SIMILAR, Article, Found
from xmodel2.eval.agents.article_titles import clean
from xmodel2.eval.endpoint_client import EndpointClient, UnusableError

API_URL = "https://en.wikipedia.org/w/api.php"
_LONGEST_QUERY = 300
"""Characters that CirrusSearch takes."""
_TIMEOUT_S, _RETRIES, _BACKOFF_S = 30.0, 5, 1.0
_LOCK_S = 60.0
"""That another process may hold the cache."""
_PASSING = ("maxlag", "ratelimited", "readonly")
Read = TypeVar("Read")
_TABLES = """
CREATE TABLE IF NOT EXISTS found(entity TEXT PRIMARY KEY, answer TEXT);
CREATE TABLE IF NOT EXISTS about(name TEXT PRIMARY KEY, value TEXT);
"""


class _Api(EndpointClient):
    """MediaWiki wants to know who asks."""

    def __init__(self, url: str, retries: int, backoff_s: float) -> None:
        super().__init__(url, None, 1, _TIMEOUT_S, retries, backoff_s, seed=0)
        self._session.headers["User-Agent"] = f"xmodel2/{__version__} (evaluation of language models) python-requests"


class Wikipedia:
    """Articles of a MediaWiki with CirrusSearch and TextExtracts, kept in ``cache`` (SQLite) as they were first seen."""

    def __init__(
        self,
        cache: Path,
        url: str = API_URL,
        retries: int = _RETRIES,
        backoff_s: float = _BACKOFF_S,
        lock_s: float = _LOCK_S,
    ) -> None:
        self._api, self._lock, self._cache_path = _Api(url, retries, backoff_s), threading.Lock(), cache
        with self._keeping():
            cache.parent.mkdir(parents=True, exist_ok=True)
            self._cache = sqlite3.connect(cache, timeout=lock_s, check_same_thread=False, isolation_level=None)
            self._cache.executescript(_TABLES)
            about = dict(self._cache.execute("SELECT name, value FROM about").fetchall())
        if about.get("url", self._api.base_url) != self._api.base_url:
            raise XmodelError(f"{cache}: holds pages of {about['url']}; remove it")
        # Written with the first page that is kept: a start that asks nothing dates nothing.
        self._begun: str = about.get("begun") or datetime.now(UTC).isoformat(timespec="seconds")

    @property
    def description(self) -> str:
        """Where, and since when pages are kept."""
        kept = f"pages kept since {self._begun[:10]} in {self._cache_path.name}"
        return f"the live Wikipedia ({self._api.base_url}), {kept}, fingerprint {self.fingerprint[:8]}"

    @property
    def fingerprint(self) -> str:
        """Of the place and of when its pages began to be kept: pages change."""
        return hashlib.sha256(f"{self._api.base_url} {self._begun}".encode()).hexdigest()

    def find(self, entity: str) -> Found:
        """Return an article, or similar titles. Raises `XmodelError` if Wikipedia is out of reach."""
        entity = clean(entity)[:_LONGEST_QUERY]
        if not any(c.isalnum() for c in entity):
            return Found(entity)
        with self._lock:
            answer = self._kept(entity)
            if answer is None:
                answer = self._keep(entity, self._ask(entity))
        if answer["title"]:
            return Found(entity, Article(answer["title"], answer["text"]))
        return Found(answer["entity"], similar=tuple(answer["similar"]))

    def _kept(self, entity: str) -> dict[str, Any] | None:
        with self._keeping():
            row = self._cache.execute("SELECT answer FROM found WHERE entity = ?", (entity,)).fetchone()
            return json.loads(row[0]) if row else None

    def _keep(self, entity: str, answer: dict[str, Any]) -> dict[str, Any]:
        """Keep an answer and return it, or the one of another process that was first: what it saw counts for all."""
        about = [("url", self._api.base_url), ("begun", self._begun)]
        with self._keeping(), self._cache:
            self._cache.execute("BEGIN IMMEDIATE")
            self._cache.executemany("INSERT OR IGNORE INTO about VALUES (?, ?)", about)
            self._cache.execute("INSERT OR IGNORE INTO found VALUES (?, ?)", (entity, json.dumps(answer)))
        return self._kept(entity) or answer

    @contextmanager
    def _keeping(self) -> Iterator[None]:
        """Turn what goes wrong with the cache into an `XmodelError`, which stops a run that can then be gone on with."""
        try:
            yield
        except (sqlite3.Error, OSError, ValueError) as error:
            raise XmodelError(
                f"{self._cache_path}: cannot keep Wikipedia's pages ({error}); if it is locked, or its disk full, mend that and"
                " start again: what was played is kept; if it is damaged, remove it"
            ) from None

    def _ask(self, entity: str) -> dict[str, Any]:
        page = self._query(
            _page,
            "a page with its text",
            generator="search",
            gsrwhat="nearmatch",
            gsrsearch=entity,
            gsrlimit=1,
            prop="extracts|pageprops",
            ppprop="disambiguation",
            explaintext=1,
            exsectionformat="plain",
            exlimit=1,
        )
        meanings = "disambiguation" in page.get("pageprops", {})
        if page.get("extract") and not meanings:
            return {"title": page["title"], "text": page["extract"]}
        found = self._query(_titles, "titles", list="search", srsearch=entity, srlimit=SIMILAR + 1, srnamespace=0)
        similar = [title for title in found if title != page.get("title")][:SIMILAR]
        return {"title": "", "entity": f"[{entity}]" if meanings else entity, "similar": similar}

    def _query(self, read: Callable[[Any], Read], expected: str, **parameters: Any) -> Read:
        fixed = {"action": "query", "format": "json", "formatversion": 2, "redirects": 1, "maxlag": 5}
        try:
            return self._api.ask(f"?{urlencode(fixed | parameters)}", None, lambda got: read(_found(got)), expected)
        except XmodelError as error:
            raise XmodelError(
                f"Wikipedia cannot be asked: {error}; without a network, give a file of `xmodel2 eval articles` as --articles"
            ) from None


def _found(answer: Any) -> Any:
    """Return what was found, {} for nothing; errors come with HTTP 200."""
    if error := answer.get("error"):
        raise UnusableError(f"the error {error['code']!r}", str(error.get("info")), error["code"] in _PASSING)
    return answer.get("query", {})


def _page(found: Any) -> dict[str, Any]:
    page = (found.get("pages") or [{}])[0]
    return {name: page[name] for name in ("title", "extract", "pageprops") if name in page}


def _titles(found: Any) -> list[str]:
    return [entry["title"] for entry in found["search"]]
