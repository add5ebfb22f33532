"""Figure 1: every name is there, none is written over another, and a model of another size keeps the others apart."""

import re
from xml.etree import ElementTree

import pytest

from xmodel2.eval.paper import PAPER, XMODEL2
from xmodel2.eval.result_page import sizes
from xmodel2.eval.size_figure import Point, size_figure

COMMONSENSE, REASONING, AGENTS = (
    [Point(row.model, sizes()[row.model], row.average) for row in PAPER if row.table == table] for table in (2, 3, 4)
)
OURS = Point("ours <&>", 1.3, 55.0, (54.0, 56.0))
SVG = "{http://www.w3.org/2000/svg}"


def names(svg: str) -> dict[str, tuple[float, float, float, float]]:
    """Return the box of each model's name in the figure, by what its letters need at least."""
    boxes = {}
    for text in ElementTree.fromstring(svg).iter(f"{SVG}text"):
        style, name = text.attrib["style"], str(text.text)
        if "8.5px" in style:
            place = (
                text.attrib.get("x"),
                text.attrib.get("y"),
            )  # centred and right-aligned names have it, others a shift
            shift = re.findall(r"translate\(([-\d.]+) ([-\d.]+)\)", text.attrib["transform"])
            x, y = map(float, shift[0] if shift else place)
            anchor = (re.findall(r"text-anchor: (\w+)", style) or ["start"])[0]
            left = x - 4.6 * len(name) * {"start": 0, "middle": 0.5, "end": 1}[anchor]
            boxes[name] = (left, y - 6, left + 4.6 * len(name), y)
    return boxes


@pytest.mark.parametrize(
    ("rows", "billions", "average"),
    [
        (COMMONSENSE, 1.3, 55.0),
        (COMMONSENSE, 0.012, 55.0),
        (REASONING, 7.0, 55.0),
        (AGENTS, 0.012, 0.0),
        (AGENTS, 1.1, 7.8),
    ],
)
def test_no_name_is_written_over_another(rows: list[Point], billions: float, average: float) -> None:
    ours = Point("ours <&>", billions, average, (max(0.0, average - 1), average + 1))
    boxes = names(size_figure(rows, XMODEL2, ours, "average, %"))
    assert boxes.keys() == {*(row.name for row in rows), ours.name}
    for name, a in boxes.items():
        for other, b in boxes.items():
            apart = name == other or a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
            assert apart, f"{name} over {other}"


def test_a_model_of_another_size_has_a_panel_of_its_own() -> None:
    near = size_figure(COMMONSENSE, XMODEL2, OURS, "average, %")
    assert near.count("-axes_") == 1
    assert size_figure(COMMONSENSE, XMODEL2, Point("ours", 0.012, 30.0), "average, %").count("-axes_") == 2
    assert near == size_figure(COMMONSENSE, XMODEL2, OURS, "average, %")


def test_an_unknown_size_is_a_line_across_and_none_is_the_papers_alone() -> None:
    unknown = size_figure(COMMONSENSE, XMODEL2, Point("server", None, 50.0), "average, %")
    assert "server, size unknown" in unknown
    assert names(size_figure(COMMONSENSE, XMODEL2, None, "average, %")).keys() == {row.name for row in COMMONSENSE}
