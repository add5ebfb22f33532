"""The articles that the options name: a store's file, the live Wikipedia, or the paragraphs that come with HotpotQA's questions."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from xmodel2.eval.agents.article_files import article_files, read_articles
from xmodel2.eval.agents.article_store import FORMAT, Articles, ArticleStore, build_store, memory_store
from xmodel2.eval.agents.options import AgentOptions
from xmodel2.files import sha256_file

WIKIPEDIA = "wikipedia"
"""Names the live one."""
STORE = "articles.sqlite"
"""Of the user's, in the folder of agent data."""
_SMALL = 4 << 20
"""Bytes of files that are indexed in memory at every start, in a second at most."""


def cache_folder(kind: str = "articles") -> Path:
    """Return where what was made of this user's data is kept (XDG base directories)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "xmodel2" / kind


def open_articles(options: AgentOptions) -> Articles | None:
    """Return the articles of HotpotQA and FEVER; None if nothing is named and no files are there.

    Below the folder of agent data those are a store, articles.sqlite, or else hotpotqa/*distractor* and articles/*, of which
    what is large is indexed once and kept. Raises `XmodelError` for what is named and not there, or no store.
    """
    if options.articles == WIKIPEDIA:
        from xmodel2.eval.agents.wikipedia import Wikipedia  # requests comes with an extra

        return Wikipedia(cache_folder() / "wikipedia.sqlite")
    if options.articles:
        return ArticleStore(Path(options.articles))
    if options.agents_dir is None:
        return None
    if (options.agents_dir / STORE).exists():
        return ArticleStore(options.agents_dir / STORE)
    given = [*options.agents_dir.glob("hotpotqa/*distractor*"), *options.agents_dir.glob("articles/*")]
    files = article_files(sorted(path for path in given if not path.name.startswith(".")))
    return _indexed(files) if files else None


def _indexed(files: Sequence[Path]) -> ArticleStore:
    sources = [source_name(file) for file in files]
    if sum(file.stat().st_size for file in files) <= _SMALL:
        return memory_store(read_articles(files), ", ".join(sources))
    content = "".join(f"{name} {sha256_file(file)}\n" for name, file in zip(sources, files, strict=True))
    kept = cache_folder() / f"{hashlib.sha256(f'{FORMAT} {content}'.encode()).hexdigest()[:16]}.sqlite"
    return ArticleStore(kept) if kept.exists() else build_store(read_articles(files), kept, sources, keep=True)


def source_name(file: Path) -> str:
    """Return a file's name with its folder's, as stores name what they are from."""
    return f"{file.resolve().parent.name}/{file.name}"
