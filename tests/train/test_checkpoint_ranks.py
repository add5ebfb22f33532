"""Checkpoints of several ranks: cut in any layout, read in any other, and whole or absent when a rank fails or dies."""

import json
import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from safetensors.torch import load_file, save_file
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from xmodel2.errors import XmodelError
from xmodel2.model import Xmodel2, tensor_program
from xmodel2.recipe import Recipe, recipe_from_dict
from xmodel2.train import checkpoint_writer as writing
from xmodel2.train import load_model
from xmodel2.train.agreement import on_rank_0, together
from xmodel2.train.checkpoint import checkpoint_steps, load_training_state, newest_valid
from xmodel2.train.checkpoint_writer import CheckpointWriter
from xmodel2.train.optimizer import build_optimizer

# Rows that do not all divide by what they are cut into, so that shards are uneven.
MODEL = {
    "hidden_size": 32,
    "intermediate_size": 36,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 61,
}
LAYOUTS = {4: ["sharded", "hybrid", "tensor and sharded", "replicated"], 2: ["sharded", "tensor", "replicated"]}


def recipe_of(optimizer: str = "adamw") -> Recipe:
    return recipe_from_dict(
        {
            "model": MODEL,
            "data": {"sequence_length": 16},
            "stages": {"stable": {"tokens": 12 * 64}, "decay": {"tokens": 0}},
            "train": {"batch_tokens": 64, "warmup_steps": 1, "keep_checkpoints": 9, "optimizer": optimizer},
        }
    )


