"""The profile of some steps: a trace that opens, the costliest operations, and nothing left in the way of the run."""

import gzip
import json
from pathlib import Path

import pytest
import torch

from xmodel2.train.profile import ACTIVE, WAIT, WARMUP, StepProfiler


def make_steps(run_dir: Path, steps: int, start: int = 0, enabled: bool = True) -> None:
    weight = torch.randn(64, 64)
    with StepProfiler(run_dir, start, enabled) as profiler:
        for _ in range(steps):
            for _ in range(4):
                weight @ weight
            weight.exp()
            profiler.step()


def test_a_profile_is_a_trace_and_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_steps(tmp_path, WAIT + WARMUP + ACTIVE + 5, start=100)
    trace = tmp_path / "profile" / "steps-108-110.trace.json.gz"
    events = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    assert sum(event.get("name") == "aten::mm" for event in events) == 4 * ACTIVE
    saved = json.loads((tmp_path / "profile" / "operations.json").read_text())
    assert saved["steps"] == [108, 110]
    rows = {row["operation"]: row for row in saved["operations"]}
    assert (rows["aten::mm"]["calls"], rows["aten::exp"]["calls"]) == (4, 1)
    times = [row["self_cpu_ms"] for row in saved["operations"]]
    assert times == sorted(times, reverse=True)
    assert 0 < sum(row["share"] for row in saved["operations"]) <= 1.0001
    assert len(list((tmp_path / "profile").iterdir())) == 2
    shown = capsys.readouterr().err
    assert "aten::mm" in shown
    assert f"{trace}: open it at" in shown


def test_a_run_too_short_to_profile_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_steps(tmp_path, 3)
    assert "nothing was recorded, since the run ended before step 8" in capsys.readouterr().err
    make_steps(tmp_path, 30, enabled=False)
    assert not list(tmp_path.iterdir())


def test_a_run_that_ends_while_it_is_recorded_keeps_what_there_is(tmp_path: Path) -> None:
    make_steps(tmp_path, WAIT + WARMUP + 1)
    assert (tmp_path / "profile" / "operations.json").exists()


def test_a_profile_that_cannot_be_written_does_not_stop_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "profile").write_text("in the way")
    make_steps(tmp_path, WAIT + WARMUP + ACTIVE + 2)
    assert "the run goes on" in capsys.readouterr().err
