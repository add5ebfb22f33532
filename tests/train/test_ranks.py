"""Several ranks learn what one learns: every layout, resumed in another, stopped by a signal, and with a rank that is killed."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from xmodel2.errors import XmodelError
from xmodel2.files import read_json, write_text_atomic
from xmodel2.recipe import Recipe, load_recipe, recipe_to_toml, replace
from xmodel2.train import load_model, read_metrics, train
from xmodel2.train.checkpoint import MODEL, OPTIMIZER, checkpoint_steps
from xmodel2.train.guard import GUARD_FILE
from xmodel2.train.tensor_files import TensorFiles
from xmodel2.train.world import mesh_shape

LAYOUTS = {
    2: [
        "data_parallel_shard=2",
        "data_parallel_replicate=2",
        "tensor_parallel=2",
        "context_parallel=2",
        "compiled,tensor_parallel=2",
        "stopped",
        "bf16",
        "bf16,kernels",
        "poisoned",
    ],
    4: [
        "data_parallel_replicate=2,data_parallel_shard=2",
        "data_parallel_shard=2,tensor_parallel=2",
        "data_parallel_shard=2,context_parallel=2",
        "recomputed,data_parallel_shard=2,tensor_parallel=2",
        "compiled,kernels,data_parallel_shard=2,tensor_parallel=2",
        "context_parallel=2,tensor_parallel=2",
    ],
}
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


def recipe_of(small_recipe: Recipe, **changed: Any) -> Recipe:
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "dim_model_base": 32}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    train_settings = {"batch_tokens": 256, "micro_batch_size": 1, "warmup_steps": 2, "checkpoint_every": 100}
    return replace(
        small_recipe,
        {
            **{f"model.{key}": value for key, value in {**sizes, **heads}.items()},
            "data.sequence_length": 32,
            "stages.stable.tokens": 6 * 256,
            "stages.decay.tokens": 4 * 256,
            **{f"train.{key}": value for key, value in train_settings.items()},
            "train.heldout_rows": 8,
            "train.norms_every": 5,
            **changed,
        },
    )


def torchrun(ranks: int, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", *arguments]
    return subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.fixture(scope="module")
def runs(small_recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run by one rank, in `one`, and in a folder a layout by two and by four."""
    root = tmp_path_factory.mktemp("ranks")
    recipe = recipe_of(small_recipe, **{"evaluation.every": 100})
    write_text_atomic(root / "recipe.toml", recipe_to_toml(recipe))
    train(recipe, root / "one")
    command = [sys.executable, str(Path(__file__).with_name("layouts.py")), str(root), json.dumps(LAYOUTS)]
    done = subprocess.run(
        command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=480
    )
    assert done.returncode == 0, done.stdout
    return root


def figures(run_dir: Path) -> list[float]:
    """Return all losses, gradient norms, held-out losses and update norms of a run."""
    found = []
    for line in read_metrics(run_dir):
        if line.get("kind") == "heldout":
            found += [source["loss"] for source in line["heldout"].values()]
        elif line.get("kind") == "norms":
            found += [*line["grad_rms"].values(), *line["update_rms"].values()]
        elif "kind" not in line:
            found += [line["loss"], line["grad_norm"]]
    return found


@pytest.mark.parametrize("layout", [layout for layouts in LAYOUTS.values() for layout in layouts if "=" in layout])
def test_every_layout_learns_the_same(runs: Path, layout: str) -> None:
    one, many = figures(runs / "one"), figures(runs / layout)
    assert len(one) == 2 * 10 + 2 * 2 + 2 * 2 * 6
    assert many == pytest.approx(one, rel=2e-5)
    expected, got = (dict(load_model(runs / name)[0].named_parameters()) for name in ("one", layout))
    assert all(torch.allclose(expected[name], got[name], atol=5e-5) for name in expected)


@pytest.mark.parametrize("layout", [layout for layouts in LAYOUTS.values() for layout in layouts if "=" in layout])
def test_an_evaluation_gets_the_whole_weights_on_rank_0(runs: Path, layout: str) -> None:
    for step in (6, 10):
        saved = dict(load_model(runs / layout / "checkpoints" / f"step-{step}")[0].named_parameters())
        whole = load_file(runs / layout / f"whole-{step}.safetensors")
        assert saved.keys() == whole.keys()
        assert all(torch.equal(saved[name], tensor) for name, tensor in whole.items())
    lines = [line for line in read_metrics(runs / layout) if line.get("kind") == "evaluation"]
    assert [line["step"] for line in lines] == [6, 10]
    assert "scores" in lines[1]


@pytest.mark.parametrize("layout", ["bf16", "bf16,kernels"])
def test_in_16_bits_gains_are_not_rounded(runs: Path, layout: str) -> None:
    assert read_json(runs / layout / "gains.json") == ["torch.float32"]


def test_a_checkpoint_after_a_held_out_loss_is_whole(runs: Path) -> None:
    for step in (6, 10):
        tensors = {
            kind: TensorFiles(runs / "bf16" / "checkpoints" / f"step-{step}", kind) for kind in (MODEL, OPTIMIZER)
        }
        names = tensors[MODEL].shapes.keys()
        assert {name.rpartition("/")[0] for name in tensors[OPTIMIZER].shapes} == names
        for name, shape in tensors[MODEL].shapes.items():
            tensors[MODEL].read_into(name, torch.empty(shape, dtype=torch.float32))
    assert figures(runs / "bf16") == pytest.approx(figures(runs / "one"), rel=0.02)


