"""The report: one page that needs nothing else, escapes what it shows, and says what is missing."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from xmodel2.errors import XmodelError
from xmodel2.release.report import build_report

VOID = {"meta", "br", "img", "path", "use", "circle", "rect", "line", "link", "hr"}


class Checker(HTMLParser):
    """Collects tags, and complains of what is closed in another order than opened."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


@pytest.fixture
def run(road: Path, tmp_path: Path) -> Path:
    """A copy of the run without its weights."""
    copy = tmp_path / "run"
    shutil.copytree(road / "run", copy, ignore=shutil.ignore_patterns("checkpoints", "tensorboard"))
    return copy


def test_the_page_is_whole_and_needs_nothing_else(road: Path) -> None:
    text = (road / "report.html").read_text()
    checker = Checker()
    checker.feed(text)
    assert checker.open == []
    assert checker.seen.count("svg") >= 4
    assert "script" not in checker.seen
    assert not re.search(r'(?:src|href)="(?!#)', text)


def test_it_tells_the_run(road: Path) -> None:
    text = (road / "report.html").read_text()
    results = json.loads((road / "run" / "results.json").read_text())
    for heading in ("Training", "Mixtures", "Model", "Evaluation", "Samples"):
        assert f"<h2>{heading}</h2>" in text
    assert "1,251,755,520" in text
    assert f"{results['heldout']['decay']['docs']['loss']:.3f}" in text
    assert f"{results['baselines']['five_gram']['code']:.3f}" in text
    assert "64.000%" in text


def test_samples_cannot_inject_markup(run: Path) -> None:
    bad = [{"stage": "decay", "prompt": "<script>alert(1)</script>", "continuation": "<img src=x onerror=alert(2)>"}]
    (run / "samples.json").write_text(json.dumps(bad))
    text = build_report([run], run / "report.html").read_text()
    assert "<script" not in text
    assert "<img" not in text
    assert "&lt;script&gt;" in text


def test_benchmark_scores_while_training_are_drawn(run: Path) -> None:
    assert "while training" not in build_report([run], run / "report.html").read_text()
    lines: list[dict[str, Any]] = [
        {"step": 6, "tokens": 3072, "scores": {"piqa": 0.5, "wikitext": 900.0}},
        {"step": 12, "tokens": 6144, "scores": {"piqa": 0.55}},
        {"step": 20, "tokens": 10240, "error": "disk full"},
    ]
    with open(run / "metrics.jsonl", "a") as file:
        file.writelines(json.dumps({**line, "kind": "evaluation"}) + "\n" for line in lines)
    text = build_report([run], run / "report.html").read_text()
    assert "Benchmark scores while training; 200 items a task give ±7 points at most (95%)" in text
    assert "Perplexity while training" in text


def test_a_run_without_results_says_so(run: Path) -> None:
    for name in ("results.json", "samples.json", "metrics.jsonl"):
        (run / name).unlink()
    text = build_report([run], run / "report.html").read_text()
    assert "Not evaluated yet" in text
    assert "No training step has been recorded yet" in text
    assert "No samples were written" in text


def test_not_a_run_and_damaged_results(run: Path, tmp_path: Path) -> None:
    with pytest.raises(XmodelError, match="not a run directory"):
        build_report([tmp_path], tmp_path / "report.html")
    (run / "results.json").write_text("{")
    with pytest.raises(XmodelError, match=r"results\.json: not valid JSON"):
        build_report([run], run / "report.html")
