"""The article store of HotpotQA and FEVER: build time, size, memory and searches a second, beside bm25s and a plain FTS5 query.

python -m benchmarks.article_store [--quick] [--json] [--data FILE ...] [--made 200000]

All index the same articles, made up without --data. Three kinds of queries: titles that are there, two words of different
titles (a name that is misremembered), and twelve words in a row out of a text. `bm25s` ranks the same words, the title's ten
times, and keeps no text; "FTS5, any word" asks the store's own index for every word of a query. Each is built in a process of
its own, whose memory is the peak beyond its start; a bm25s index holds its texts while it is made. Times are CPU times.
"""

import itertools
import multiprocessing
import random
import resource
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import bm25s

from benchmarks.harness import Result, argument_parser, interleaved, machine
from xmodel2.eval.agents.article_files import article_files, read_articles
from xmodel2.eval.agents.article_store import SIMILAR, Article, ArticleStore, build_store
from xmodel2.eval.agents.article_titles import query_words

_WORDS, _LENGTH = 50_000, 60
"""Of made-up articles: different words, as frequent as Zipf's law says, and words each."""
Build = tuple[float, int, int]
"""CPU seconds, bytes on disk, bytes of memory."""


def made(count: int) -> Iterator[Article]:
    """Yield short made-up articles."""
    choose = random.Random(0)
    words = [_word(number) for number in range(_WORDS)]
    weights = list(itertools.accumulate(1 / rank for rank in range(1, _WORDS + 1)))
    for number in range(count):
        title = f"{choose.choice(words)} {choose.choice(words)} {number}".title()
        yield Article(title, " ".join(choose.choices(words, cum_weights=weights, k=_LENGTH)))


