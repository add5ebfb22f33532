"""Comparisons in the report: what their files say, also of what diverged or was not reached, and damage told once."""

import re
from pathlib import Path
from typing import Any

import pytest

from tests.release.reporting.test_ablation_verdicts import OWN, ablation, arm, of_direct, of_formats, of_peer, worse_by
from xmodel2.files import write_json_atomic
from xmodel2.recipe import Recipe
from xmodel2.release.reporting.build import build_report
from xmodel2.release.reporting.comparisons import comparison_sections
from xmodel2.release.reporting.section import Section


def section(folder: Path, name: str, value: Any) -> Section:
    write_json_atomic(folder / name, value)
    [found] = comparison_sections(folder)
    return found


def rows(found: Section) -> list[list[str]]:
    """Return the cells of a section's tables."""
    lines = re.findall(r"<tr>(.*?)</tr>", found.body, re.DOTALL)
    return [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", line, re.DOTALL) for line in lines]


def test_ablations(small_recipe: Recipe, tmp_path: Path) -> None:
    arms = [
        arm("untied", "embedding", worse_by(0.4), best=2.0, head=500_000),
        arm("bpe", "tokenizer", [None]),
    ]
    ablation(small_recipe, tmp_path, arms)
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "ablation.svg").write_text("<svg/>")
    [found] = comparison_sections(tmp_path)
    assert (found.anchor, found.title) == ("ablation", f"Ablations: {small_recipe.name}")
    assert rows(found)[1:3] == [
        ["own", "600,000", "1,000,000", "200,000", "1", "3", "5.0200", "", "", ""],
        [
            *("untied", "600,000", "1,500,000", "200,000", "2 (edge)", "3"),
            *("5.0401", "+0.0201", "0.0152 to 0.0250", "+0.40"),
        ],
    ]
    assert rows(found)[5] == ["bpe", "600,000", "1,000,000", "200,000", "diverged", "0", "", "", "", ""]
    assert "Diverged: bpe_rate1_seed1, bpe_rate0.5_seed1, bpe_rate2_seed1" in found.body
    assert 'alt="All arms"' in found.body
    assert "less own above 0 is worse than the recipe" in found.body


def test_a_recipe_that_diverged(small_recipe: Recipe, tmp_path: Path) -> None:
    ablation(small_recipe, tmp_path, [arm("untied", "embedding", OWN)], own=[None])
    [found] = comparison_sections(tmp_path)
    assert [cells[4:8] for cells in rows(found)[1:]] == [["diverged", "0", "", ""], ["1", "3", "5.0200", ""]]


@pytest.mark.parametrize(
    ("carried", "cells"),
    [
        ({1: 4.0, 2: 4.012}, ["4.0060", "4.0000", "+0.15", "-1.76 to 2.06", "not told: the interval has both"]),
        (
            {1: None, 2: 4.01},
            ["4.0100", "4.0000", "+0.25", "", "not held: the carried-over values diverge with seed 1"],
        ),
    ],
)
def test_direct_searches(carried: dict[int, float | None], cells: list[str], tmp_path: Path) -> None:
    result = {"recipe": "r", "bound_percent": 0.5, **of_direct(carried, {1: 4.0, 2: 4.0})}
    finite = [loss for loss in carried.values() if loss is not None]
    for size in result["sizes"]:
        size |= {"layers": 4, "parameters": 800_000, "carried": {"mean": sum(finite) / len(finite)}}
        size["direct"]["mean"] = 4.0
    found = section(tmp_path, "direct.json", result)
    assert rows(found)[1] == ["96 x 4", "800,000", *cells]
    assert "9 trials at each size; losses of 2 seeds that chose nothing" in found.body


def test_formats(tmp_path: Path) -> None:
    found = section(tmp_path, "ratio.json", {"recipe": "r", "format": of_formats((2.0,), (2.5,))})
    assert (found.anchor, len(rows(found))) == ("format", 3)  # two measures; nobody was asked questions
    assert rows(found)[1][1:] == ["2.000", "2.000", "2.500", "2.500", "-0.500", ""]
    write_json_atomic(tmp_path / "ratio.json", {"recipe": "r", "format": {}})
    assert comparison_sections(tmp_path) == []


def test_the_peer(tmp_path: Path) -> None:
    ours = [{500: 4.5, 1000: 4.0}, {500: 4.5, 1000: 4.0}]

    def told(*theirs: float | None) -> list[list[str]]:
        result = of_peer(ours, theirs) | {"peer": {"name": "Trainer", "version": "5"}}
        return rows(section(tmp_path, "peer.json", result))

    assert told(4.25, 4.25)[1:] == [
        ["loss at equal tokens, ours less the Trainer&#x27;s, nats a token", "-0.2500", "-0.2500 to -0.2500"],
        ["tokens to the Trainer&#x27;s loss, as a share of its own", "0.707", "0.707 to 0.707"],
        ["time a token, as a share of the eager Trainer&#x27;s", "0.500", "0.450 to 0.550"],
        ["tokens-time, eager Trainer: at most 0.6 held", "0.354", "0.318 to 0.389"],
        ["loss at equal time, ours less the eager Trainer&#x27;s, nats a token", "-0.2500", "-0.2500 to -0.2500"],
    ]
    missed = told(3.9, 4.25)
    assert missed[2][0].endswith("share of its own (not reached with 1 of the seeds)")
    assert missed[4] == ["tokens-time, eager Trainer: at most 0.6 not told", "", ""]
    assert told(4.6, 4.6)[2][0].endswith("share of its own at most")
    assert [cells[1:] for cells in told(None, None)[1:3]] == [["", ""], ["", ""]]


def test_damage_is_told_once_by_the_file_s_name(tmp_path: Path) -> None:
    assert comparison_sections(tmp_path) == []
    write_json_atomic(tmp_path / "peer.json", {"recipe": "r"})
    (tmp_path / "ratio.json").write_text("{")
    ratio, peer = comparison_sections(tmp_path)
    assert "ratio.json: not valid JSON" in ratio.body
    assert f"{tmp_path / 'peer.json'}: has no &#x27;tokens_factor&#x27;" in peer.body
    page = build_report([tmp_path], tmp_path / "report.html").read_text()
    sections = page.partition('id="claims"')[0]
    assert sections.count("ratio.json: not valid JSON") == 1
    assert sections.count("has no &#x27;tokens_factor&#x27;") == 1
