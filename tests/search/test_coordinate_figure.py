"""Figures of the coordinate check say what was measured, and bear what is no number."""

import math

from xmodel2.search.coordinate import CLASSES, Series
from xmodel2.search.coordinate_figure import VIOLATED, Case, figures


def case(exponent: float, first: float = 1.0) -> Case:
    def series(*sizes: int) -> Series:
        return Series(
            sizes, {name: [[first, 0.5 * size**exponent, size**exponent] for size in sizes] for name in CLASSES}
        )

    return Case(series(64, 128, 256), series(2, 4))


def test_slopes_stand_in_the_figures() -> None:
    drawn = figures({"all rules": case(0.0), "standard": case(0.75)})
    assert set(drawn) == {"coordinate-width", "coordinate-depth", "coordinate-rules"}
    assert "residual stream  +0.00" in drawn["coordinate-width"]
    assert "residual stream  +0.75" in drawn["coordinate-width"]
    assert ">layers<" in drawn["coordinate-depth"]
    assert "change over width: attention" in drawn["coordinate-rules"]


def test_the_table_marks_what_is_not_held() -> None:
    assert VIOLATED not in figures({"all rules": case(0.0)})["coordinate-rules"]
    assert VIOLATED in figures({"standard": case(0.75)})["coordinate-rules"]


def test_a_diverged_model_is_drawn_as_far_as_it_can_be() -> None:
    drawn = figures({"all rules": case(0.0), "standard": case(0.0, first=math.nan)})
    assert "+nan" in drawn["coordinate-rules"]