def test_ranks_roll_back_to_the_beginning_together(runs: Path) -> None:
    passed_over = read_json(runs / "poisoned" / GUARD_FILE)["passed_over"]
    assert passed_over == [1, 2, 3, 4]
    lines = [line for line in read_metrics(runs / "poisoned") if "kind" not in line]
    assert [line["step"] for line in lines] == [5, 6, 7, 8, 9, 10]
    start = train(replace(load_recipe(runs / "recipe.toml"), {"guard.window": 0}), runs / "start", stop_after=1)
    assert start.loss is not None
    assert lines[0]["loss"] == pytest.approx(start.loss, abs=0.1)  # untrained
    assert lines[-1]["loss"] < lines[0]["loss"] - 0.05


def test_a_run_of_two_ranks_goes_on_with_one(runs: Path) -> None:
    result = train(load_recipe(runs / "recipe.toml"), runs / "stopped", resume=True)
    assert result.finished
    assert figures(runs / "stopped") == pytest.approx(figures(runs / "one"), rel=2e-5)


def started(run_dir: Path, process: subprocess.Popen[str], steps: int) -> None:
    """Wait until a run has made some steps."""
    deadline = time.monotonic() + 120
    while sum("loss" in line for line in read_metrics(run_dir)) < steps:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def ranks_of(launcher: int) -> list[int]:
    """Return the processes that a torchrun started."""
    found = []
    for pid in map(int, Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()):
        with suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            if b"xmodel2.cli" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
    return found


def test_a_signal_stops_all_ranks_saved_and_a_killed_rank_restarts_them_or_ends_the_run(
    small_recipe: Recipe, tmp_path: Path
) -> None:
    recipe = recipe_of(small_recipe, **{"train.checkpoint_every": 5, "stages.stable.tokens": 4000 * 256})
    write_text_atomic(tmp_path / "recipe.toml", recipe_to_toml(recipe))
    run = tmp_path / "run"
    command = ["-m", "xmodel2.cli", "train", str(tmp_path / "recipe.toml"), "--out", str(run), "--resume"]
    process = torchrun(2, *command)
    started(run, process, 6)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    saved = checkpoint_steps(run)[-1]
    assert f"stopped at step {saved}, saved" in output

    process = torchrun(2, "--max-restarts=1", *command)
    started(run, process, saved + 7)
    first = ranks_of(process.pid)
    os.kill(first[1], signal.SIGKILL)
    while not set(ranks_of(process.pid)).isdisjoint(first) or len(ranks_of(process.pid)) < 2:
        time.sleep(0.02)
    lines = len(read_metrics(run))
    started(run, process, lines + 7)  # started again, it goes on
    os.kill(ranks_of(process.pid)[1], signal.SIGKILL)
    output, _ = process.communicate(timeout=90)
    assert process.returncode != 0
    assert output.count("going on from step") == 2
    assert "xmodel2: rank 0: another rank has ended, or cannot be reached" in output
    assert "go on with --resume, which torchrun --max-restarts does by itself. PyTorch said: " in output
    assert "Traceback" not in output.partition("another rank has ended")[0].rpartition("going on from step")[2]
    last = checkpoint_steps(run)[-1]
    assert load_model(run)[2]["step"] == last > saved
    assert train(recipe, run, resume=True, stop_after=last + 2).step == last + 2


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"WORLD_SIZE": "2", "RANK": "0"}, "but not MASTER_ADDR, MASTER_PORT; start with torchrun"),
        ({"WORLD_SIZE": "abc"}, "WORLD_SIZE=abc in the environment: a number of processes"),
    ],
)
def test_half_of_what_torchrun_sets_is_named(
    small_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], message: str
) -> None:
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(XmodelError, match=message):
        train(recipe_of(small_recipe), tmp_path / "run")


@pytest.mark.parametrize(
    ("ranks", "changed", "message"),
    [
        (3, {}, "a batch of 8 rows .* can't be shared by 3 data-parallel ranks .*; use another number of processes"),
        (
            4,
            {"train.micro_batch_size": 4},
            "set train.micro_batch_size = 2, or make train.batch_tokens a multiple of 512",
        ),
        (4, {"parallel.tensor_parallel": 4}, "2 key/value heads and feed-forward of 96 can be cut into 1, 2 parts"),
        (4, {"parallel.data_parallel_replicate": 3}, "is 3, but there are 4 processes"),
        (1, {"parallel.tensor_parallel": 2}, "start with torchrun --nproc-per-node 2"),
        (2, {"parallel.context_parallel": 2, "data.sequence_length": 2}, "must be a multiple of 4"),
    ],
)
def test_a_layout_that_does_not_fit(small_recipe: Recipe, ranks: int, changed: dict[str, Any], message: str) -> None:
    recipe = replace(recipe_of(small_recipe), changed)
    with pytest.raises(XmodelError, match=message):
        mesh_shape(recipe, ranks)