def _word(number: int) -> str:
    syllables = ""
    while number or not syllables:
        number, syllable = divmod(number, 60)
        syllables += "bdfgklmnprst"[syllable % 12] + "aeiou"[syllable // 12]
    return syllables


def articles_of(source: Sequence[Path] | int) -> Iterator[Article]:
    """Yield articles out of files, or so many made-up ones."""
    return made(source) if isinstance(source, int) else read_articles(article_files(source))


def build_ours(source: Sequence[Path] | int, folder: Path) -> Build:
    """Build the store."""
    before, start = _memory(), time.process_time()
    build_store(articles_of(source), folder / "articles.sqlite", ["benchmark"])
    return time.process_time() - start, (folder / "articles.sqlite").stat().st_size, _memory() - before


def build_bm25s(source: Sequence[Path] | int, folder: Path) -> Build:
    """Build and save a bm25s index of the same articles, in the order of the store."""
    before, start = _memory(), time.process_time()
    texts = {article.title: f"{10 * (article.title + ' ')}{article.text}" for article in articles_of(source)}
    index = bm25s.BM25()
    index.index(bm25s.tokenize(list(texts.values()), stopwords=None, show_progress=False), show_progress=False)
    index.save(folder / "bm25s")
    (folder / "titles").write_text("\n".join(texts), encoding="utf-8")
    seconds = time.process_time() - start
    return seconds, sum(file.stat().st_size for file in (folder / "bm25s").iterdir()), _memory() - before


def _memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def queries_of(articles: Sequence[tuple[str, str]], count: int) -> dict[str, list[str]]:
    """Return queries by kind."""
    choose = random.Random(1)
    kinds: dict[str, list[str]] = {"titles": [], "two words": [], "twelve words": []}
    while min(map(len, kinds.values())) < count:
        (title, text), (other, _) = choose.sample(articles, 2)
        words, first, second = text.split(), query_words(title), query_words(other)
        if first and second and len(words) > 12:
            at = choose.randrange(len(words) - 12)
            kinds["titles"].append(title)
            kinds["two words"].append(f"{choose.choice(first)} {choose.choice(second)}")
            kinds["twelve words"].append(" ".join(words[at : at + 12]))
    return kinds


def any_word(store: ArticleStore) -> Callable[[str], list[str]]:
    """Return a search of the store's index for any word of a query, by rank."""
    connection = sqlite3.connect(f"file:{store.path}?mode=ro&immutable=1", uri=True)

    def search(query: str) -> list[str]:
        words = " OR ".join(f'"{word}"' for word in query_words(query))
        sql = (
            "SELECT a.title FROM words JOIN articles a ON a.id = words.rowid WHERE words MATCH ? ORDER BY rank LIMIT ?"
        )
        return [title for (title,) in connection.execute(sql, (words, SIMILAR))]

    return search


def peer(folder: Path) -> Callable[[str], list[str]]:
    """Return a search of the bm25s index."""
    index = bm25s.BM25.load(folder / "bm25s")
    titles = (folder / "titles").read_text(encoding="utf-8").split("\n")

    def search(query: str) -> list[str]:
        known = [word for word in query_words(query) if word in index.vocab_dict]
        if not known:
            return []
        found, scores = index.retrieve([known], k=SIMILAR, show_progress=False)
        return [titles[n] for n, score in zip(found[0], scores[0], strict=True) if score > 0]

    return search


def ours(store: ArticleStore) -> Callable[[str], list[str]]:
    """Return a search as an episode makes it."""

    def search(query: str) -> list[str]:
        found = store.find(query)
        return [found.article.title] if found.article else list(found.similar)

    return search


def rate(search: Callable[[str], list[str]], queries: Sequence[str]) -> Callable[[], float]:
    """Return what measures searches a CPU second."""

    def run() -> float:
        start = time.process_time()
        for query in queries:
            search(query)
        return len(queries) / (time.process_time() - start)

    return run


def main() -> None:
    """Measure and print."""
    parser = argument_parser(__doc__, "10,000 made-up articles, 50 queries of a kind")
    parser.add_argument(
        "--data", nargs="*", type=Path, default=[], help="files of articles, as `xmodel2 eval articles` takes"
    )
    parser.add_argument("--made", type=int, default=200_000, help="made-up articles, without --data")
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    source = options.data or (10_000 if options.quick else options.made)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # Each in a new process, so that both start with the same imports and nothing else.
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), max_tasks_per_child=1) as pool:
            builds = {
                which.__name__: pool.submit(which, source, folder).result() for which in (build_ours, build_bm25s)
            }
        store = ArticleStore(folder / "articles.sqlite")
        sql = "SELECT title, text FROM articles ORDER BY id"
        articles = sqlite3.connect(store.path).execute(sql).fetchall()
        kinds = queries_of(articles, 50 if options.quick else options.queries)
        searches = {"ours": ours(store), "bm25s": peer(folder), "FTS5, any word": any_word(store)}
        speeds = {
            kind: interleaved({name: rate(search, asked) for name, search in searches.items()}, options.repeats)
            for kind, asked in kinds.items()
        }
        agreed = {kind: _agreement(searches["ours"], searches["bm25s"], asked) for kind, asked in kinds.items()}
    size = sum(len(title.encode()) + len(text.encode()) for title, text in articles)
    missed = speeds["two words"]
    peers = {name: speed for name, speed in missed.items() if name != "ours"}
    notes = [f"{len(articles):,} articles, {size / 1e6:.1f} MB of text"]
    notes += [
        f"{name.removeprefix('build_')}: built in {seconds:.1f} CPU s, {disk / 1e6:.1f} MB, peak {memory / 2**20:.0f} MiB"
        for name, (seconds, disk, memory) in builds.items()
    ]
    for kind, found in speeds.items():
        shown = ", ".join(f"{name} {1000 / speed:.3f}" for name, speed in found.items())
        notes.append(f"{kind}: ms a search {shown}; {agreed[kind]:.0%} of what we find is among bm25s's five")
    Result(
        "article_store",
        machine(),
        missed["ours"],
        peers,
        "searches a CPU second, two words of different titles",
        missed["ours"] / max(peers.values()),
        None,
        None,
        "; ".join(notes),
    ).show(options.json)


def _agreement(ours: Callable[[str], list[str]], peer: Callable[[str], list[str]], queries: Sequence[str]) -> float:
    pairs = [(set(ours(query)), set(peer(query))) for query in queries]
    return sum(len(found & theirs) for found, theirs in pairs) / max(1, sum(len(found) for found, _ in pairs))


if __name__ == "__main__":
    main()
