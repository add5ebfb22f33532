"""The report as Markdown: the page's tables as text, runs side by side, and nothing in it that a site would run."""

import re
import shutil
from pathlib import Path

from xmodel2.release.reporting.markdown import as_markdown, report_markdown


def test_a_run_and_two_runs_side_by_side(road: Path, tmp_path: Path) -> None:
    text = as_markdown((road / "report.html").read_text(encoding="utf-8"))
    for words in (
        "# demo",
        "## Summary",
        "| tokens | 10,240 |",
        "## Mixtures",
        "| hidden\\_size | 64 | 1,536 |",
        "## Claims",
    ):
        assert words in text
    assert "<svg" not in text
    assert "## Training curves" not in text  # figures alone
    assert text.count("<details>") == text.count("</details>") == text.count("<summary>")
    shutil.copytree(road / "run", tmp_path / "again", ignore=shutil.ignore_patterns("checkpoints"))
    both = report_markdown([road / "run", tmp_path / "again"])
    assert "|  | demo (run) | demo (again) |" in both
    assert "| tokens | 10,240 | 10,240 |" in both


def test_tables_tiles_lists_and_code() -> None:
    page = """<html><head><title>T</title></head><body><main><nav><a href="#a">A</a></nav><h1>A | B</h1>
      <p class="sub">runs/a</p><div class="tiles"><div class="tile"><b>12</b><span>steps</span></div></div>
      <details class="contents"><summary>Contents</summary><ul><li>one</li></ul></details>
      <h2>Figures</h2><figure><svg><text>no</text></svg><figcaption>no</figcaption></figure>
      <h2>Words</h2><p>a_b <b>bold</b> and <code>x|y</code></p><ul><li>one<ul><li>two</li></ul></li></ul>
      <table><caption>C</caption><tr><th>x</th><th>y</th></tr><tr><td>1<br>2</td></tr></table>
      <p><a href="evaluation/items.html">Every item</a></p><pre>a  b
```</pre></main></body></html>"""
    assert as_markdown(page) == (
        "# A \\| B\n\n|  |  |\n| --- | --: |\n| steps | 12 |\n\n## Words\n\na\\_b **bold** and `x\\|y`\n\n- one\n\n  - two\n\n"
        "*C*\n\n| x | y |\n| --- | --: |\n| 1<br>2 |  |\n\n````\na  b\n```\n````\n"
    )


def test_what_a_model_wrote_stays_text() -> None:
    page = (
        "<h2>&lt;script&gt;alert(1)&lt;/script&gt;</h2><p>&amp;lt;b&amp;gt;</p>"
        "<p>&lt;img src=x onerror=alert(1)&gt; `a` [b](javascript:1)</p>"
        "<details><summary>&lt;b onclick=1&gt;</summary><pre>&lt;/details&gt; ``` &lt;script&gt;</pre><pre>more</pre></details>"
    )
    text = as_markdown(page)
    outside = re.sub(r"(`{3,})\n.*?\n\1", "", text, flags=re.DOTALL)
    assert re.findall(r"(?<!\\)<[^>]*>", outside) == ["<details>", "<summary>", "</summary>", "</details>"]
    assert not re.search(r"(?<!\\)\[b", outside)
    assert "\\&lt;b\\&gt;" in outside  # an entity that was text stays one
    assert "````\n</details> ``` <script>\nmore\n````" in text
