"""The command that indexes articles for HotpotQA and FEVER."""

import time
from pathlib import Path

import tyro

from xmodel2.arguments import Flag
from xmodel2.errors import XmodelError
from xmodel2.output import print_json, progress_bars


def eval_articles(
    files: tyro.conf.Positional[tuple[Path, ...]], out: Path, overwrite: Flag = False, json: Flag = False
) -> None:
    """Index articles in one file, which HotpotQA and FEVER search when it is given as --articles.

    Example: xmodel2 eval articles wiki-pages.zip --out fever.sqlite

    Args:
        files: HotpotQA's questions with paragraphs or its Wikipedia abstracts, FEVER's wiki-pages, a CirrusSearch dump of
            Wikimedia, or JSON lines with title and text; packed or not, or folders of them; of one title the first is kept
        out: file to write
        overwrite: replace a file that this command wrote
        json: print the record as one JSON object
    """
    from xmodel2.eval.agents.article_files import article_files, read_articles
    from xmodel2.eval.agents.article_store import build_store, is_store
    from xmodel2.eval.agents.open_articles import source_name

    start = time.perf_counter()
    if not files:
        raise XmodelError("eval articles: name the files of articles, or their folder")
    if out.exists():
        if not out.is_file() or not is_store(out):
            raise XmodelError(
                f"{out}: was not made by `xmodel2 eval articles`; remove it yourself, or choose another --out"
            )
        if not overwrite:
            raise XmodelError(f"{out}: already exists; choose another --out, or give --overwrite")
    found = article_files(files)
    with progress_bars() as progress:
        store = build_store(read_articles(found, progress), out, [source_name(file) for file in found])
    record = {
        "articles": store.articles,
        "fingerprint": store.fingerprint,
        "bytes": out.stat().st_size,
        "seconds": round(time.perf_counter() - start, 2),
        "out": str(out),
        "sources": store.sources,
    }
    if json:
        print_json(record)
        return
    print(
        f"{out}  {store.articles:,} articles, {record['bytes']:,} bytes, {record['seconds']} s, {store.fingerprint[:8]}"
    )
