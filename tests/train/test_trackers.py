"""Trackers: TensorBoard for real, the optional two by stand-ins that record what they are told."""

import builtins
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer import event_file_writer

from xmodel2.errors import XmodelError
from xmodel2.recipe import Recipe, recipe_from_dict
from xmodel2.train.metrics import MetricsWriter, read_metrics
from xmodel2.train.trackers import open_trackers

RECIPE = recipe_from_dict({"name": "nano/one"})


@pytest.fixture(autouse=True)
def _first_writers_of_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Event files of one second are read in the order of a number in their names, in which 10 comes before 9."""
    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(0))


class Recorder:
    """Stands in for the modules wandb and trackio, and for the run that their `init` returns."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self.broken = False

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            if self.broken:
                raise ConnectionError("the network is gone")
            print("chatter")
            self.calls.append((name, arguments, named))
            return {"init": self, "login": False}.get(name)

        return call


@pytest.fixture(params=["wandb", "trackio"])
def module(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    recorder = Recorder()
    monkeypatch.setitem(sys.modules, request.param, recorder)
    monkeypatch.setenv("TRACKIO_DIR", "elsewhere")
    monkeypatch.delenv("TRACKIO_DIR")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    return SimpleNamespace(name=request.param, recorder=recorder)


def test_tensorboard_hides_what_a_resumed_run_repeats(tmp_path: Path) -> None:
    for start, stop in ((0, 5), (3, 6)):
        [board] = open_trackers(["tensorboard"], tmp_path, RECIPE, start)
        for step in range(start + 1, stop + 1):
            board.write(step, {"loss": step + start / 10})
        board.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    found = [(event.step, event.value) for event in events.Scalars("loss")]
    assert found == [(1, 1), (2, 2), (3, 3), *[(s, pytest.approx(s + 0.3)) for s in (4, 5, 6)]]


def test_tensorboard_hides_what_a_run_makes_again_after_going_back(tmp_path: Path) -> None:
    [board] = open_trackers(["tensorboard"], tmp_path, RECIPE, 0)
    for time, step in enumerate((1, 2, 3, 4, 4, 2, 3)):
        board.write(step, {"loss": float(time)})
    board.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, 0), (2, 5), (3, 6)]


def test_the_same_numbers_go_to_the_optional_trackers(
    module: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    writer = MetricsWriter(tmp_path, 0, [module.name], RECIPE)
    writer.write({"step": 7, "stage": "stable", "loss": 2.5, "heldout": {"docs": {"loss": 3.0}}})
    writer.close()
    calls = {name: (arguments, named) for name, arguments, named in module.recorder.calls}
    opened = calls["init"][1]
    assert opened["config"]["train"]["learning_rate"] == 0.01
    assert opened["resume"] == "allow"
    numbers = {"loss": 2.5, "heldout/docs/loss": 3.0}
    if module.name == "wandb":
        assert (opened["mode"], opened["dir"], opened["name"]) == ("offline", str(tmp_path), "nano/one")
        assert opened["id"].startswith("nano-one-")
        assert calls["log"] == (({**numbers, "step": 7},), {})
    else:
        assert opened["name"].startswith("nano-one-")
        assert calls["log"] == ((numbers,), {"step": 7})
    assert "finish" in calls
    assert "chatter" not in capsys.readouterr().out


def test_trackio_keeps_its_files_in_the_run_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trackio", Recorder())
    monkeypatch.setenv("TRACKIO_DIR", "mine")
    open_trackers(["trackio"], tmp_path, RECIPE, 0)
    assert os.environ["TRACKIO_DIR"] == "mine"
    monkeypatch.delenv("TRACKIO_DIR")
    open_trackers(["trackio"], tmp_path, RECIPE, 0)
    assert os.environ["TRACKIO_DIR"] == str(tmp_path / "trackio")


def test_a_tracker_that_fails_is_named_once_and_stops_nothing(
    module: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    writer = MetricsWriter(tmp_path, 0, [module.name], RECIPE)
    module.recorder.broken = True
    for step in (1, 2):
        writer.write({"step": step, "loss": 2.5})
    writer.close()
    assert (
        capsys.readouterr().err.count(f"{module.name} failed, and is left out from here on: the network is gone") == 1
    )
    assert len(read_metrics(tmp_path)) == 2
    offline = open_trackers([module.name], tmp_path, RECIPE, 0)
    offline[0].write(1, {"loss": 1.0})
    assert "the network is gone" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_missing_package_says_how_to_get_it(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(XmodelError, match=rf"pip install 'xmodel2\[{name}\]'`, or drop '{name}' from train\.trackers"):
        MetricsWriter(tmp_path, 0, [name], RECIPE)


def test_other_ranks_write_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builtins, "open", None)
    writer = MetricsWriter(tmp_path, 0, ["tensorboard", "wandb"], Recipe(), rank=1)
    writer.write({"step": 1, "loss": 1.0})
    writer.close()
    assert not list(tmp_path.iterdir())
