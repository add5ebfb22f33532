"""Figures and page of a calibration say what was measured."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xmodel2.eval.calibration import calibrate
from xmodel2.eval.calibration_figure import reliability_figure, subjects_figure
from xmodel2.eval.calibration_page import calibration_section, verdict, write_calibration
from xmodel2.eval.choices import make_choices


def found(
    count: int = 400, overstatement: float = 2.0, parts: int = 2, task: str = "mmlu", draws: int = 20
) -> dict[str, Any]:
    """Return the calibration of a model that overstates its log-odds by a factor."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(count, 4))
    true = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    targets = (true.cumsum(1) > rng.random((count, 1))).argmax(1)
    names = [("law & <order>", "physics")[number % parts] for number in range(count)] if parts else []
    choices = make_choices(list(overstatement * np.log(true)), targets, names)
    return {"task": task, "model": {"name": "nano <1>"}, "of": 1000, **calibrate(choices, draws=draws)}


@pytest.fixture(scope="module")
def overstated() -> dict[str, Any]:
    return found()


def test_the_diagram_says_what_was_measured(overstated: dict[str, Any]) -> None:
    drawn = reliability_figure(overstated, "MMLU")
    errors = [f"{name} {overstated[key]['value']:.3f}" for name, key in (("ECE", "ece"), ("MCE", "mce"))]
    assert " · ".join(errors) in drawn
    assert all(f">{row['items']:,}<" in drawn for row in overstated["bins"] if row["items"])
    assert f"at temperature {overstated['temperature']['value']:.2f}" in drawn
    assert drawn == reliability_figure(overstated, "MMLU")


def test_one_item_has_a_diagram() -> None:
    assert "at temperature" not in reliability_figure(found(1), "MMLU")


def test_subjects_are_ranked_from_the_most_over_confident(overstated: dict[str, Any]) -> None:
    drawn = subjects_figure(overstated["parts"])
    assert "law &amp; &lt;order&gt; (200)" in drawn
    assert "physics (200)" in drawn


def test_files_of_the_paper_and_of_other_tasks_stand_side_by_side(tmp_path: Path, overstated: dict[str, Any]) -> None:
    written = write_calibration(overstated, tmp_path)
    assert [file.name for file in written] == [
        "calibration.svg",
        "calibration-subjects.svg",
        "calibration.html",
        "calibration.json",
    ]
    assert json.loads(written[-1].read_text()) == overstated
    page = written[-2].read_text()
    assert "400 items of the set's 1,000" in page
    assert "nano &lt;1&gt;" in page
    assert "over-confident" in page
    assert "law &amp; &lt;order&gt;" in page
    other = write_calibration(found(parts=0, task="arc_easy"), tmp_path)
    assert [file.name for file in other] == [f"calibration-arc_easy.{end}" for end in ("svg", "html", "json")]
    section = calibration_section(tmp_path)
    assert section.index("Calibration: MMLU") < section.index("Calibration: ARC-e")


def test_a_folder_without_a_calibration_has_no_section(tmp_path: Path) -> None:
    assert calibration_section(tmp_path) == ""


@pytest.mark.parametrize(("overstatement", "said"), [(1.0, "by chance"), (2.0, "over-confident"), (0.4, "too modest")])
def test_the_verdict(overstatement: float, said: str) -> None:
    assert said in verdict(found(2000, overstatement, parts=0, draws=200))


def test_the_verdict_where_only_bins_are_off() -> None:
    """Half the items are said to be sure and are not, the others the reverse."""
    sure, unsure = [[4.0, 0.0]] * 100, [[0.5, 0.0]] * 100
    choices = make_choices(sure + unsure, [0] * 70 + [1] * 30 + [0] * 90 + [1] * 10)
    assert "in single bins it does not" in verdict(calibrate(choices, draws=50))