def build(recipe: Recipe, layout: str) -> tuple[Xmodel2, torch.optim.Optimizer]:
    """Return a model laid out over the ranks, and its optimizer."""
    model = Xmodel2(recipe.model)
    tensor_program.initialise(model, 1)
    ranks = dist.get_world_size() if dist.is_initialized() else 1
    tensor = {"tensor": 2, "tensor and sharded": 2}.get(layout, 1)
    if layout not in ("whole", "replicated"):
        replicas = 2 if layout == "hybrid" else 1
        mesh = init_device_mesh(
            "cpu", (replicas, ranks // replicas // tensor, tensor), mesh_dim_names=("replicate", "shard", "tensor")
        )
        for block in model.layers if tensor > 1 else []:
            plan = {"qkv_proj": ColwiseParallel(), "o_proj": RowwiseParallel()}
            parallelize_module(block.self_attn, mesh["tensor"], plan)
            parallelize_module(block.mlp, mesh["tensor"], {"gate_up_proj": ColwiseParallel()})
        data = mesh["replicate", "shard"] if replicas > 1 else mesh["shard"]
        for block in model.layers:
            fully_shard(block, mesh=data)
        fully_shard(model, mesh=data)
    return model, build_optimizer(model.named_parameters(), recipe.model, recipe.train)


def update(model: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
    """Make one update from gradients that depend on the seed alone; the last norm has none, so it stays without state."""
    random = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        grad = torch.randn(parameter.shape, generator=random)
        if name != "norm.weight":
            laid = isinstance(parameter, DTensor)
            parameter.grad = (
                distribute_tensor(grad, parameter.device_mesh, parameter.placements, src_data_rank=None)
                if laid
                else grad
            )
    optimizer.step()


def whole(tensor: torch.Tensor) -> torch.Tensor:
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach().clone()


def everything(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Return weights and state by name, gathered."""
    found = {name: whole(parameter) for name, parameter in model.named_parameters()}
    for name, parameter in model.named_parameters():
        found |= {f"{name}/{key}": whole(value) for key, value in optimizer.state.get(parameter, {}).items()}
    return found


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def start(work: Callable[..., None], ranks: int, *args: object) -> list[int | None]:
    """Call work(rank, ranks, ...) in processes of their own; return their exit codes."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch.distributed.checkpoint", "torch.distributed.fsdp"])
    processes = [context.Process(target=work, args=(rank, ranks, *args)) for rank in range(ranks)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(240)  # other tests run beside them
    return [process.exitcode for process in processes]


def join_ranks(rank: int, ranks: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store-{ranks}", rank=rank, world_size=ranks)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs NAME-RANKS-LAYOUT, each with what 1, 2 and 4 ranks saved, and what they had."""
    folder = tmp_path_factory.mktemp("saved")
    for optimizer in ("adamw", "muon"):
        save_one(folder / f"{optimizer}-1-whole", recipe_of(optimizer), "whole")
    assert start(save_on_ranks, 4, folder) == [0] * 4
    assert start(save_on_ranks, 2, folder) == [0] * 2
    return folder


def save_one(run_dir: Path, recipe: Recipe, layout: str) -> None:
    model, optimizer = build(recipe, layout)
    writer = CheckpointWriter(run_dir, recipe, model, optimizer)
    writer.save(0, {"tokens": 0})
    for step in (1, 2):
        update(model, optimizer, step)
        writer.save(step, {"tokens": step * 64})
    wanted = everything(model, optimizer)
    update(model, optimizer, 3)  # while the save goes on
    writer.close()
    on_rank_0(lambda: save_file(wanted, run_dir / "wanted.safetensors"))


def save_on_ranks(rank: int, ranks: int, folder: Path) -> None:
    join_ranks(rank, ranks, folder)
    for layout in LAYOUTS[ranks]:
        save_one(folder / f"adamw-{ranks}-{layout}", recipe_of(), layout)
    save_one(folder / f"muon-{ranks}-sharded", recipe_of("muon"), "sharded")
    dist.destroy_process_group()


def check_all(folder: Path, layouts: list[str]) -> None:
    """Load every run into every layout and compare with what was saved."""
    for run_dir in sorted(folder.glob("*-*-*")):
        recipe = recipe_of(run_dir.name.split("-")[0])
        wanted = load_file(run_dir / "wanted.safetensors")
        for layout in layouts:
            model, optimizer = build(recipe, layout)
            update(model, optimizer, 9)
            state = load_training_state(run_dir / "checkpoints" / "step-2", recipe, model, optimizer)
            assert state == {"step": 2, "tokens": 128}
            found = everything(model, optimizer)
            wrong = [name for name in wanted if not torch.equal(found[name], wanted[name])]
            assert not wrong, (run_dir.name, layout, wrong)
            load_training_state(run_dir / "checkpoints" / "step-0", recipe, model, optimizer)
            assert not any(optimizer.state.values()), run_dir.name  # before the first update there are no moments
            update(model, optimizer, 3)


def check_on_ranks(rank: int, ranks: int, folder: Path) -> None:
    join_ranks(rank, ranks, folder)
    check_all(folder, LAYOUTS[ranks])
    dist.destroy_process_group()


def test_one_rank_reads_what_any_number_wrote(saved: Path) -> None:
    check_all(saved, ["whole"])
    model = load_model(saved / "adamw-4-tensor and sharded")[0]
    wanted = load_file(saved / "adamw-4-tensor and sharded" / "wanted.safetensors")
    assert all(torch.equal(parameter, wanted[name]) for name, parameter in model.named_parameters())


@pytest.mark.parametrize("ranks", [2, 4])
def test_several_ranks_read_what_any_number_wrote(saved: Path, ranks: int, tmp_path: Path) -> None:
    for run_dir in saved.glob("*-*-*"):
        (tmp_path / run_dir.name).symlink_to(run_dir)
    assert start(check_on_ranks, ranks, tmp_path) == [0] * ranks


def test_each_part_is_written_once(saved: Path) -> None:
    single = json.loads((saved / "adamw-1-whole/checkpoints/step-2/manifest.json").read_text())["files"]
    assert set(single) == {"model.safetensors", "optimizer.safetensors", "state.json", "recipe.toml"}
    for layout in LAYOUTS[4]:
        files = json.loads((saved / f"adamw-4-{layout}/checkpoints/step-2/manifest.json").read_text())["files"]
        written = [
            load_file(saved / f"adamw-4-{layout}/checkpoints/step-2" / n) for n in files if n.startswith("model")
        ]
        elements = sum(tensor.numel() for tensors in written for tensor in tensors.values())
        assert elements == sum(parameter.numel() for parameter in Xmodel2(recipe_of().model).parameters())


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_pytorchs_own_reader_takes_it(saved: Path) -> None:
    run_dir = saved / "adamw-4-hybrid"
    wanted = load_file(run_dir / "wanted.safetensors")
    found = {name: torch.zeros_like(tensor) for name, tensor in wanted.items()}
    dcp.load(found, storage_reader=dcp.HuggingFaceStorageReader(str(run_dir / "checkpoints" / "step-2")), no_dist=True)
    assert same(found, wanted)


def test_a_missing_shard_falls_back(saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_dir = tmp_path / "run"
    for step in (1, 2):
        folder = run_dir / "checkpoints" / f"step-{step}"
        folder.mkdir(parents=True)
        for file in (saved / "adamw-4-sharded" / "checkpoints" / f"step-{step}").iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
    missing = run_dir / "checkpoints/step-2/model-00003-of-00004.safetensors"
    missing.unlink()
    checkpoint, complaints = newest_valid(run_dir)
    assert checkpoint == run_dir / "checkpoints" / "step-1"
    assert str(missing) in complaints[0]
    assert load_model(run_dir)[2]["step"] == 1
    assert str(missing) in capsys.readouterr().err
    manifest = json.loads((missing.parent / "manifest.json").read_text())
    del manifest["files"][missing.name]
    (missing.parent / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(XmodelError, match=r"pieces of .* are missing|another architecture"):
        load_model(run_dir / "checkpoints" / "step-2")


def test_a_rank_that_fails_or_dies(tmp_path: Path) -> None:
    assert start(fail_on_rank_1, 2, tmp_path) == [0, 7]
    assert (tmp_path / "rank 0 went on").exists()


def fail_on_rank_1(rank: int, ranks: int, folder: Path) -> None:
    join_ranks(rank, ranks, folder)
    with pytest.raises(XmodelError, match="no such mixture"):
        on_rank_0(lambda: (_ for _ in ()).throw(XmodelError("no such mixture")))
    assert together(lambda: rank * 10) == [0, 10]
    recipe = recipe_of()
    model, optimizer = build(recipe, "sharded")
    writer = CheckpointWriter(folder, recipe, model, optimizer)
    update(model, optimizer, 1)
    writer.save(1, {})
    writer.wait()
    write, writing.write_tensors = writing.write_tensors, fail_if(rank == 1, OSError("No space left on device"))
    writer.save(2, {})
    with pytest.raises(XmodelError, match=r"rank 1.*No space left.*previous one is untouched"):
        writer.wait()
    assert rank or [p.name for p in (folder / "checkpoints").iterdir()] == ["step-1"]
    writing.write_tensors = write
    writer.save(3, {})
    writer.wait()
    writing.write_tensors = fail_if(rank == 1, None)
    writer.save(4, {})
    with pytest.raises(XmodelError, match="previous one is untouched"):
        writer.wait()
    assert checkpoint_steps(folder) == [1, 3]
    (folder / "rank 0 went on").touch()
    os._exit(0)


def fail_if(failing: bool, error: Exception | None) -> Callable[..., dict[str, object]]:
    def write(path: Path, pieces: object) -> dict[str, object]:
        if failing and error is not None:
            raise error
        if failing:
            os._exit(7)
        path.write_bytes(b"")
        return {"bytes": 0, "sha256": ""}

    return write
