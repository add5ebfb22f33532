"""Memory that runs out in `xmodel2 train`: a real allocation that fails, one message, no traceback."""

import subprocess
import sys
from pathlib import Path

import pytest

from xmodel2.recipe import Recipe, replace
from xmodel2.train import train
from xmodel2.train.memory import Layout, memory_plan
from xmodel2.train.out_of_memory import out_of_memory_message, shortage

CODE = """
import resource, sys
import xmodel2.train.run
from xmodel2.cli import main
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (256 << 20),) * 2)
main(sys.argv[1:])
"""


def test_settings_that_rule_others_out_leave_a_message(small_recipe: Recipe) -> None:
    recipe = replace(
        small_recipe,
        {
            "train.compile": True,
            "train.compile_mode": "reduce-overhead",
            "train.micro_batch_size": 4,
            "train.device": "cpu",
        },
    )
    assert recipe.batch_rows == 4
    assert "run it again with more machines" in out_of_memory_message(recipe, 1, MemoryError("no more"))


def test_a_run_that_may_be_killed_is_told_before_its_first_step(
    small_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = replace(small_recipe, {"train.micro_batch_size": 2, "train.device": "cpu"})
    assert not shortage(recipe, 1)
    most = memory_plan(recipe, "fp32", Layout(), compiled=False, device="cpu").peak
    monkeypatch.setattr("xmodel2.train.out_of_memory.total_memory", lambda device: 2 * most - 1)
    assert not shortage(recipe, 1)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")  # two share the machine
    told = shortage(recipe, 2)
    assert "this may be more than memory holds" in told
    assert "a process: this recipe needs about" in told
    assert "; if it is killed, use " in told
    monkeypatch.setattr("xmodel2.train.out_of_memory.total_memory", lambda device: most // 2)
    train(recipe, tmp_path / "run", stop_after=1)
    assert "if it is killed, use" in "".join(capsys.readouterr())


def test_a_run_without_room_says_which_setting_to_change(road: Path, tmp_path: Path) -> None:
    larger = (
        "model.hidden_size=256",
        "model.num_hidden_layers=8",
        "train.micro_batch_size=256",
        "train.batch_tokens=16384",
    )
    longer = (
        "stages.stable.tokens=65536",
        "stages.decay.tokens=16384",
        "train.heldout_every=0",
        "train.async_checkpoint=false",
    )
    arguments = ["train", str(road / "run" / "recipe.toml"), "--out", str(tmp_path / "run")]
    environment = {"OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1", "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", CODE, *arguments, "--set", *larger, *longer],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 1
    assert "memory ran out on a cpu" in done.stderr
    assert "run it again with --set train.micro_batch_size=" in done.stderr
    assert "Traceback" not in done.stderr
