"""`xmodel2 reproduce` as a user meets it: its plan, the room on the disk, its folder, its ledger, what ends it."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from xmodel2.cli import main
from xmodel2.errors import XmodelError
from xmodel2.files import alone_in, write_json_atomic
from xmodel2.reproduction.corpus import open_corpus
from xmodel2.reproduction.cost import check_disk, cost_rows, disk_bytes
from xmodel2.reproduction.folder import BEGUN_FILE, check_out, note_out
from xmodel2.reproduction.ledger import HEAD, write_ledger
from xmodel2.reproduction.road import Road
from xmodel2.reproduction.run import Reproduction
from xmodel2.reproduction.scales import SCALES


@pytest.fixture
def road(sources: Path, tmp_path: Path) -> Road:
    return Road(SCALES["pico"], open_corpus(sources), tmp_path / "out")


def reproduce(road: Road, *more: str, scale: str = "pico") -> int:
    """Run the command and return its exit code."""
    with pytest.raises(SystemExit) as stop:
        main(["reproduce", "--scale", scale, "--data", str(road.corpus.path), "--out", str(road.out), *more])
    return int(stop.value.code or 0)


def finish(road: Road, name: str, result: Any = None) -> None:
    """Make a stage's results and record as if it had been done."""
    records = Reproduction(road).records
    stage = records.stages[name]
    for file in stage.results:
        write_json_atomic(road.out / file, result or {})
    write_json_atomic(records.path(name), {"stage": name, "done": 1, "seconds": 90.0, "commands": [f"xmodel2 {name}"]})
    records.finish(name)


def test_the_plan_is_a_table_and_touches_nothing(
    road: Road, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rates = {"auto": ("bf16", 7e11), "fp32": ("fp32", 1e11)}
    monkeypatch.setattr("xmodel2.train.device.pick_device", lambda *_: torch.device("cpu"))
    monkeypatch.setattr("xmodel2.train.device.pick_precision", lambda name, *_: rates[name])
    assert reproduce(road, "--plan") == 0
    said = capsys.readouterr().out
    assert all(stage.name in said for stage in road.stages)
    assert "left to do: about" in said
    assert reproduce(road, "--plan", "--json") == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["bytes"] == disk_bytes(road.scale)
    assert [row["stage"] for row in plan["stages"]] == [stage.name for stage in road.stages]
    seconds = sum(row["seconds"] for row in plan["stages"])
    rates["auto"] = rates["fp32"]
    assert reproduce(road, "--plan", "--json") == 0
    slower = sum(row["seconds"] for row in json.loads(capsys.readouterr().out)["stages"])
    assert slower / seconds == pytest.approx(7 * 0.19 / 0.62, rel=0.05)
    assert not road.out.exists()


def test_too_little_room_is_said_before_the_start(
    road: Road, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    begun: list[bool] = []
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=10_000_000))
    monkeypatch.setattr(Reproduction, "run", lambda self: begun.append(True))
    assert reproduce(road) == 1
    error = capsys.readouterr().err
    assert "GB more, and 0.0 GB are free there" in error
    assert "--ignore-disk" in error
    assert not begun
    assert reproduce(road, "--ignore-disk") == 0
    assert begun


def test_what_is_done_needs_no_more_room(road: Road, monkeypatch: pytest.MonkeyPatch) -> None:
    note_out(road)
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=0))
    for name in ("corpus", "data", "search"):
        finish(road, name)
    check_disk(road, ["search"])
    with pytest.raises(XmodelError, match="scale pico will take about"):
        check_disk(road)
    everything = {stage.name for stage in road.stages}
    assert disk_bytes(road.scale, everything) == 0
    assert disk_bytes(road.scale) > disk_bytes(road.scale, ["corpus"]) > disk_bytes(road.scale, ["corpus", "search"])


@pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES)
def test_the_cost_of_every_scale_is_told_by_stage(scale: Any) -> None:
    rows = {row["stage"]: row for row in cost_rows(scale, 1e12)}
    assert {"search", "transfer", "direct", "ratio", "law", "ablation", "peer", "stable", "decay"} <= set(rows)
    assert all(row["seconds"] == pytest.approx(row["flops"] / 0.4e12) for row in rows.values())
    final = scale.final_length
    assert rows["stable"]["tokens"] == pytest.approx(final.stable * final.batch_tokens)
    assert rows["decay"]["tokens"] == pytest.approx(final.decay * final.batch_tokens)


