"""The live Wikipedia is asked politely and once; what it answered is kept. A server stands in for it, in MediaWiki's shapes."""

import json
import sqlite3
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from xmodel2.errors import XmodelError
from xmodel2.eval.agents.article_store import Article, Articles, Found, Titles
from xmodel2.eval.agents.environment import Benchmark
from xmodel2.eval.agents.hotpotqa import hotpotqa_benchmark
from xmodel2.eval.agents.options import AgentOptions
from xmodel2.eval.agents.wikipedia import Wikipedia

PAGES: dict[str, dict[str, Any]] = {
    "ed wood": {
        "pageid": 1,
        "ns": 0,
        "title": "Ed Wood",
        "index": 1,
        "extract": "Edward Davis Wood Jr. was a filmmaker.",
    },
    "mercury": {
        "pageid": 2,
        "ns": 0,
        "title": "Mercury",
        "index": 1,
        "pageprops": {"disambiguation": ""},
        "extract": "Mercury most commonly refers to:\nMercury (planet)",
    },
}
TITLES = ["Mercury", "Mercury (planet)", "Mercury (element)", "Freddie Mercury", "Mercury Records", "Project Mercury"]


class StandIn(ThreadingHTTPServer):
    """Answers as /w/api.php does; ``failures`` (status, body) come first."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked, self.agents = list[dict[str, str]](), set[str | None]()
        self.failures = list[tuple[int, Any]]()
        self.url = f"http://127.0.0.1:{self.server_port}/w/api.php"


class Handler(BaseHTTPRequestHandler):
    """One question."""

    server: StandIn

    def do_GET(self) -> None:
        """Answer from the pages."""
        asked = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        self.server.asked.append(asked)
        self.server.agents.add(self.headers["User-Agent"])
        status, answer = self.server.failures.pop(0) if self.server.failures else (200, self._answer(asked))
        body = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _answer(self, asked: dict[str, str]) -> dict[str, Any]:
        if "gsrsearch" in asked:
            page = PAGES.get(asked["gsrsearch"].lower())
            return {"batchcomplete": True, "query": {"pages": [page]}} if page else {"batchcomplete": True}
        words = set(asked["srsearch"].lower().split())
        found = [title for title in TITLES if words & set(title.lower().split())][: int(asked["srlimit"])]
        return {"batchcomplete": True, "query": {"search": [{"ns": 0, "title": title} for title in found]}}

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[StandIn]:
    """A Wikipedia of two pages."""
    with StandIn() as found:
        thread = threading.Thread(target=found.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield found
        found.shutdown()
        thread.join()


def test_an_article_or_similar_titles_each_asked_for_once(server: StandIn, tmp_path: Path) -> None:
    wikipedia = Wikipedia(tmp_path / "kept" / "w.sqlite", server.url)
    article = Article("Ed Wood", "Edward Davis Wood Jr. was a filmmaker.")
    assert wikipedia.find("ed_wood ") == Found("ed wood", article)
    assert wikipedia.find("Mercury") == Found("[Mercury]", similar=tuple(TITLES[1:]))
    assert wikipedia.find("Freddie Murcury") == Found("Freddie Murcury", similar=("Freddie Mercury",))
    assert wikipedia.find("zyzzyva").similar == ()
    assert len(server.asked) == 7
    assert server.asked[0]["gsrwhat"] == "nearmatch"
    assert {"maxlag": "5", "redirects": "1", "formatversion": "2"}.items() <= server.asked[0].items()
    assert all(agent and agent.startswith("xmodel2/") for agent in server.agents)
    again = Wikipedia(tmp_path / "kept" / "w.sqlite", server.url)
    assert again.find("ed wood") == Found("ed wood", article)
    assert again.find("Mercury").entity == "[Mercury]"
    assert len(server.asked) == 7
    assert again.fingerprint == wikipedia.fingerprint
    assert server.url in again.description
    assert "w.sqlite" in again.description


def test_a_server_that_is_busy_is_asked_again(server: StandIn, tmp_path: Path) -> None:
    lagged = {"error": {"code": "maxlag", "info": "Waiting for a database server: 5.1 seconds lagged."}}
    server.failures += [(200, lagged), (503, "busy"), (429, "slowly"), (200, "{half")]
    wikipedia = Wikipedia(tmp_path / "w.sqlite", server.url, backoff_s=0.001)
    assert wikipedia.find("Ed Wood").article is not None
    assert len(server.asked) == 5


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (403, "no robots"),
        (200, {"error": {"code": "cirrussearch-backend-error", "info": "We could not complete your search."}}),
        (200, {"query": []}),
        (200, {"query": {"pages": [5]}}),
        (200, []),
        (200, "<html>"),
        (500, ""),
    ],
)
def test_what_is_no_answer_is_told_and_not_kept(server: StandIn, tmp_path: Path, status: int, answer: Any) -> None:
    server.failures += [(status, answer)] * 2
    wikipedia = Wikipedia(tmp_path / "w.sqlite", server.url, retries=1, backoff_s=0.001)
    with pytest.raises(
        XmodelError, match=r"Wikipedia cannot be asked: .*127.0.0.1.*give a file of `xmodel2 eval articles`"
    ):
        wikipedia.find("Ed Wood")
    server.failures.clear()
    assert wikipedia.find("Ed Wood").article is not None


def test_no_network_is_told(tmp_path: Path) -> None:
    with StandIn() as closed:
        url = closed.url
    wikipedia = Wikipedia(tmp_path / "w.sqlite", url, retries=1, backoff_s=0.001)
    with pytest.raises(XmodelError, match=r"Wikipedia cannot be asked: .* in 2 tries .*ConnectionRefusedError"):
        wikipedia.find("Ed Wood")


@pytest.mark.parametrize("entity", ["", "\0", "[]", "|", "a|b", "x" * 10_000, "\ud800 wood", "&titles=x#"])
def test_whatever_is_asked(server: StandIn, tmp_path: Path, entity: str) -> None:
    wikipedia = Wikipedia(tmp_path / "w.sqlite", server.url)
    assert wikipedia.find(entity).article is None
    assert all(len(asked.get("gsrsearch", "")) <= 300 and "titles" not in asked for asked in server.asked)


def test_its_titles_are_not_known(server: StandIn, tmp_path: Path) -> None:
    assert not isinstance(Wikipedia(tmp_path / "w.sqlite", server.url), Titles)
    assert not server.asked


def test_pages_are_dated_with_the_first_that_is_kept(server: StandIn, tmp_path: Path) -> None:
    cache = tmp_path / "w.sqlite"
    Wikipedia(cache, server.url)
    assert not sqlite3.connect(cache).execute("SELECT * FROM about").fetchall()
    wikipedia = Wikipedia(cache, server.url)
    before = wikipedia.fingerprint
    wikipedia.find("Ed Wood")
    assert wikipedia.fingerprint == before == Wikipedia(cache, server.url).fingerprint
    (begun,) = sqlite3.connect(cache).execute("SELECT value FROM about WHERE name = 'begun'").fetchone()
    assert f"pages kept since {begun[:10]} in w.sqlite" in wikipedia.description


def test_a_cache_that_is_something_else_is_told(server: StandIn, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no database, but long enough to look like one " * 50)
    for cache in (tmp_path / "text", tmp_path / "text" / "w.sqlite"):
        with pytest.raises(XmodelError, match=f"{cache}: cannot keep Wikipedia's pages"):
            Wikipedia(cache, server.url)
    Wikipedia(tmp_path / "w.sqlite", server.url).find("Ed Wood")
    with pytest.raises(XmodelError, match=r"w\.sqlite: holds pages of http"):
        Wikipedia(tmp_path / "w.sqlite", "http://localhost/w/api.php")


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        ("BEGIN EXCLUSIVE", "database is locked"),
        ("BEGIN IMMEDIATE", "database is locked"),
        ("DROP TABLE found", "no such table"),
        ("INSERT INTO found VALUES ('Ed Wood', '{half')", "Expecting property name"),
    ],
)
def test_a_cache_that_fails_stops_the_run(server: StandIn, tmp_path: Path, spoil: str, told: str) -> None:
    wikipedia = Wikipedia(tmp_path / "w.sqlite", server.url, lock_s=0.01)
    benchmark = hotpotqa_of_ed_wood(tmp_path, wikipedia)
    environment = benchmark.open(benchmark.cases[0])
    environment.reset()
    other = sqlite3.connect(tmp_path / "w.sqlite", isolation_level=None)
    other.execute(spoil)
    with pytest.raises(XmodelError, match=rf"w\.sqlite: cannot keep Wikipedia's pages \({told}.*start again"):
        environment.step("search[Ed Wood]")
    other.close()
    if "locked" in told:
        assert environment.step("search[Ed Wood]").observation.startswith("Edward Davis Wood Jr.")


def hotpotqa_of_ed_wood(folder: Path, articles: Articles) -> Benchmark:
    """One question, asked in articles."""
    (folder / "hotpotqa").mkdir()
    row = {"question": "Who was Ed Wood?", "answer": "a filmmaker", "type": "bridge"}
    (folder / "hotpotqa" / "dev-simplified.jsonl").write_text(json.dumps(row))
    return hotpotqa_benchmark(AgentOptions(agents_dir=folder), articles)


def test_threads_share_it(server: StandIn, tmp_path: Path) -> None:
    wikipedia = Wikipedia(tmp_path / "w.sqlite", server.url)
    threads = [threading.Thread(target=wikipedia.find, args=("Ed Wood",)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.asked) == 1
