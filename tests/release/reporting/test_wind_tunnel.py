"""Results of searches in the report: their figures are pictures, their names are text, and a damaged file is told by its name."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

from xmodel2.files import write_json_atomic
from xmodel2.release.reporting.section import Section
from xmodel2.release.reporting.wind_tunnel import wind_tunnel_sections

KEPT = Path(__file__).parents[3] / "docs" / "wind-tunnel"
"""Results of real searches."""


def plain(section: Section) -> str:
    """Return a section's HTML without the classes of its cells."""
    return re.sub(r'<td class="[^"]*">', "<td>", section.body)


def written(folder: Path, name: str, value: Any) -> Path:
    write_json_atomic(folder / name, value)
    return folder


def test_a_search(tmp_path: Path) -> None:
    study = json.loads((KEPT / "search.json").read_text())
    [section] = wind_tunnel_sections(written(tmp_path, "study.json", {**study, "name": "<b>mine"}))
    assert (section.anchor, section.title) == ("search", "Search: <b>mine")
    for words in ("<b>265</b><span>trials an hour</span>", "<td>84</td>", "5.535", "dim_model_base"):
        assert words in section.body


def test_figures_are_pictures_in_which_nothing_runs(tmp_path: Path) -> None:
    shutil.copy(KEPT / "coordinate.json", tmp_path / "coordinate.json")
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "coordinate-width.svg").write_text("<svg><script>alert(1)</script></svg>")
    (tmp_path / "figures" / "coordinate-depth.svg").write_text(" " * 500_000)
    [section] = wind_tunnel_sections(tmp_path)
    assert "<script" not in section.body
    assert '<img alt="Over width" src="data:image/svg+xml;base64,' in section.body
    assert "too large" in section.body
    assert "not held: 14 of 19 outside" in section.body


def test_a_transfer_says_what_carries_over(tmp_path: Path) -> None:
    sweep = {
        "sweep": "learning_rate-width",
        "parametrization": "tensor_program",
        "optima": [{"size": 64}, {"size": 1024}],
        "octaves": -0.697,
        "interval": [-1.04, -0.44],
        "slope": -0.17,
        "noise": 0.02,
        "verdict": "not told: the interval has both",
    }
    alone = {**sweep, "parametrization": "standard", "octaves": None, "interval": None, "slope": None}
    [section] = wind_tunnel_sections(written(tmp_path, "transfer.json", {"recipe": "r", "sweeps": [sweep, alone]}))
    assert (
        "<td>width 64 to 1,024</td><td>tensor program</td><td>-0.17</td><td>-0.70</td><td>-1.04 to -0.44</td>"
        in plain(section)
    )
    assert "<td>standard</td><td></td><td></td><td></td>" in plain(section)


def test_a_ratio_and_a_law(tmp_path: Path) -> None:
    cell = {"mean": 5.2, "difference": 0.1, "error": None}
    curve = {"optimum": 0.78, "interval": [0.62, 1.0], "optimum_is": "not established"}
    ratio = {
        "recipe": "r",
        "seeds": [1],
        "shares": {"accuracy": curve},
        "mixtures": [{"value": "only <x>", "seeds": 2, "text": cell}],
        "shape": [],
        "length": [{"value": 25600, "seeds": 1, "text": cell}],
        "schedules": [{"tokens": 81920, "wsd": 6.2, "cosine": None, "difference": None, "error": None}],
    }
    [section] = wind_tunnel_sections(written(tmp_path / "ratio", "ratio.json", ratio))
    for words in (
        "0.62 to 1.00",
        "only &lt;x&gt;",
        "<td>25,600</td><td>1</td><td>5.200</td>",
        "<td>81,920</td><td>6.200</td>",
    ):
        assert words in plain(section)
    constant = {"value": 1.5, "low": 1.0, "high": 2.0}
    prediction = json.loads((KEPT / "law-prediction-128x4.json").read_text())
    law = {"laws": {"without embeddings": {"huber": {"E": constant, "undetermined": ["E"]}}}, "prediction": prediction}
    [section] = wind_tunnel_sections(written(tmp_path / "law", "law.json", law))
    for words in (
        "<td>1.000 to 2.000</td><td>not determined</td>",
        "Size 128x4",
        "<td>5.945</td><td>5.810 to 6.036</td><td></td>",
    ):
        assert words in plain(section)


def test_other_folders_have_no_part_and_damaged_files_are_named(tmp_path: Path) -> None:
    assert wind_tunnel_sections(tmp_path) == []
    (tmp_path / "law.json").write_text("{")
    write_json_atomic(tmp_path / "ratio.json", {"recipe": "r"})
    shutil.copy(KEPT / "coordinate.json", tmp_path / "coordinate.json")
    whole, ratio, law = wind_tunnel_sections(tmp_path)
    assert "What each rule is for" not in whole.body
    assert "steepest slope" in whole.body
    assert (ratio.anchor, law.title) == ("ratio", "law.json")
    assert f"{tmp_path / 'ratio.json'}: has no &#x27;shares&#x27;" in ratio.body
    assert "law.json: not valid JSON" in law.body
