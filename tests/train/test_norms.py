"""Norms by layer class: those of the tensors themselves, and the same when they are cut."""

import json
import multiprocessing
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from xmodel2.model import Xmodel2, tensor_program
from xmodel2.recipe import recipe_from_dict
from xmodel2.train.norms import LayerNorms, norms_record

SIZE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
RECIPE = recipe_from_dict({"model": {**SIZE, "num_key_value_heads": 1, "vocab_size": 61, "dim_model_base": 32}})


def model() -> Xmodel2:
    made = Xmodel2(RECIPE.model)
    tensor_program.initialise(made, 3)
    return made


def one_step(made: Xmodel2) -> dict[str, dict[str, float]]:
    """Return the norms of a step of SGD on fixed tokens."""
    optimizer = torch.optim.SGD(made.parameters(), lr=0.5)
    tokens = torch.arange(40).view(2, 20)
    made(tokens).float().square().mean().backward()
    recorder = LayerNorms(made)
    recorder.before_step()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return recorder.after_step()


def test_norms_are_those_of_the_tensors() -> None:
    made, before = model(), model()
    norms = one_step(made)
    classes = {"embedding", "attention.qkv", "attention.o", "feed_forward.gate_up", "feed_forward.down", "norm"}
    assert all(set(values) == classes for values in norms.values())
    down = torch.cat([block.mlp.down_proj.weight.detach().flatten() for block in before.layers])
    after = torch.cat([block.mlp.down_proj.weight.detach().flatten() for block in made.layers])
    rms = {name: values["feed_forward.down"] for name, values in norms.items()}
    assert rms["weight_rms"] == pytest.approx(float(down.square().mean().sqrt()), rel=1e-5)
    assert rms["update_rms"] == pytest.approx(float((after - down).square().mean().sqrt()), rel=1e-5)
    assert rms["grad_rms"] == pytest.approx(rms["update_rms"] / 0.5, rel=1e-4)
    assert rms["update_ratio"] == pytest.approx(rms["update_rms"] / rms["weight_rms"])
    assert norms["weight_rms"]["norm"] == pytest.approx(1.0)
    assert json.loads(json.dumps(norms_record(7, norms)))["kind"] == "norms"


def test_a_model_cut_by_fsdp_has_the_same_norms(tmp_path: Path) -> None:
    multiprocessing.set_forkserver_preload(["torch.distributed.tensor", "torch.distributed.fsdp", "xmodel2.train"])
    mp.start_processes(_cut, (4, tmp_path, one_step(model())), nprocs=4, start_method="forkserver")


def _cut(rank: int, world: int, folder: Path, whole: dict[str, dict[str, float]]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicate", "shard"))
    made = model()
    for block in made.layers:
        fully_shard(block, mesh=mesh)
    fully_shard(made, mesh=mesh)
    norms = one_step(made)
    for kind, by_class in whole.items():
        assert norms[kind] == pytest.approx(by_class, rel=1e-4), kind
    dist.destroy_process_group()
