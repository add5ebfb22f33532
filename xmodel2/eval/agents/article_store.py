"""Articles to search and to read, of HotpotQA and FEVER: one interface, and its embedded store, SQLite with a full-text index.

    articles -> build_store -> articles.sqlite -> ArticleStore.find("Ed Wood") -> Found(article) or Found(similar titles)

A title is found as Wikipedia's search box finds it: as written, else without case, accents and underscores, else as a redirect. A
page of meanings ("X may refer to:") is no article: as in ReAct, "[X]" is searched then. Similar titles are the articles that
hold all words of what was asked, then those that hold any of its rarest, best first by BM25, a word of the title counting
tenfold. Words that are too common are left out, so that a search takes as long in a large store as in a small one.
"""

import glob
import hashlib
import itertools
import json
import os
import re
import sqlite3
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any, Protocol, runtime_checkable
from urllib.parse import quote

from filelock import FileLock

from xmodel2.errors import XmodelError
from xmodel2.eval.agents.article_titles import clean, query_words, title_key, title_spans
from xmodel2.files import writing_atomic

SIMILAR = 5
"""Titles that are told instead of an article, as in ReAct."""
FORMAT = 1
"""Of the file and of its ranking: part of the fingerprint."""
_APPLICATION = 0x786D3261
"""What SQLite's file header says that made it."""
_MEANINGS = re.compile(r"\bmay (?:also )?refer to\s?:")
_OPENING = 400
"""Characters at the beginning of an article where that is looked for."""
_COMMON = 50
"""A word that so many articles hold is kept with their number."""
_ALL_WORDS_ROWS, _ANY_WORD_ROWS = 10_000, 1_000
"""Articles holding its words that a query goes through: for all of its words, and for any; what is beyond is left out."""
_TITLE_WORDS = 3
"""Looked for in titles alone where every word is too common."""
_SPANS = 500
"""Of a text that are looked up as titles."""
_RANKED = """
SELECT title FROM articles JOIN (
    SELECT rowid AS id, rank AS place FROM words WHERE words MATCH ? AND rowid IS NOT ? ORDER BY rank, rowid LIMIT ?
) USING (id) ORDER BY place, id
"""
_TABLES = """
PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA locking_mode = EXCLUSIVE; PRAGMA cache_size = -65536;
CREATE TABLE about(name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
CREATE TABLE articles(id INTEGER PRIMARY KEY, title TEXT UNIQUE, text TEXT);
CREATE TABLE keys(key TEXT, redirect TEXT, id INTEGER);
CREATE TABLE common(word TEXT PRIMARY KEY, articles INTEGER) WITHOUT ROWID;
CREATE VIRTUAL TABLE words USING fts5(title, text, content='', tokenize='unicode61 remove_diacritics 2');
CREATE VIRTUAL TABLE counts USING fts5vocab(words, row);
INSERT INTO words(words, rank) VALUES('rank', 'bm25(10.0, 1.0)');
BEGIN;
"""


@dataclass(frozen=True)
class Article:
    """A page; ``redirects`` are other names of it."""

    title: str
    text: str
    redirects: tuple[str, ...] = ()


@dataclass(frozen=True)
class Found:
    """What a search gives: an article, or else titles that may have been meant."""

    entity: str
    """What was searched; "[X]" where "X" is a page of meanings."""
    article: Article | None = None
    similar: tuple[str, ...] = ()
    """At most five, none for an article."""


class Articles(Protocol):
    """What is searched by HotpotQA and FEVER."""

    @property
    def description(self) -> str:
        """Names it, with its number of articles: stands beside every score."""

    @property
    def fingerprint(self) -> str:
        """Equal ones find the same."""

    def find(self, entity: str) -> Found:
        """Return an article, or similar titles, whatever a model wrote. Raises `XmodelError` if they cannot be read."""


@runtime_checkable
class Titles(Protocol):
    """Articles whose titles can be looked up by the thousand, as those of a live Wikipedia cannot."""

    def has(self, title: str) -> bool:
        """Tell whether `find` gives an article for a title (of FEVER: `unescape_title` first)."""

    def titles_in(self, text: str) -> list[str]:
        """Return the titles of at least four letters that stand in a text as written, in their order."""


