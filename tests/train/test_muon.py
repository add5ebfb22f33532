"""Muon: what is orthogonalised, how far it moves, that it resumes exactly, and that sharding changes nothing."""

import copy
import math
import multiprocessing
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from xmodel2.model import Xmodel2, fused_layout, tensor_program
from xmodel2.recipe import ModelSettings, TrainSettings
from xmodel2.train.muon import orthogonalise
from xmodel2.train.optimizer import build_optimizer

SETTINGS = ModelSettings(
    hidden_size=48,
    intermediate_size=80,
    num_hidden_layers=2,
    num_attention_heads=6,
    num_key_value_heads=2,
    vocab_size=40,
    dim_model_base=24,
)
TRAIN = TrainSettings(optimizer="muon", weight_decay=0.1)

Place = Callable[[nn.Parameter], nn.Parameter]


def built(place: Place = lambda p: p) -> tuple[dict[str, nn.Parameter], torch.optim.Optimizer]:
    """Return parameters by name, each put where ``place`` says, and their optimizer."""
    model = Xmodel2(SETTINGS)
    tensor_program.initialise(model, 0)
    named = {name: place(parameter) for name, parameter in model.named_parameters()}
    return named, build_optimizer(named.items(), SETTINGS, TRAIN)


def steps(named: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer, numbers: range) -> None:
    """Make steps with gradients that depend on the step's number and the tensor's place alone."""
    for number in numbers:
        generator = torch.Generator().manual_seed(number)
        for parameter in named.values():
            grad = torch.randn(parameter.shape, generator=generator)
            if isinstance(parameter, DTensor):
                parameter.grad = distribute_tensor(grad, parameter.device_mesh, parameter.placements)
            else:
                parameter.grad = grad
        optimizer.step()
        optimizer.zero_grad()


def assert_near_one(values: torch.Tensor) -> None:
    """The least value of a random square matrix is too small for five iterations, so the median is looked at."""
    assert 0.65 < float(values.median()) < float(values.max()) < 1.25


def test_singular_values_come_near_one() -> None:
    wide = torch.randn(2, 16, 48, generator=torch.Generator().manual_seed(0))
    assert_near_one(torch.linalg.svdvals(orthogonalise(wide)))
    u, _, v = torch.linalg.svd(wide[0], full_matrices=False)
    cosine = torch.cosine_similarity(orthogonalise(wide)[0].flatten(), (u @ v).flatten(), dim=0)
    assert float(cosine) > 0.98
    assert torch.equal(orthogonalise(torch.zeros(1, 4, 8)), torch.zeros(1, 4, 8))


def test_every_matrix_of_a_fused_tensor_moves_by_the_spectral_condition() -> None:
    named, optimizer = built()
    before = {name: parameter.detach().clone() for name, parameter in named.items()}
    steps(named, optimizer, range(1))
    rate, decay, checked = TRAIN.muon_learning_rate, TRAIN.weight_decay, 0
    for name, parameter in named.items():
        if not name.endswith("_proj.weight"):
            continue
        change = parameter.detach() - before[name] * (1 - rate * decay)
        for view in fused_layout.matrices(name, change, SETTINGS):
            matrix = view.flatten(0, 1)
            scale = rate * math.sqrt(matrix.shape[0] / matrix.shape[1])
            assert_near_one(torch.linalg.svdvals(matrix) / scale)
            checked += 1
    assert checked == 2 * (3 + 1 + 2 + 1)


def test_one_matrix_agrees_with_torch_in_bf16_rounding() -> None:
    weight = nn.Parameter(torch.randn(48, 80, generator=torch.Generator().manual_seed(1)))
    theirs = nn.Parameter(weight.detach().clone())
    named = {"layers.0.mlp.down_proj.weight": weight, "norm.weight": nn.Parameter(torch.ones(48))}
    ours = build_optimizer(named.items(), SETTINGS, TRAIN)
    rate = TRAIN.muon_learning_rate
    peer = torch.optim.Muon([theirs], lr=rate, weight_decay=0.1, momentum=TRAIN.muon_momentum)
    before = weight.detach() * (1 - rate * 0.1)
    for number in range(3):
        steps({"w": weight}, ours, range(number, number + 1))
        steps({"w": theirs}, peer, range(number, number + 1))
        if number == 0:
            moved, expected = weight.detach() - before, (theirs.detach() - before) * math.sqrt(48 / 80)
            assert float((moved - expected).norm() / expected.norm()) < 0.02
    assert torch.allclose(ours.state[weight]["momentum_buffer"], peer.state[theirs]["momentum_buffer"])


def test_resume_is_exact_and_state_is_tensors() -> None:
    whole, optimizer = built()
    steps(whole, optimizer, range(5))
    first, optimizer = built()
    steps(first, optimizer, range(2))
    second, resumed = built()
    for name, parameter in second.items():
        parameter.data.copy_(first[name].data)
        state = optimizer.state[first[name]]
        assert all(isinstance(value, torch.Tensor) for value in state.values())
        assert set(state) == (
            {"momentum_buffer"} if name.endswith("_proj.weight") else {"step", "exp_avg", "exp_avg_sq"}
        )
        resumed.state[parameter] = {key: value.clone() for key, value in state.items()}
    steps(second, resumed, range(2, 5))
    assert all(torch.equal(whole[name], second[name]) for name in whole)


def test_a_loaded_state_dict_goes_on_exactly() -> None:
    whole, optimizer = built()
    steps(whole, optimizer, range(2))
    again, loaded = built()
    for name, parameter in again.items():
        parameter.data.copy_(whole[name].data)
    loaded.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    steps(whole, optimizer, range(2, 4))
    steps(again, loaded, range(2, 4))
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_a_parameter_without_gradient_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xmodel2.train.muon.CHUNK_ELEMENTS", 5000)
    named, optimizer = built()
    before = {name: parameter.detach().clone() for name, parameter in named.items()}
    loss = named["layers.0.mlp.down_proj.weight"].sum() + named["layers.1.mlp.down_proj.weight"].sum()
    loss.backward()
    optimizer.step()
    changed = {name for name in named if not torch.equal(named[name], before[name])}
    assert changed == {"layers.0.mlp.down_proj.weight", "layers.1.mlp.down_proj.weight"}


def test_two_ranks_with_shards_do_as_one(tmp_path: Path) -> None:
    multiprocessing.set_forkserver_preload(["torch.distributed.tensor", "xmodel2.train.optimizer"])
    mp.start_processes(_on_ranks, (2, tmp_path), nprocs=2, start_method="forkserver")
    assert len(list(tmp_path.glob("done-*"))) == 2


def _on_ranks(rank: int, world: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
    torch.set_num_threads(1)
    mesh = init_device_mesh("cpu", (world,))

    def place(parameter: nn.Parameter) -> nn.Parameter:
        dim = 1 if parameter.shape == (SETTINGS.hidden_size, SETTINGS.intermediate_size) else 0
        return nn.Parameter(distribute_tensor(parameter.detach(), mesh, [Shard(dim)]))

    (whole, single), (sharded, optimizer) = built(), built(place)
    steps(whole, single, range(3))
    steps(sharded, optimizer, range(3))
    for name, parameter in sharded.items():
        assert isinstance(parameter, DTensor)
        assert torch.allclose(parameter.full_tensor(), whole[name], rtol=0, atol=1e-6), name
        state = {**optimizer.state[parameter]}
        state.pop("step", None)
        assert all(isinstance(value, DTensor) for value in state.values()), name
    (folder / f"done-{rank}").touch()
    dist.destroy_process_group()
