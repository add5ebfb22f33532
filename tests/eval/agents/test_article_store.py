"""Articles are found as Wikipedia's search box finds them, fast, the same every time, whatever is asked."""

import multiprocessing
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from xmodel2.errors import XmodelError
from xmodel2.eval.agents.article_store import Article, ArticleStore, build_store, is_store, memory_store

ARTICLES = [
    Article("Ed Wood", "Ed Wood was an American filmmaker. He made Plan 9 from Outer Space.", ("Edward D. Wood Jr.",)),
    Article("Ed Wood (film)", "Ed Wood is a 1994 film by Tim Burton about the filmmaker Ed Wood."),
    Article("Beyoncé", "Beyoncé Knowles-Carter is an American singer.", ("Queen B",)),
    Article("US", "The United States is a country.", ("United States",)),
    Article("Mercury", "Mercury may refer to:\nMercury (planet)\nMercury (element)"),
    Article("Mercury (planet)", "Mercury is the smallest planet of the Solar System."),
    Article("Mercury (element)", "Mercury is a chemical element."),
    Article("Solar System", "The Solar System is the Sun with its planets, from Mercury to Neptune."),
]
HOSTILE = [
    '"',
    "'",
    '" OR "',
    "title:x",
    "NEAR(a b)",
    "x*",
    "^x",
    "-x",
    "AND",
    "a AND NOT",
    "(",
    "{",
    ";--",
    "%",
    "[x]",
]
HOSTILE += ["", " ", "_", "\0", "a\0b", "\ud800", "\x1b[31m", "x" * 10_000, "the " * 5_000, "’", "日本語", "🙂", "&#0;"]


@pytest.fixture(scope="module")
def store() -> ArticleStore:
    return memory_store(ARTICLES, "made up")


@pytest.mark.parametrize(
    ("entity", "title"),
    [
        ("Ed Wood", "Ed Wood"),
        ("ed wood", "Ed Wood"),
        (" ED_WOOD ", "Ed Wood"),
        ("ed wood (FILM)", "Ed Wood (film)"),
        ("Beyonce", "Beyoncé"),
        ("Beyonce\u0301", "Beyoncé"),
        ("queen b", "Beyoncé"),
        ("United  States", "US"),
        ("US", "US"),
        ("us", "US"),
        ("Edward D. Wood Jr.", "Ed Wood"),
    ],
)
def test_an_article_is_found_by_its_title_or_another_name(store: ArticleStore, entity: str, title: str) -> None:
    article = store.find(entity).article
    assert article is not None
    assert article.title == title
    assert store.has(entity)


def test_a_redirect_as_written_comes_before_a_title_in_another_case() -> None:
    store = memory_store([Article("ALIEN", "A mark."), Article("Extraterrestrial", "Life.", ("Alien",))], "made up")
    assert store.find("Alien").article == Article("Extraterrestrial", "Life.")
    assert store.find("alien").article == Article("Extraterrestrial", "Life.")
    assert store.find("ALIEN").article == Article("ALIEN", "A mark.")


def test_what_is_not_there_gives_titles_that_hold_its_words(store: ArticleStore) -> None:
    found = store.find("filmmaker Wood")
    assert found.article is None
    assert found.similar == ("Ed Wood", "Ed Wood (film)")
    assert store.find("smallest planet, and Neptune").similar[:2] == ("Mercury (planet)", "Solar System")
    assert store.find("zyzzyva").similar == ()
    assert not store.has("zyzzyva")


def test_a_page_of_meanings_is_searched_in_brackets_and_is_not_among_the_titles(store: ArticleStore) -> None:
    found = store.find("Mercury")
    assert found.entity == "[Mercury]"
    assert found.article is None
    assert found.similar == ("Mercury (element)", "Mercury (planet)", "Solar System")


@pytest.mark.parametrize("entity", HOSTILE, ids=lambda text: ascii(text[:9]))
def test_nothing_that_is_asked_raises(store: ArticleStore, entity: str) -> None:
    for text in (entity, f"wood {entity}", f"{entity} wood {entity}"):
        assert len(store.find(text).similar) <= 5
        store.has(text)
        store.titles_in(text)


def test_titles_in_a_claim_are_those_written_as_they_are(store: ArticleStore) -> None:
    claim = "Tim Burton made Ed Wood (film) about Ed Wood, not about mercury, Neptune's US or the Solar System."
    assert store.titles_in(claim) == ["Ed Wood (film)", "Ed Wood", "Solar System"]
    assert store.titles_in("Ed Woods likes solar System.") == []


def test_of_one_title_the_first_is_kept_and_what_is_empty_is_left_out() -> None:
    store = memory_store(
        [Article("A", "first"), Article("A", "second"), Article("B", " "), Article("", "x")], "made up"
    )
    assert store.articles == 1
    assert store.find("A").article == Article("A", "first")


def test_a_name_that_is_too_long_is_not_found_by_another() -> None:
    long = "x" * 600
    store = memory_store([Article(long, "Long."), Article("A", "Short.", (f"{long}y",))], "made up")
    assert store.articles == 2
    assert not store.has(long)
    assert store.find("y" * 600).article is None
    assert store.find("\u0301").article is None
    assert store.has("A")