class ArticleStore:
    """A store that `build_store` or `memory_store` made. Several threads and processes may read it."""

    def __init__(self, path: Path, _memory: sqlite3.Connection | None = None) -> None:
        self.path, self._memory = path, _memory
        self._local = threading.local()
        try:
            about = dict(self._connection.execute("SELECT name, value FROM about").fetchall())
            self.articles, self.fingerprint = int(about["articles"]), about["fingerprint"]
            self.sources: list[str] = json.loads(about["sources"])
            if about["format"] != str(FORMAT):
                raise XmodelError(f"{path}: was made by another version; make it again with `xmodel2 eval articles`")
        except (sqlite3.Error, KeyError, ValueError):
            what = "is no article store, or a damaged one" if path.is_file() else "no such article store"
            raise XmodelError(f"{path}: {what}; `xmodel2 eval articles FILE ... --out {path}` makes one") from None

    @property
    def description(self) -> str:
        """File, number of articles, fingerprint."""
        sources = ", ".join(self.sources[:3]) + (f" and {len(self.sources) - 3} more" if len(self.sources) > 3 else "")
        where = sources if self._memory else f"{self.path.name} (from {sources})"
        return f"{self.articles:,} articles of {where}, fingerprint {self.fingerprint[:8]}"

    @property
    def _connection(self) -> sqlite3.Connection:
        if self._memory:
            return self._memory
        # One for each thread of each process: a fork must not share the offset of an open file.
        if getattr(self._local, "owner", None) != os.getpid():
            self._local.connection = sqlite3.connect(f"file:{quote(str(self.path))}?mode=ro&immutable=1", uri=True)
            self._local.owner = os.getpid()
        connection: sqlite3.Connection = self._local.connection
        return connection

    def find(self, entity: str) -> Found:
        """Return an article, or similar titles. Raises `XmodelError` for a damaged file."""
        entity = clean(entity)
        row = self._resolve(entity)
        if row is None:
            return Found(entity, similar=self._similar(entity, None))
        number, title = row
        text = self._text(number)
        if _MEANINGS.search(text, 0, _OPENING):
            return Found(f"[{entity}]", similar=self._similar(entity, number))
        return Found(entity, Article(title, text))

    def has(self, title: str) -> bool:
        """Tell whether `find` gives an article for a title."""
        row = self._resolve(clean(title))
        return row is not None and not _MEANINGS.search(self._text(row[0]), 0, _OPENING)

    def titles_in(self, text: str) -> list[str]:
        """Return the titles of at least four letters that stand in a text as written, in their order."""
        spans = [span for span in title_spans(text) if len(span) >= 4][:_SPANS]
        rows = self._select(f"SELECT title FROM articles WHERE title IN ({_marks(spans)})", spans)
        found = {title for (title,) in rows}
        return [span for span in spans if span in found]

    def _text(self, number: int) -> str:
        return str(self._select("SELECT text FROM articles WHERE id = ?", (number,))[0][0])

    def _resolve(self, entity: str) -> tuple[int, str] | None:
        """Return the number and title of the article with a name: as written (the first letter in either case) before alike."""
        if not (key := title_key(entity)):
            return None
        rows = self._select(
            "SELECT coalesce(redirect, title) NOT IN (?, ?), redirect IS NOT NULL, title, id FROM keys JOIN articles USING (id)"
            " WHERE key = ?",
            (entity, entity[:1].upper() + entity[1:], key),
        )
        return (min(rows)[3], min(rows)[2]) if rows else None

    def _similar(self, entity: str, without: int | None) -> tuple[str, ...]:
        words = query_words(entity)
        counts = dict(self._select(f"SELECT word, articles FROM common WHERE word IN ({_marks(words)})", words))
        words.sort(key=lambda word: counts.get(word, 0))
        found: dict[str, None] = {}
        for together, most in ((" ", max(_ALL_WORDS_ROWS, self.articles // 50)), (" OR ", _ANY_WORD_ROWS)):
            if words and len(found) < SIMILAR:
                query = _query(words, [counts.get(word, _COMMON) for word in words], together, most)
                found.update((title, None) for (title,) in self._select(_RANKED, (query, without, SIMILAR)))
        return tuple(found)[:SIMILAR]

    def _select(self, sql: str, values: Sequence[object]) -> list[tuple[Any, ...]]:
        try:
            return self._connection.execute(sql, values).fetchall()
        except sqlite3.DatabaseError as error:
            raise XmodelError(
                f"{self.path}: damaged ({error}); remove it, or make it again with `xmodel2 eval articles`"
            ) from None


def _query(words: Sequence[str], counts: Sequence[int], together: str, most: int) -> str:
    """Return a query of the words, rarest first, that no more than so many articles hold; if even one is too many, of titles."""
    kept = sum(rows <= most for rows in itertools.accumulate(counts))
    query = together.join(f'"{word}"' for word in words[: kept or _TITLE_WORDS])
    return query if kept else f"title : ({query})"


def _marks(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))


def memory_store(articles: Iterable[Article], name: str) -> ArticleStore:
    """Return a store in memory; ``name`` says what it holds."""
    connection = sqlite3.connect(":memory:", check_same_thread=False)
    _fill(connection, articles, [name])
    return ArticleStore(Path(name), connection)


def build_store(articles: Iterable[Article], path: Path, sources: Sequence[str], keep: bool = False) -> ArticleStore:
    """Write a store and open it; of articles with the same title the first is kept, and memory does not grow with their number.

    ``sources`` name where they are from. With ``keep`` one that is there, or that another process is writing, is opened
    instead. Raises `XmodelError` if there are no articles.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.with_name(f".{path.name}.lock")
    with FileLock(lock):
        try:
            if not (keep and path.exists()):
                _write(articles, path, sources)
        finally:
            lock.unlink(missing_ok=True)  # while it is held: whoever waits for it sees that it is gone, and begins anew
    return ArticleStore(path)


def _write(articles: Iterable[Article], path: Path, sources: Sequence[str]) -> None:
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):  # of a build that was killed
        left.unlink()
    with writing_atomic(path) as file:
        connection = sqlite3.connect(file.name)
        try:
            _fill(connection, articles, sources)
        finally:
            connection.close()


def is_store(path: Path) -> bool:
    """Tell whether a file was made by `build_store`."""
    with open(path, "rb") as file:
        head = file.read(100)
    return head.startswith(b"SQLite format 3\0") and head[68:72] == _APPLICATION.to_bytes(4, "big")


def _fill(connection: sqlite3.Connection, articles: Iterable[Article], sources: Sequence[str]) -> None:
    try:
        connection.executescript(f"PRAGMA application_id = {_APPLICATION};{_TABLES}")
    except sqlite3.OperationalError as error:
        raise XmodelError(
            f"SQLite {sqlite3.sqlite_version} of this Python cannot index articles ({error}); it needs FTS5 and 3.27 or later"
        ) from None
    count, digest = 0, 0
    for article in articles:
        title, text = clean(article.title), article.text.encode("utf-8", "replace").decode("utf-8")
        if not title or not text.strip():
            continue
        added = connection.execute("INSERT OR IGNORE INTO articles(title, text) VALUES (?, ?)", (title, text))
        if not added.rowcount:
            continue
        number = added.lastrowid
        redirects = sorted({clean(name) for name in article.redirects} - {title, ""})
        connection.execute("INSERT INTO words(rowid, title, text) VALUES (?, ?, ?)", (number, title, text))
        names = [(title_key(name), name if name != title else None, number) for name in (title, *redirects)]
        connection.executemany("INSERT INTO keys VALUES (?, ?, ?)", filter(itemgetter(0), names))
        # A sum, so that the same articles in another order have the same fingerprint.
        content = json.dumps([title, text, redirects]).encode()
        digest += int.from_bytes(hashlib.blake2b(content, digest_size=16).digest(), "big")
        count += 1
    if not count:
        raise XmodelError(f"{', '.join(sources)}: no articles")
    connection.execute("CREATE INDEX keys_by_key ON keys(key)")
    connection.execute("INSERT INTO words(words) VALUES('optimize')")
    connection.execute("INSERT INTO common SELECT term, doc FROM counts WHERE doc >= ?", (_COMMON,))
    about = {
        "format": FORMAT,
        "articles": count,
        "fingerprint": hashlib.sha256(f"{FORMAT} {count} {digest % 2**128:032x}".encode()).hexdigest(),
        "sources": json.dumps(list(sources)),
    }
    connection.executemany("INSERT INTO about VALUES (?, ?)", about.items())
    connection.commit()
