"""Figures and page of a calibration say what was measured."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xmodel2.eval.calibration import calibrate
from xmodel2.eval.calibration_page import calibration_section, measure_rows, verdict, write_calibration
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


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, overstated: dict[str, Any]) -> Path:
    """Calibrations of the paper's task and, of one item, of another."""
    out = tmp_path_factory.mktemp("calibration")
    names = [file.name for file in write_calibration(overstated, out)]
    assert names == ["calibration.svg", "calibration-subjects.svg", "calibration.html", "calibration.json"]
    other = [file.name for file in write_calibration(found(1, parts=0, task="arc_easy"), out)]
    assert other == [f"calibration-arc_easy.{ending}" for ending in ("svg", "html", "json")]
    return out


def test_the_diagram_says_what_was_measured(folder: Path, overstated: dict[str, Any]) -> None:
    drawn = (folder / "calibration.svg").read_text()
    errors = [f"{name} {overstated[key]['value']:.3f}" for name, key in (("ECE", "ece"), ("MCE", "mce"))]
    assert " · ".join(errors) in drawn
    assert all(f">{row['items']:,}<" in drawn for row in overstated["bins"] if row["items"])
    assert f"temperature {overstated['temperature']['value']:.3g}" in drawn


def test_one_item_has_a_diagram_and_no_temperature(folder: Path) -> None:
    drawn = (folder / "calibration-arc_easy.svg").read_text()
    assert ">1<" in drawn
    assert "temperature" not in drawn


def test_subjects_have_their_names_and_items(folder: Path) -> None:
    drawn = (folder / "calibration-subjects.svg").read_text()
    assert "law &amp; &lt;order&gt; (200)" in drawn
    assert "physics (200)" in drawn


def test_the_page_says_what_it_means(folder: Path, overstated: dict[str, Any]) -> None:
    page = (folder / "calibration.html").read_text()
    for text in ("nano &lt;1&gt;", "over-confident", "law &amp; &lt;order&gt;", "400 items of the set's 1,000"):
        assert text in page
    assert json.loads((folder / "calibration.json").read_text()) == overstated


def test_the_section_has_the_papers_task_first(folder: Path) -> None:
    section = calibration_section(folder)
    assert section.index("Calibration: MMLU") < section.index("Calibration: ARC-e")
    assert section.count("<figure>") == 3


def test_a_folder_without_a_calibration_has_no_section(tmp_path: Path) -> None:
    assert calibration_section(tmp_path) == ""


def cells(rows: list[list[float]], targets: list[int]) -> dict[str, tuple[str, str]]:
    """Return the row of each measure."""
    measured = calibrate(make_choices(rows, targets), draws=20)
    return {name: (plain, scaled) for name, plain, scaled in measure_rows(measured)}


def test_a_temperature_that_was_not_measured_is_not_printed_as_if_it_were() -> None:
    sure, equal = [[0.0, -3.0]] * 10, [[0.0, 0.0]] * 10
    assert cells(sure, [0] * 10)["temperature"][1] == "below 0.01"
    assert cells(sure, [1] * 10)["temperature"][1] == "above 100"
    assert cells(equal, [0, 1] * 5)["temperature"][1] == "not determined"
    assert cells(sure, [0] * 6 + [1] * 4)["temperature"][1].endswith(", ∞)")


def test_few_or_equal_items_have_no_interval() -> None:
    few = cells([[0.0, -1.0], [0.0, -2.0], [-1.0, 0.0]], [0, 1, 1])
    same = cells([[0.0, -3.0]] * 10, [1] * 10)
    for name in ("Brier score", "negative log-likelihood, nats", "expected calibration error"):
        assert "[" not in few[name][0]
        assert "[" not in same[name][0]
    assert "[" not in few["temperature"][1]
    assert "[" in few["accuracy"][0]
    measured = calibrate(make_choices([[0.0, -9.0]] * 12, [1] * 12), draws=20)
    assert "too few, or too alike" in verdict(measured)


@pytest.mark.parametrize(("overstatement", "said"), [(1.0, "by chance"), (2.0, "over-confident"), (0.4, "too modest")])
def test_the_verdict(overstatement: float, said: str) -> None:
    assert said in verdict(found(2000, overstatement, parts=0, draws=200))


def test_the_verdict_where_only_bins_are_off() -> None:
    """Half the items are said to be sure and are not, the others the reverse."""
    sure, unsure = [[4.0, 0.0]] * 100, [[0.5, 0.0]] * 100
    choices = make_choices(sure + unsure, [0] * 70 + [1] * 30 + [0] * 90 + [1] * 10)
    assert "in single bins it does not" in verdict(calibrate(choices, draws=50))
