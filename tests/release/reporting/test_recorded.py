"""metrics.jsonl as columns: read on, not again; torn, repeated and damaged lines."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xmodel2.release.reporting.curves import curve_data, thinned
from xmodel2.release.reporting.recorded import Mark, Recorded
from xmodel2.release.reporting.runs import open_runs
from xmodel2.train.metrics import read_metrics


def step(number: int, **values: Any) -> str:
    return (
        json.dumps({"step": number, "tokens": 64 * number, "stage": "stable", "loss": 10.0 / number, **values}) + "\n"
    )


def write(run: Path, text: str, mode: str = "a") -> None:
    with open(run / "metrics.jsonl", mode) as file:
        file.write(text)


def test_it_reads_what_was_added_and_waits_for_the_end_of_a_line(tmp_path: Path) -> None:
    recorded = Recorded(tmp_path)
    assert not recorded.read_on()
    write(tmp_path, step(1) + step(2) + step(3)[:20])
    assert recorded.read_on()
    assert recorded.steps.tolist() == [1, 2]
    assert not recorded.read_on()
    write(tmp_path, step(3)[20:])
    assert recorded.read_on()
    assert recorded.column("loss").tolist() == [10.0, 5.0, 10.0 / 3]
    assert np.isnan(recorded.column("mfu")).all()


def test_lines_that_were_read_are_not_read_again(tmp_path: Path) -> None:
    write(tmp_path, step(1) + step(2))
    recorded = Recorded(tmp_path)
    with open(tmp_path / "metrics.jsonl", "r+") as file:
        file.write("x" * len(step(1)))
    write(tmp_path, step(3))
    assert recorded.read_on()
    assert recorded.steps.tolist() == [1, 2, 3]
    assert recorded.damaged == []


@pytest.mark.parametrize("replaced", [True, False])
def test_a_file_that_is_another_or_shorter_is_read_from_its_start(tmp_path: Path, replaced: bool) -> None:
    write(tmp_path, "".join(map(step, range(1, 9))))
    recorded = Recorded(tmp_path)
    if replaced:
        shutil.move(tmp_path / "metrics.jsonl", tmp_path / "before.jsonl")
    write(tmp_path, step(1) + step(2), "w")
    assert recorded.read_on()
    assert recorded.steps.tolist() == [1, 2]
    (tmp_path / "metrics.jsonl").unlink()
    assert recorded.read_on()
    assert recorded.steps.tolist() == []


def test_the_last_line_of_a_step_counts_as_read_metrics_has_it(tmp_path: Path) -> None:
    skipped = (
        json.dumps({"step": 4, "kind": "skipped", "stage": "stable", "reason": "loss is nan", "loss": "nan"}) + "\n"
    )
    lines = [step(1), step(2), step(3), step(4), step(2, loss=7.0), step(3, loss=6.0), skipped, step(5)]
    write(tmp_path, "".join(lines))
    recorded = Recorded(tmp_path)
    expected = {line["step"]: line["loss"] for line in read_metrics(tmp_path) if "kind" not in line}
    finite = np.isfinite(recorded.column("loss"))
    assert dict(zip(recorded.steps[finite].tolist(), recorded.column("loss")[finite].tolist(), strict=True)) == expected
    assert recorded.marks() == [Mark(2, "went on here again, after step 4"), Mark(4, "skipped: loss is nan")]
    assert recorded.last_step == 5


def test_damaged_lines_are_numbered_and_numbers_that_json_lacks_are_left_out(tmp_path: Path) -> None:
    write(
        tmp_path, "{\n" + step(1, loss=float("nan"), grad_norm=float("inf")) + "[1]\n\n" + '{"step": null}\n' + step(2)
    )
    recorded = Recorded(tmp_path)
    assert recorded.damaged == [1, 3, 5]
    assert np.isnan(recorded.column("loss")).tolist() == [True, False]
    assert np.isnan(recorded.column("grad_norm")).all()


@pytest.mark.parametrize(
    "line",
    [
        '{"step": 1e999}',
        '{"step": 2, "loss": ' + "9" * 400 + "}",
        '{"step": ' + "9" * 30 + "}",
        "[" * 100_000,
        '{"step": -4}',
    ],
    ids=["infinite", "huge loss", "huge step", "deep", "negative"],
)
def test_hostile_lines_are_damaged_lines(tmp_path: Path, line: str) -> None:
    write(tmp_path, step(1) + line + "\n" + step(2) + '{"step": 2, "kind": []}\n')
    recorded = Recorded(tmp_path)
    assert recorded.damaged == [2]
    assert recorded.steps.tolist() == [1, 2]


def test_a_long_run_stays_small_and_keeps_its_spikes(road: Path, tmp_path: Path) -> None:
    shutil.copy(road / "run" / "recipe.toml", tmp_path)
    rows = (
        step(n, loss=99.0 if n == 12_345 else 3 + 1 / n, grad_norm=0.1 + n % 7, mfu=0.4, seconds=1.0)
        for n in range(1, 20_001)
    )
    write(tmp_path, "".join(rows))
    data = curve_data(open_runs([tmp_path]))
    assert len(json.dumps(data, separators=(",", ":"))) < 500_000
    loss = next(chart for chart in data["charts"] if chart["id"] == "loss")["lines"][0]
    assert (12_345, 99.0) in zip(loss["s"], loss["v"], strict=True)
    assert max(loss["m"][1]) < 11
    assert loss["s"] == sorted(loss["s"])
    assert data["runs"][0]["clock"][1][-1] == 20_000


def test_a_short_curve_is_whole() -> None:
    assert thinned(np.array([1, 2, 5]), np.array([1.234567, 0.0, np.nan])) == {"s": [1, 2], "v": [1.2346, 0.0]}