def test_the_fingerprint_is_of_the_articles_not_of_their_order_or_place(tmp_path: Path, store: ArticleStore) -> None:
    built = build_store(reversed(ARTICLES), tmp_path / "a.sqlite", ["a.jsonl", "b.jsonl"])
    assert built.fingerprint == store.fingerprint
    assert built.description == f"8 articles of a.sqlite (from a.jsonl, b.jsonl), fingerprint {store.fingerprint[:8]}"
    assert store.description == f"8 articles of made up, fingerprint {store.fingerprint[:8]}"
    assert memory_store(ARTICLES[:-1], "made up").fingerprint != store.fingerprint
    changed = [*ARTICLES[:-1], Article("Solar System", "Changed.")]
    assert memory_store(changed, "made up").fingerprint != store.fingerprint
    assert built.find("Wood Burton") == store.find("Wood Burton")


def test_words_that_are_everywhere_do_not_make_a_search_slow() -> None:
    rng = random.Random(0)
    words = [f"w{n}" for n in range(300)]
    articles = [Article(f"T{n}", f"the of in {' '.join(rng.choices(words, k=10))}") for n in range(10_001)]
    articles += [Article("Needle", "the of in a haystack"), Article("The In Crowd", "the of in a song")]
    store = memory_store(articles, "made up")
    queries = ["the of in haystack", "the of in w1 w2", *(" ".join(rng.choices(words, k=12)) for _ in range(40))]
    assert store.find(queries[0]).similar[0] == "Needle"
    assert store.find("in the").similar == ("The In Crowd",)
    assert store.find("of").similar == ()
    start = time.perf_counter()
    for query in queries:
        assert store.find(query).similar
    assert (time.perf_counter() - start) / len(queries) < 0.02


def _find(path: Path) -> tuple[str, ...]:
    return ArticleStore(path).find("filmmaker").similar


def test_threads_and_processes_read_one_file(tmp_path: Path) -> None:
    store = build_store(ARTICLES, tmp_path / "a store?.sqlite", ["x"])
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(lambda n: store.find("filmmaker").similar, range(40))) == {("Ed Wood", "Ed Wood (film)")}
    with multiprocessing.get_context("fork").Pool(2) as processes:
        assert processes.map(_find, [store.path] * 2) == [("Ed Wood", "Ed Wood (film)")] * 2


def test_a_build_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    before = build_store(ARTICLES, path, ["x"]).fingerprint

    def broken() -> Iterator[Article]:
        yield ARTICLES[0]
        raise XmodelError("x.jsonl, line 2: broken")

    with pytest.raises(XmodelError, match="line 2"):
        build_store(broken(), path, ["x"])
    with pytest.raises(XmodelError, match=r"^x: no articles"):
        build_store([], path, ["x"])
    assert ArticleStore(path).fingerprint == before
    assert [file.name for file in tmp_path.iterdir()] == ["a.sqlite"]


def test_what_a_killed_build_left_goes_with_the_next(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    code = (
        "import sys, time; from pathlib import Path; from xmodel2.eval.agents.article_store import Article, build_store\n"
        "def slow():\n"
        "    yield Article('A', 'x')\n"
        "    print('begun', flush=True); time.sleep(60)\n"
        "build_store(slow(), Path(sys.argv[1]), ['x'])"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        os.kill(process.pid, signal.SIGKILL)
    assert not path.exists()
    assert list(tmp_path.glob(".*.tmp"))
    build_store(ARTICLES, path, ["x"])
    assert [file.name for file in tmp_path.iterdir()] == ["a.sqlite"]


def test_processes_that_want_the_same_store_build_it_once(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from xmodel2.eval.agents.article_store import Article, build_store\n"
        "def slow():\n"
        "    print('building', flush=True); time.sleep(0.5); yield Article('A', 'x')\n"
        "print(build_store(slow(), Path(sys.argv[1]), ['x'], keep=True).articles)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "kept[1].sqlite")]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = sorted(process.communicate()[0] for process in processes)
    assert said == ["1\n", "1\n", "building\n1\n"]
    assert [file.name for file in tmp_path.iterdir()] == ["kept[1].sqlite"]


def test_what_is_no_store_is_told(tmp_path: Path) -> None:
    with pytest.raises(XmodelError, match=r"absent\.sqlite: no such article store; `xmodel2 eval articles FILE"):
        ArticleStore(tmp_path / "absent.sqlite")
    text = tmp_path / "text.jsonl"
    text.write_text('{"title": "A", "text": "x"}\n')
    with pytest.raises(XmodelError, match="is no article store"):
        ArticleStore(text)
    other = tmp_path / "other.sqlite"
    sqlite3.connect(other).execute("CREATE TABLE t(x)").connection.close()
    with pytest.raises(XmodelError, match="is no article store"):
        ArticleStore(other)
    good = tmp_path / "good.sqlite"
    build_store(ARTICLES, good, ["x"])
    assert [is_store(path) for path in (text, other, good)] == [False, False, True]
    connection = sqlite3.connect(good)
    connection.execute("UPDATE about SET value = '0' WHERE name = 'format'")
    connection.commit()
    connection.close()
    with pytest.raises(XmodelError, match="another version"):
        ArticleStore(good)


def test_a_store_that_is_cut_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    articles = [Article(f"T{n}", f"word{n % 50} " * 200) for n in range(500)]
    build_store(articles, path, ["x"])
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])

    def find_all() -> None:
        store = ArticleStore(path)
        for article in articles:
            store.find(article.title)

    with pytest.raises(XmodelError, match=r"a\.sqlite: (damaged|is no article store)"):
        find_all()
