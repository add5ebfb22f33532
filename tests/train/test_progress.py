"""What a run shows: to a reader that is gone, nothing, and the run goes on."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from xmodel2.recipe import Recipe, recipe_to_toml, replace
from xmodel2.train import train
from xmodel2.train.checkpoint import checkpoint_steps
from xmodel2.train.progress import TrainProgress


def test_sources_read_over_and_over_are_told(
    small_recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for times, told in ((1, False), (40, True)):
        recipe = replace(small_recipe, {"stages.stable.tokens": times * small_recipe.stages.stable.tokens})
        train(recipe, tmp_path / f"run-{times}", stop_after=1)
        shown = capsys.readouterr()
        assert ("times in all: text " in shown.out + shown.err) is told


def test_on_a_known_gpu_both_mfus_are_named(small_recipe: Recipe, capsys: pytest.CaptureFixture[str]) -> None:
    with TrainProgress(small_recipe, 0) as progress:
        progress.update(small_recipe.total_steps, "decay", 5.0, 1e-3, 51_750.0, 0.611, 0.583)
    shown = capsys.readouterr()
    assert "51,750 tok/s  MFU 61% causal/measured, 58% full/data sheet" in shown.out + shown.err


def test_a_reader_that_is_gone_ends_nothing(small_recipe: Recipe, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    (tmp_path / "recipe.toml").write_text(recipe_to_toml(small_recipe))
    train(small_recipe, run_dir, stop_after=10)
    (run_dir / "checkpoints" / "step-10" / "model.safetensors").write_bytes(b"")  # which is told
    reader, writer = os.pipe()
    os.close(reader)
    command = ["train", str(tmp_path / "recipe.toml"), "--out", str(run_dir), "--resume"]
    done = subprocess.run(
        [sys.executable, "-m", "xmodel2.cli", *command], stderr=writer, stdout=subprocess.PIPE, text=True, timeout=120
    )
    os.close(writer)
    assert done.returncode == 0
    assert "finished at step 20" in done.stdout
    assert checkpoint_steps(run_dir)[-1] == 20
