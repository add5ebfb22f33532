"""docs/python.md: its code runs as it stands, one block after another, beside what `demo` leaves."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "python.md"


def test_the_code_of_the_page_runs(road: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "demo").symlink_to(road)
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    assert len(blocks) == 4
    found: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), found)
    logits, ids, losses = found["logits"], found["ids"], found["losses"]
    assert logits.shape == (1, len(ids), found["trained"].settings.vocab_size)  # type: ignore[attr-defined,arg-type]
    assert len(losses) == 3  # type: ignore[arg-type]
    run = found["read_metrics"](Path("runs/notebook"))  # type: ignore[operator]
    assert losses == pytest.approx([line["loss"] for line in run if "loss" in line][:3], rel=1e-4)
