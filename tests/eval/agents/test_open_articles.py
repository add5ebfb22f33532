"""Which articles the options mean, and the command that makes a store of files."""

import gzip
import json
import os
import sys
import time
from pathlib import Path

import pytest

from xmodel2.commands.eval_articles import eval_articles
from xmodel2.errors import XmodelError
from xmodel2.eval.agents import open_articles as module
from xmodel2.eval.agents.article_store import Articles, ArticleStore, Titles
from xmodel2.eval.agents.benchmarks import open_benchmark
from xmodel2.eval.agents.open_articles import cache_folder, open_articles
from xmodel2.eval.agents.options import MADE_UP, AgentOptions

SHARED = Path(__file__).parents[4] / "shared" / "data" / "agents"


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def agents(tmp_path: Path) -> Path:
    """A folder of agent data with two paragraphs."""
    folder = tmp_path / "agents"
    (folder / "hotpotqa").mkdir(parents=True)
    row = {"question": "?", "context": {"title": ["A", "B"], "sentences": [["A is.", " It was."], ["B is."]]}}
    (folder / "hotpotqa" / "dev-distractor.jsonl.gz").write_bytes(gzip.compress(json.dumps(row).encode()))
    (folder / "hotpotqa" / "dev-simplified.jsonl").write_text('{"question": "?", "answer": "yes"}\n')
    return folder


def has(articles: Articles, title: str) -> bool:
    """Tell whether a title is there."""
    assert isinstance(articles, Titles)
    return articles.has(title)


def test_without_a_name_the_files_of_the_agent_data_are_read(agents: Path) -> None:
    assert open_articles(MADE_UP) is None
    assert open_articles(AgentOptions(agents_dir=agents / "absent")) is None
    found = open_articles(AgentOptions(agents_dir=agents))
    assert found is not None
    assert found.description.startswith("2 articles of hotpotqa/dev-distractor.jsonl.gz, fingerprint ")
    (agents / "articles").mkdir()
    (agents / "articles" / "more.jsonl").write_text('{"title": "C", "text": "C is."}\n')
    found = open_articles(AgentOptions(agents_dir=agents))
    assert found is not None
    assert found.description.startswith("3 articles of articles/more.jsonl, hotpotqa/dev-distractor.jsonl.gz")
    assert has(found, "C")
    assert not cache_folder().exists()


def test_what_is_large_is_indexed_once_and_kept(agents: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SMALL", 10)
    first = open_articles(AgentOptions(agents_dir=agents))
    (kept,) = cache_folder().glob("*.sqlite")
    changed = kept.stat().st_mtime_ns
    second = open_articles(AgentOptions(agents_dir=agents))
    assert first is not None
    assert second is not None
    assert first.fingerprint == second.fingerprint
    assert kept.stat().st_mtime_ns == changed
    (agents / "hotpotqa" / "train-distractor.json").write_text('[{"context": [["D", ["D is."]]]}]')
    third = open_articles(AgentOptions(agents_dir=agents))
    assert third is not None
    assert has(third, "D")
    assert len(list(cache_folder().glob("*.sqlite"))) == 2


def test_a_store_is_made_by_the_command_and_opened_by_its_name(
    agents: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "articles.sqlite"
    eval_articles((agents / "hotpotqa" / "dev-distractor.jsonl.gz",), out, json=True)
    record = json.loads(capsys.readouterr().out)
    assert {path.name for path in tmp_path.iterdir()} == {"agents", "articles.sqlite"}
    assert record["articles"] == 2
    assert record["bytes"] == os.path.getsize(out)
    assert record["seconds"] < 10
    opened = open_articles(AgentOptions(agents_dir=agents, articles=str(out)))
    assert opened is not None
    assert opened.fingerprint == record["fingerprint"]
    with pytest.raises(XmodelError, match="already exists; choose another --out, or give --overwrite"):
        eval_articles((agents / "hotpotqa" / "dev-distractor.jsonl.gz",), out)
    (tmp_path / "one.jsonl").write_text('{"title": "C", "text": "C is."}\n')
    eval_articles((tmp_path / "one.jsonl",), out, overwrite=True)
    assert "1 articles" in capsys.readouterr().out
    assert ArticleStore(out).has("C")
    out.rename(agents / "articles.sqlite")
    opened = open_articles(AgentOptions(agents_dir=agents))
    assert opened is not None
    assert has(opened, "C")


def test_the_command_overwrites_nothing_else(agents: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.txt"
    mine.write_text("keep")
    for out in (mine, tmp_path):
        with pytest.raises(XmodelError, match="was not made by `xmodel2 eval articles`"):
            eval_articles((agents / "hotpotqa" / "dev-distractor.jsonl.gz",), out, overwrite=True)
    assert mine.read_text() == "keep"
    with pytest.raises(XmodelError, match="name the files"):
        eval_articles((), tmp_path / "new.sqlite")
    with pytest.raises(XmodelError, match="line 1: no article"):
        eval_articles((agents / "hotpotqa" / "dev-simplified.jsonl",), tmp_path / "new.sqlite")
    assert not (tmp_path / "new.sqlite").exists()


def test_what_is_named_and_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(XmodelError, match=r"absent\.sqlite: no such article store; `xmodel2 eval articles FILE"):
        open_articles(AgentOptions(articles=str(tmp_path / "absent.sqlite")))


def test_wikipedia_is_opened_without_a_network(tmp_path: Path) -> None:
    found = open_articles(AgentOptions(articles="wikipedia"))
    assert found is not None
    assert found.description.startswith("the live Wikipedia (https://en.wikipedia.org/w/api.php), pages kept since ")
    assert (cache_folder() / "wikipedia.sqlite").exists()


def test_a_package_that_the_live_one_needs_is_told(agents: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "requests", None)
    for name in ("xmodel2.eval.agents.wikipedia", "xmodel2.eval.endpoint_client"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    (agents / "hotpotqa" / "dev-simplified.jsonl").write_text('{"question": "?", "answer": "yes", "type": "bridge"}\n')
    (agents / "hotpotqa" / "dev-distractor.jsonl.gz").unlink()
    with pytest.raises(XmodelError, match=r"requests is not installed; pip install 'xmodel2\[eval\]'"):
        open_benchmark("hotpotqa", AgentOptions(agents_dir=agents, articles="wikipedia"))


def test_real_paragraphs_are_indexed_in_a_moment() -> None:
    if SHARED.is_dir():
        start = time.perf_counter()
        found = open_articles(AgentOptions(agents_dir=SHARED))
        assert time.perf_counter() - start < 2
        assert found is not None
        assert found.description.startswith("991 articles of hotpotqa/dev-distractor-subset.jsonl.gz, fingerprint ")
        assert found.find("scott derrickson").article is not None
        assert "Scott Derrickson" in found.find("Derrickson the director").similar
