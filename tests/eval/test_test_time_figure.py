"""Figure 5: points, law and equation of each model, also where there is no law; the report's section."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from xmodel2.errors import XmodelError
from xmodel2.eval.test_time_figure import draw, equation, read_result, scaling_section


def result(name: str, law: bool = True) -> dict[str, Any]:
    t = [1.0, 2.0, 4.0, 8.0, 16.0]
    loss = [2 + 3 * x**-0.5 if law else 4.0 for x in t]
    bins = [
        {"first": int(x), "last": int(x), "t": x, "loss": y, "mean": y, "error": 0.05}
        for x, y in zip(t, loss, strict=True)
    ]
    ends = {"low": 1.0, "high": 3.0}
    fit: dict[str, Any] = {
        "determined": law,
        "complaint": "" if law else "the loss is flat: it <falls>",
        "remarks": [],
        "forms": {},
    }
    fit |= {"constants": None, "goodness": None, "law": None, "ahead": None}
    if law:
        curve = [*loss, 2 + 3 * 32**-0.5]
        fit["constants"] = {key: {"value": value, **ends} for key, value in zip("abc", (2.0, 3.0, 0.5), strict=True)}
        fit["goodness"] = {"r2": 0.998, "largest_residual": 0.0, "chi2_by_freedom": 1.0}
        fit["law"] = {"t": [*t, 32.0], "loss": curve, "low": [y - 0.1 for y in curve], "high": [y + 0.1 for y in curve]}
        fit["ahead"] = {"t": 32, "loss": curve[-1], "low": curve[-1] - 0.2, "high": curve[-1] + 0.2}
        fit["remarks"] = ["a is not told from 0 & so on"]
    settings = {"text": "WikiText-2", "windows": 99, "context": 16, "interval": 0.95, "drawn": "documents"}
    return {"model": {"name": name}, "settings": settings, "bins": bins, "fit": fit}


def texts(svg: str) -> str:
    return " ".join(re.findall(r">([^<]+)<", svg))


def test_each_model_has_its_equation_in_the_legend() -> None:
    shown = draw([result("nano_$1"), result("micro", law=False)])
    assert r"nano_\$1: 2.000 + 3.000 t$^{-0.500}$" in shown  # as matplotlib's comment on what it typesets
    assert "micro: no law: the loss is flat" in texts(shown)
    assert equation(result("nano")) == "2.000 + 3.000 t$^{-0.500}$"


def test_without_any_law_nothing_is_made_up() -> None:
    shown = texts(draw([result("micro", law=False)]))
    assert "no law to draw" in shown
    assert "loss - a" not in shown


def test_the_same_results_give_the_same_bytes() -> None:
    assert draw([result("nano")]) == draw([result("nano")])


def test_section_has_figure_constants_and_remarks(tmp_path: Path) -> None:
    (tmp_path / "scaling.json").write_text(json.dumps(result("nano")))
    section = scaling_section(tmp_path)
    assert "<svg" in section
    assert "loss at t = 32" in section
    assert "0.9980" in section
    assert "a is not told from 0 &amp; so on." in section
    (tmp_path / "scaling.json").write_text(json.dumps(result("nano", law=False)))
    assert "No law is given: the loss is flat: it &lt;falls&gt;." in scaling_section(tmp_path)


def test_a_folder_without_a_result_is_named(tmp_path: Path) -> None:
    with pytest.raises(XmodelError, match=r"scaling\.json: no such file; `xmodel2 scaling MODEL --out"):
        read_result(tmp_path)
    (tmp_path / "scaling.json").write_text('{"loss": 1}')
    with pytest.raises(XmodelError, match="is not what `xmodel2 scaling` writes"):
        read_result(tmp_path)
