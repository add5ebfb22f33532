"""The report: one page that needs nothing else, escapes what it shows, and says what is missing or damaged."""

import base64
import hashlib
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from xmodel2.cli import main
from xmodel2.errors import XmodelError
from xmodel2.release.reporting.build import build_report

VOID = {"meta", "br", "img", "path", "use", "circle", "rect", "line", "link", "hr"}


class Checker(HTMLParser):
    """Collects tags and ids, and complains of what is closed in another order than opened."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.ids: list[str] = []
        self.scripts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        if tag in ("section", "div", "h2", "p") and (found := dict(attrs).get("id")):
            self.ids.append(found)
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts[-1] += data

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


@pytest.fixture
def run(road: Path, tmp_path: Path) -> Path:
    """A copy of the run without its weights."""
    copy = tmp_path / "run"
    shutil.copytree(road / "run", copy, ignore=shutil.ignore_patterns("checkpoints", "tensorboard"))
    return copy


def report(*paths: Path) -> str:
    """Return the text of the page of some folders."""
    return build_report(paths, paths[0] / "report.html").read_text()


def test_the_page_is_whole_and_needs_nothing_else(road: Path) -> None:
    text = (road / "report.html").read_text()
    checker = Checker(text)
    assert checker.open == []
    assert len(checker.ids) == len(set(checker.ids))
    assert checker.seen.count("svg") >= 4
    assert not re.search(r'(?:src|href)="(?!#|data:)', text)
    assert len(text) < 1_000_000


def test_the_policy_allows_the_pages_own_scripts_and_no_other(road: Path) -> None:
    text = (road / "report.html").read_text()
    data, *scripts = Checker(text).scripts
    assert json.loads(data)["runs"][0]["name"] == "demo"
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    assert re.findall(r"sha256-([^']*)'", policy[1]) == hashes
    assert "default-src 'none'" in policy[1]
    assert "unsafe-inline" not in policy[1].partition("script-src")[2].partition(";")[0]


def test_it_tells_the_run(road: Path) -> None:
    text = (road / "report.html").read_text()
    results = json.loads((road / "run" / "results.json").read_text())
    titles = ("Summary", "Training curves", "Mixtures", "Held-out text and questions", "Model (Table 1)", "Claims")
    for title in (*titles, "Samples over training", "Environment and recipe"):
        assert re.search(rf'<h2 id="[a-z-]+">{re.escape(title)}</h2>', text), title
        assert f">{title}</a>" in text
    assert "1,251,755,520" in text
    assert f"{results['heldout']['decay']['docs']['loss']:.3f}" in text
    assert f"{results['baselines']['five_gram']['code']:.3f}" in text
    assert "64.000%" in text


def test_what_others_wrote_cannot_inject_markup(run: Path) -> None:
    bad = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
    (run / "recipe.toml").write_text((run / "recipe.toml").read_text().replace('"demo"', json.dumps(bad)))
    with open(run / "metrics.jsonl", "a") as file:
        for line in (
            {"step": 20, "kind": "heldout", "tokens": 10240, "heldout": {bad: {"loss": 3.0}}},
            {"step": 18, "kind": "evaluation", "tokens": 9216, "scores": {bad: 0.5}},
            {
                "step": 20,
                "kind": "samples",
                "tokens": 10240,
                "stage": bad,
                "samples": [{"prompt": bad, "continuation": bad}],
            },
            {"step": 19, "kind": "skipped", "stage": "decay", "reason": bad},
        ):
            file.write(json.dumps(line) + "\n")
    text = report(run)
    checker = Checker(text)
    assert checker.open == []
    assert checker.seen.count("script") == 6  # the data, and ours
    assert "<img src=x" not in text
    assert "&lt;script&gt;" in text


def test_benchmark_scores_while_training_are_drawn(run: Path) -> None:
    assert "while training" not in re.sub(r"<script.*?</script>", "", report(run), flags=re.DOTALL)
    lines: list[dict[str, Any]] = [
        {"step": 6, "tokens": 3072, "scores": {"piqa": 0.5, "wikitext": 900.0}},
        {"step": 12, "tokens": 6144, "scores": {"piqa": 0.55}},
        {"step": 20, "tokens": 10240, "error": "disk full"},
    ]
    with open(run / "metrics.jsonl", "a") as file:
        file.writelines(json.dumps({**line, "kind": "evaluation"}) + "\n" for line in lines)
    text = report(run)
    assert "Benchmark scores while training; 200 items a task give ±7 points at most (95%)" in text
    assert "Perplexity while training" in text


def test_held_out_losses_are_no_benchmarks_and_columns_without_a_figure_stay_away(run: Path) -> None:
    text = report(run)
    assert "5-gram loss" in text
    results = json.loads((run / "results.json").read_text())
    evaluated = run / "evaluation" / "step-20"
    evaluated.mkdir(parents=True)
    shared = {"model": "run", "settings": {}, "tasks": {}}
    (evaluated / "results.json").write_text(json.dumps(shared))
    (run / "results.json").write_text(json.dumps({key: results[key] for key in ("steps", "heldout")}))
    text = report(run)
    assert "benchmarks (<code>xmodel2 eval" in text
    assert "5-gram" not in text


def test_a_run_that_holds_a_recipe_only_says_what_is_not_there(run: Path) -> None:
    for path in run.iterdir():
        if path.name not in ("recipe.toml", "tokenizer"):
            path.unlink()
    text = report(run)
    assert "Not there yet: any step of training; benchmarks (<code>xmodel2 eval" in text
    assert "--suite commonsense,reasoning</code>)" in text
    for anchor in ("curves", "heldout", "benchmarks", "calibration", "test-time", "samples"):
        assert f'<section id="{anchor}"' not in text


def test_two_runs_stand_side_by_side(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(run, other)
    text = report(run, other)
    assert "<h1>demo (run) and demo (other)</h1>" in text
    assert '<th scope="col">demo (run)</th><th scope="col">demo (other)</th>' in text
    assert text.count('<h3 class="of">demo (other)</h3>') >= 3
    assert Checker(text).open == []


DAMAGE = {
    "results.json": ("{", "results.json: not valid JSON"),
    "environment.jsonl": ('{"step": 0}\n', "environment.jsonl: has no &#x27;[a-z0-9]+&#x27;; it is damaged"),
    "mixture.json": ('{"stages": [{"rows": 1, "sources": {"docs": {}}}]}', "mixture.json: has no"),
    "evaluation/step-20/results.json": ('{"model": 3}', "step-20/results.json: has no &#x27;settings&#x27;"),
    "evaluation/step-20/calibration.json": (
        '{"parts": {}}',
        "calibration.json: ",
    ),
    "scaling/step-20/scaling.json": ("[]", "scaling.json: is not what"),
}


def test_a_damaged_file_costs_its_own_section_only(run: Path) -> None:
    for name, (content, _) in DAMAGE.items():
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text(content)
    text = report(run)
    for _, complaint in DAMAGE.values():
        assert re.search(complaint, text), complaint
    for anchor in ("summary", "curves", "mixtures", "samples", "model", "claims"):
        assert f'<section id="{anchor}"' in text


def test_lines_of_metrics_that_cannot_be_read_are_counted(run: Path) -> None:
    with open(run / "metrics.jsonl", "a") as file:
        file.write('{"step": 21, "los\n{"step": 22, "loss": 1')
    assert "1 of its lines cannot be read and are left out (the first: line" in report(run)


def test_a_line_of_another_shape_costs_the_sections_that_read_it(run: Path) -> None:
    with open(run / "metrics.jsonl", "a") as file:
        file.write('{"step": 20, "kind": "heldout"}\n')
    text = report(run)
    assert text.count("has no &#x27;heldout&#x27;; it is damaged") == 2
    assert '<section id="model"' in text


def test_what_is_no_run_is_refused_with_a_hint(road: Path, run: Path, tmp_path: Path) -> None:
    with pytest.raises(XmodelError, match=r"not a run directory .*; did you mean .*/run\?"):
        build_report([tmp_path], tmp_path / "report.html")
    with pytest.raises(XmodelError, match="no such folder"):
        build_report([tmp_path / "absent"], tmp_path / "report.html")
    with pytest.raises(XmodelError, match="is an exported model; give the run"):
        build_report([road / "hf"], tmp_path / "report.html")
    with pytest.raises(XmodelError, match="is a checkpoint; give its run"):
        build_report([next((road / "run" / "checkpoints").iterdir())], tmp_path / "report.html")


def test_links_lead_to_the_run_from_where_the_page_is(run: Path, tmp_path: Path) -> None:
    folder = run / "evaluation" / "step-20"
    folder.mkdir(parents=True)
    task = {"metric": "acc", "score": 0.5, "interval": [0.4, 0.6], "items": 10, "of": 10, "num_fewshot": 0}
    results = {"model": {"name": "demo"}, "settings": {"limit": None}, "tasks": {"piqa": task}}
    (folder / "results.json").write_text(json.dumps(results))
    (folder / "items.html").write_text("")
    assert 'href="evaluation/step-20/items.html"' in report(run)
    text = build_report([run], tmp_path / "pages" / "report.html").read_text()
    assert "<b>50.00%</b><span>Commonsense (Table 2), average: 1 of 8 tasks</span>" in text
    assert 'href="../run/evaluation/step-20/items.html"' in text


def test_the_command(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def said(*arguments: str | Path) -> tuple[int, str]:
        with pytest.raises(SystemExit) as stop:
            main(["report", *map(str, arguments)])
        output = capsys.readouterr()
        return int(stop.value.code or 0), output.out + output.err

    assert said(run, "--markdown", "--out", tmp_path / "card.md") == (0, f"{tmp_path / 'card.md'}\n")
    assert "## Model (Table 1)" in (tmp_path / "card.md").read_text()
    assert said(run, "--watch", "--every", "0.2")[1].startswith(f"{run / 'report.html'}: open it in a browser")
    assert said(run, "--watch", "--every", "0")[0] == 1
    assert said(run, "--watch", "--markdown")[0] == 1
    assert said(run, "--out", tmp_path)[0] == 1
    assert said()[0] in (1, 2)
