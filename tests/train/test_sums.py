"""Sums over ranks: the same for plain tensors and however they are cut."""

import multiprocessing
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Partial, Placement, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, parallelize_module

from xmodel2.train.sums import clip_, global_square_sum, global_square_sums


def tensors() -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=random) for shape in ((5, 3), (8, 4), (7,), (1, 6))]


def with_gradients(values: list[torch.Tensor]) -> list[nn.Parameter]:
    parameters = [nn.Parameter(torch.zeros_like(value)) for value in values]
    for parameter, value in zip(parameters, values, strict=True):
        parameter.grad = value.clone()
    return parameters


def test_norm_and_clipping_are_those_of_pytorch() -> None:
    ours, theirs = with_gradients(tensors()), with_gradients(tensors())
    norm = global_square_sum([p.grad for p in ours if p.grad is not None]).sqrt()
    assert float(norm) == pytest.approx(float(nn.utils.clip_grad_norm_(theirs, 0.5)), rel=1e-6)
    clip_(ours, norm, 0.5)
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a.grad, b.grad, rtol=1e-6)
    clip_(ours, norm, 1e9)
    assert all(torch.allclose(a.grad, b.grad, rtol=1e-6) for a, b in zip(ours, theirs, strict=True))


def test_groups_large_values_and_what_is_not_finite() -> None:
    large = [torch.tensor([1e19])] * 100
    sums = global_square_sums([large, [torch.tensor([3.0]), torch.tensor([4.0])]])
    assert sums.tolist() == pytest.approx([1e40, 25.0])
    assert global_square_sum([torch.tensor([1.0, 2.0], dtype=torch.bfloat16)]) == pytest.approx(5.0)
    assert not torch.isfinite(global_square_sum([torch.ones(2), torch.tensor([float("nan")])]))


def test_the_same_sum_and_clipped_gradients_on_one_two_and_four_ranks(tmp_path: Path) -> None:
    wanted = float(global_square_sum(tensors()))
    multiprocessing.set_forkserver_preload(["torch.distributed.tensor.parallel", "torch.distributed.fsdp"])
    mp.start_processes(_on_ranks, (4, tmp_path, wanted), nprocs=4, start_method="forkserver")
    assert len({(tmp_path / f"{rank}").read_text() for rank in range(4)}) == 1


def _on_ranks(rank: int, world: int, folder: Path, wanted: float) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
    torch.set_num_threads(1)
    found = []
    layouts: list[tuple[tuple[int, ...], list[Placement]]] = [
        ((4,), [Shard(0)]),  # uneven, and none at all for some ranks
        ((2, 2), [Replicate(), Shard(0)]),
        ((2, 2), [Shard(0), Replicate()]),
        ((2, 2), [Replicate(), Replicate()]),
    ]
    for shape, placements in layouts:
        mesh = init_device_mesh("cpu", shape)
        cut: list[torch.Tensor] = [distribute_tensor(tensor, mesh, placements) for tensor in tensors()]
        cut[2] = tensors()[2]  # held whole beside those that are cut
        part = tensors()[3] / mesh.size()
        cut[3] = DTensor.from_local(part, mesh, [Partial()] * mesh.ndim, run_check=False)
        total = global_square_sum(cut)
        assert float(total) == pytest.approx(wanted, rel=1e-6)
        found.append(float(total))
        weights: list[nn.Parameter] = []
        for value in cut[:3]:
            weights.append(nn.Parameter(torch.zeros_like(value)))
            weights[-1].grad = value.clone()
        clip_(weights, total.sqrt(), 0.5)
        whole = [w.grad.full_tensor() if isinstance(w.grad, DTensor) else w.grad for w in weights]
        for clipped, value in zip(whole, tensors(), strict=False):
            assert torch.allclose(clipped, value * (0.5 / wanted**0.5), rtol=1e-5)
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("shard", "tensor"))
    linear = nn.Linear(4, 8, bias=False)
    linear.weight = nn.Parameter(tensors()[1].clone())
    parallelize_module(linear, mesh["tensor"], ColwiseParallel())
    fully_shard(linear, mesh=mesh["shard"])
    assert len(linear.weight.placements) == 2
    assert float(global_square_sum([linear.weight])) == pytest.approx(float(tensors()[1].square().sum()), rel=1e-6)
    (folder / str(rank)).write_text(repr(found))
    dist.destroy_process_group()