def test_a_folder_goes_on_as_what_it_was_begun(road: Road, capsys: pytest.CaptureFixture[str]) -> None:
    note_out(road)
    check_out(road)
    assert json.loads((road.out / BEGUN_FILE).read_text()) == {"scale": "pico", "out": str(road.out)}
    assert reproduce(road, scale="nano") == 1
    assert "was begun with --scale pico" in capsys.readouterr().err
    write_json_atomic(road.out / BEGUN_FILE, {"scale": "pico", "out": "elsewhere"})
    assert reproduce(road) == 1
    assert "was begun as --out elsewhere" in capsys.readouterr().err


def test_what_is_no_reproduction_is_left_alone(road: Road, capsys: pytest.CaptureFixture[str]) -> None:
    road.out.mkdir()
    (road.out / "thesis.tex").write_text("")
    assert reproduce(road) == 1
    assert "holds something that `xmodel2 reproduce` did not make" in capsys.readouterr().err
    assert [path.name for path in road.out.iterdir()] == ["thesis.tex"]


def test_two_in_one_folder(road: Road, capsys: pytest.CaptureFixture[str]) -> None:
    with alone_in(road.out):
        assert reproduce(road) == 1
    assert "another `xmodel2` works in it" in capsys.readouterr().err


def test_the_ledger_of_stages_that_are_done(road: Road) -> None:
    note_out(road)
    assert write_ledger(road) == []
    finish(road, "law", {"fit": "of another version"})
    (road.out / "law" / "runs").mkdir()
    (road.out / "law" / "runs" / "big.json").write_text("{}")
    rows = write_ledger(road)
    assert all(len(row) == len(HEAD) for row in rows)
    written = json.loads((road.out / "ledger.json").read_text())
    assert [list(row.values()) for row in written] == rows
    text = (road.out / "ledger.md").read_text()
    assert "xmodel2 law" in text
    assert "1.5" in text
    results = {str(path.relative_to(road.out / "results")) for path in (road.out / "results").rglob("*.*")}
    assert {"law/law.json", "stages/law.json", "ledger.md", "ledger.json"} <= results
    assert not any("runs" in name for name in results)
    assert (road.out / "report.html").exists()


def test_a_page_that_fails_takes_nothing_with_it(road: Road, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> None:
        raise XmodelError("law.json: another version")

    note_out(road)
    finish(road, "law")
    monkeypatch.setattr("xmodel2.reproduction.ledger.build_report", fails)
    with pytest.raises(XmodelError, match="another version"):
        write_ledger(road)
    assert (road.out / "ledger.md").exists()
    assert (road.out / "results" / "law" / "law.json").exists()


@pytest.mark.parametrize(
    ("ended", "code", "words"),
    [(XmodelError("stage law: ended with 1"), 1, "stage law: ended with 1"), (KeyboardInterrupt(), 130, "goes on")],
)
def test_a_ledger_that_fails_does_not_hide_why_the_stages_ended(
    road: Road,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    ended: BaseException,
    code: int,
    words: str,
) -> None:
    def run(self: Reproduction) -> None:
        raise ended

    def fails(road: Road) -> None:
        raise ValueError("no figure")

    monkeypatch.setattr(Reproduction, "run", run)
    monkeypatch.setattr("xmodel2.reproduction.ledger.write_ledger", fails)
    assert reproduce(road, "--ignore-disk") == code
    error = capsys.readouterr().err
    assert words in error
    assert "ledger: not written as a whole (no figure)" in error


def test_an_interrupted_redo_says_how_to_go_on_without_removing_again(
    road: Road, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(self: Reproduction) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Reproduction, "run", run)
    assert reproduce(road, "--ignore-disk", "--redo", "law") == 130
    assert "with --redo changed in place of --redo law" in capsys.readouterr().err


def test_mistakes_are_one_message(road: Road, capsys: pytest.CaptureFixture[str]) -> None:
    assert reproduce(road, "--workers", "0") == 1
    assert "--workers 0: must be at least 1" in capsys.readouterr().err
    assert reproduce(road, "--only", "laws") == 1
    assert "--only laws: there is no such stage" in capsys.readouterr().err
