"""A benchmark whose package is missing says which, and what installs it."""

import json
import sys
from pathlib import Path

import pytest

from xmodel2.errors import XmodelError
from xmodel2.eval.agents import nouns
from xmodel2.eval.agents.benchmarks import open_benchmark
from xmodel2.eval.agents.made_products import made_catalogue, write_released
from xmodel2.eval.agents.options import AgentOptions


def test_a_missing_tagger_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_released(made_catalogue(), tmp_path)
    monkeypatch.setattr(nouns, "find_spec", lambda name: None)
    with pytest.raises(XmodelError, match=r"^webshop: textblob is not installed; pip install 'xmodel2\[eval\]'$"):
        open_benchmark("webshop", AgentOptions(catalogue=tmp_path))


def test_the_live_wikipedia_needs_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hotpotqa").mkdir()
    question = {"question": "Who?", "answer": "She", "type": "bridge"}
    (tmp_path / "hotpotqa/dev-simplified.jsonl").write_text(json.dumps(question))
    monkeypatch.setitem(sys.modules, "requests", None)
    for module in ("agents.wikipedia", "endpoint_client"):
        monkeypatch.delitem(sys.modules, f"xmodel2.eval.{module}", raising=False)
    with pytest.raises(XmodelError, match=r"^hotpotqa: requests is not installed; pip install 'xmodel2\[eval\]'$"):
        open_benchmark("hotpotqa", AgentOptions(agents_dir=tmp_path, articles="wikipedia"))


def test_a_module_of_ours_that_is_missing_is_no_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xmodel2.eval.agents.webshop", None)
    with pytest.raises(ModuleNotFoundError):
        open_benchmark("webshop", AgentOptions())
