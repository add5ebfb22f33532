"""What a run writes and shows while it goes on."""

import json
import math
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from xmodel2.errors import XmodelError
from xmodel2.recipe import recipe_from_dict
from xmodel2.train.metrics import MetricsWriter, read_metrics
from xmodel2.train.progress import TrainProgress


def test_lines_and_tensorboard_hold_the_same(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path, 0)
    for step in (1, 2):
        writer.write({"step": step, "stage": "stable", "loss": 5.0 - step})
    writer.write({"step": 2, "kind": "heldout", "heldout": {"docs": {"loss": 2.5}}})
    writer.write({"step": 2, "kind": "evaluation", "tokens": 9, "scores": {"piqa": 0.5}, "seconds": 60.0})
    writer.write({"step": 3, "kind": "evaluation", "tokens": 9, "error": "why", "seconds": 1.0})
    writer.close()
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2, 2, 2, 3]
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    assert [event.value for event in board.Scalars("loss")] == [4.0, 3.0]
    assert board.Scalars("heldout/docs/loss")[0].value == 2.5
    assert [(event.step, event.value) for event in board.Scalars("eval/piqa")] == [(2, 0.5)]
    assert not {"seconds", "tokens"} & set(board.Tags()["scalars"])  # these are of steps


def test_a_repeated_step_counts_once_and_a_torn_line_not_at_all(tmp_path: Path) -> None:
    lines = [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 9.0}, {"step": 2, "loss": 2.0}]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "metrics.jsonl").write_text(text + '{"step": 3, "lo')
    assert [line["loss"] for line in read_metrics(tmp_path)] == [1.0, 2.0]
    assert read_metrics(tmp_path / "absent") == []


def test_of_a_step_skipped_and_made_the_last_counts(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path, 0)
    skipped = {"step": 1, "kind": "skipped", "reason": "why", "loss": "nan", "documents": [["docs", 0, 5]]}
    norms = {"step": 2, "kind": "norms", "weight_rms": {"norm": 1.0}}
    for line in (skipped, {"step": 2, "loss": 2.0}, norms, {"step": 1, "loss": 3.0}, {**skipped, "step": 2}):
        writer.write(line)
    writer.close()
    assert read_metrics(tmp_path) == [{"step": 1, "loss": 3.0}, norms, {**skipped, "step": 2}]


def test_what_is_not_finite_is_text_there_and_a_number_again_when_read(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path, 0)
    writer.write(
        {"step": 1, "kind": "heldout", "heldout": {"text": {"loss": math.nan, "perplexity": math.inf, "tokens": 8}}}
    )
    writer.close()

    def refuse(word: str) -> None:
        raise AssertionError(word)

    [text] = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert json.loads(text, parse_constant=refuse)["heldout"]["text"]["loss"] == "nan"
    [line] = read_metrics(tmp_path)
    found = line["heldout"]["text"]
    assert math.isnan(found["loss"])
    assert (found["perplexity"], found["tokens"]) == (math.inf, 8)


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = MetricsWriter(tmp_path, 0)
    writer._file.close()
    writer._file = open("/dev/full", "w")
    with pytest.raises(XmodelError, match=r"cannot be written .*free some space"):
        writer.write({"step": 1, "loss": 1.0})
    writer.close()  # whose own flush fails again, and must not hide the message


def test_without_a_terminal_progress_is_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    recipe = recipe_from_dict({"train": {"warmup_steps": 0}})
    with TrainProgress(recipe, 0) as progress:
        progress.update(1, "stable", 4.5, 0.01, 1234.0, 0.5)
        progress.update(recipe.total_steps, "decay", 3.25, 0.001, 1234.0, 0.5)
    shown = capsys.readouterr().err.splitlines()
    assert len(shown) == 2
    assert "loss 3.250  lr 1.00e-03  1,234 tok/s  MFU 50%" in shown[1]
    assert "\x1b" not in "".join(shown)


def test_other_ranks_show_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with TrainProgress(recipe_from_dict({}), 0, shown=False) as progress:
        progress.update(1, "stable", 4.5, 0.01, 1234.0, 0.5)
        progress.say("stopped")
    assert not capsys.readouterr().err
