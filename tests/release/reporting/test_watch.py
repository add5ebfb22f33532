"""A page that follows a run: written when files change, and a last time, without loading itself again."""

import json
import shutil
from pathlib import Path

import pytest

from xmodel2.release.reporting.build import Report
from xmodel2.release.reporting.runs import open_runs
from xmodel2.release.reporting.watch import live_line, progress, watch_report


@pytest.fixture
def run(road: Path, tmp_path: Path) -> Path:
    """A copy of the run as it was after 12 of its 20 steps."""
    run = tmp_path / "run"
    run.mkdir()
    shutil.copy(road / "run" / "recipe.toml", run)
    lines = (road / "run" / "metrics.jsonl").read_text().splitlines(keepends=True)
    early = [line for line in lines if json.loads(line)["step"] <= 12]
    (run / "metrics.jsonl").write_text("".join(early))
    (run / "later").write_text("".join(lines[len(early) :]))
    return run


def test_it_follows_until_the_last_step_is_made(run: Path) -> None:
    out, pages, times = run / "report.html", list[str](), list[int]()

    def pause(seconds: float) -> None:
        assert seconds == 0.5
        assert len(pages) < 9
        pages.append(out.read_text())
        times.append(out.stat().st_mtime_ns)
        if len(pages) == 3:
            with open(run / "metrics.jsonl", "a") as file:
                file.write((run / "later").read_text())

    assert watch_report([run], out, every=0.5, pause=pause) == out
    assert "<b>live</b>: updated" in pages[0]
    assert "step 12 of 20" in pages[0]
    assert times[0] == times[2], "it is written although nothing changed"
    last = out.read_text()
    assert 'id="live"' not in last
    assert "20 / 20" in last
    assert '<div id="still"><figure' in last
    assert len(pages) > 3


def test_ctrl_c_leaves_a_page_that_does_not_load_itself(run: Path) -> None:
    def pause(seconds: float) -> None:
        raise KeyboardInterrupt

    text = watch_report([run], run / "report.html", pause=pause).read_text()
    assert 'id="live"' not in text
    assert "12 / 20" in text


def test_a_run_that_has_ended_is_told_at_once(road: Path, run: Path) -> None:
    shutil.copy(road / "run" / "metrics.jsonl", run)
    waits = iter((0, 0, 0))
    assert 'id="live"' not in watch_report([run], run / "report.html", pause=lambda _: next(waits)).read_text()


def test_new_results_are_a_change_and_only_they_are_made_again(run: Path) -> None:
    report = Report([run], run / ".." / run.name / "page")  # the page itself is no change, whatever it is called
    report.write(live_line(report.runs, 5, 0))
    assert not report.read_on()
    (run / "results.json").write_text("{")
    assert report.read_on()
    assert "results.json: not valid JSON" in report.write(live_line(report.runs, 5, 0)).read_text()
    assert not report.read_on()


def test_progress_says_how_long_the_steps_take(run: Path) -> None:
    steps = [{"step": n, "loss": 1.0, "seconds": 450.0} for n in range(1, 13)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in steps))
    (opened,) = open_runs([run])
    assert progress(opened) == "step 12 of 20, 1 h 0 min of steps left"
    assert 'data-patience="9000"' in live_line([opened], 5, 0)
