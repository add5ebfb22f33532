"""The model laid over a mesh from outside: tensor parallel, compiled, then sharded (FSDP2), and its weights drawn in place.

qkv_proj, gate_up_proj    rows, whole groups of heads a rank        embed_tokens, lm_head   rows, their pieces a rank
o_proj, down_proj         columns; their outputs are summed        norms                   whole on every rank, fp32
"""

import warnings

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Replicate
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from xmodel2.model import Xmodel2, tensor_program
from xmodel2.train.world import World


def cut_tensors(model: Xmodel2, world: World) -> None:
    """Apply tensor parallelism, if the mesh has any."""
    if world.mesh is None or world.axis("tensor")[1] == 1:
        return
    mesh = world.mesh["tensor"]
    plan = {
        "self_attn.qkv_proj": ColwiseParallel(),
        "self_attn.o_proj": RowwiseParallel(),
        "mlp.gate_up_proj": ColwiseParallel(),
        "mlp.down_proj": RowwiseParallel(),
    }
    for block in model.layers:
        parallelize_module(block, mesh, plan)
    parallelize_module(model, mesh, {"embed_tokens": RowwiseParallel(input_layouts=Replicate())})
    if not model.settings.tie_word_embeddings:
        parallelize_module(model, mesh, {"lm_head": ColwiseParallel()})


def shard(root: nn.Module, blocks: nn.ModuleList, world: World, dtype: torch.dtype) -> None:
    """Shard weights, gradients and moments over the ranks that read different tokens; products are made in ``dtype``."""
    mesh = world.mesh
    if mesh is None or world.size == world.axis("tensor")[1]:
        return
    name, over = "shard", mesh["shard"]
    if world.axis("context")[1] > 1:
        name = "shard_context"
        over = mesh["shard", "context"]._flatten(name)
    if world.axis("replicate")[1] > 1:
        with warnings.catch_warnings():  # that a flattened axis will not be found by its name some day
            warnings.filterwarnings("ignore", message="Slicing a flattened dim")
            over = mesh["replicate", name]
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for block in blocks:  # gains, near 1, stay whole and fp32: 16 bits know 1 and 1.008 and nothing between
        fully_shard(block, mesh=over, mp_policy=policy, ignored_params=set(_gains(block)))
    # Embedding, head and last norm stay fp32, as in one process: the first is scaled up before it is cast, the last is near 1.
    policy = MixedPrecisionPolicy(reduce_dtype=torch.float32, cast_forward_inputs=False)
    fully_shard(root, mesh=over, mp_policy=policy)
    for module in root.modules():
        if isinstance(module, FSDPModule):  # losses are sums: gradients add up
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)


def sync_gradients(root: nn.Module, on: bool) -> None:
    """Say whether the next backward pass is a step's last: only then do gradients go over the ranks."""
    if isinstance(root, FSDPModule):
        root.set_requires_gradient_sync(on)


def _gains(block: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in block.parameters() if parameter.dim() == 1]


@torch.no_grad()
def sum_gains(model: Xmodel2, world: World) -> None:
    """Add up the gradients of the blocks' gains over the ranks that read different tokens, in one all-reduce."""
    if world.mesh is None or world.size == world.axis("tensor")[1]:
        return
    gradients = [gain.grad for block in model.layers for gain in _gains(block) if gain.grad is not None]
    flat = torch.cat(gradients)
    dist.all_reduce(flat)
    flat /= world.axis("tensor")[1]  # those of a tensor-parallel group are the same
    torch._foreach_copy_(gradients, list(flat.split([gradient.numel() for gradient in gradients])))


def reshard(root: nn.Module) -> None:
    """Give back the weights that a forward pass without a backward pass left gathered."""
    if isinstance(root, FSDPModule):
        root.reshard()


def draw_weights(model: Xmodel2, device: torch.device, seed: int) -> None:
    """Allocate a model that was built on the meta device, and draw each rank's part of the same weights."""
    model.to_empty(device=device)
    tensor_program.initialise(model, seed, write)


@torch.no_grad()
def write(parameter: torch.Tensor, whole: torch.Tensor) -> None:
    """Fill a parameter, or this rank's part of it, from the whole tensor."""
    if not isinstance(parameter, DTensor):
        parameter.copy_(whole)
        return
    part = whole
    places = parameter.device_mesh.get_coordinate()
    assert places is not None
    # From the last axis on: tensor parallelism cuts first, then FSDP what each rank has.
    for axis in reversed(range(parameter.device_mesh.ndim)):
        placement = parameter.placements[axis]
        if not placement.is_replicate():
            pieces = part.chunk(parameter.device_mesh.size(axis), placement.dim)  # type: ignore[attr-defined]
            place = places[axis]
            part = pieces[place] if place < len(pieces) else part.narrow(placement.dim, 0, 0)  # type: ignore[attr-defined]
    parameter.to_local().copy_(part)
