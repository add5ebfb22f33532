"""The ranks of a run, laid out in a mesh: one process alone, or the processes that `torchrun` started.

    replicate x shard x context x tensor, the last one fastest: ranks of a node share rows before they share steps

Ranks that differ in replicate or shard read other rows of a batch; in context, other positions of the same rows; in tensor,
other heads and pieces of the same positions. Everything else is the same code for one rank and for many.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from xmodel2.errors import XmodelError
from xmodel2.model import fused_layout
from xmodel2.recipe import Recipe
from xmodel2.train.rendezvous import store_of_this_attempt


def rank_of_process() -> int:
    """Return the number that `torchrun` gave this process; 0 without it."""
    return int(os.environ.get("RANK", "0"))


_GONE = ("connect", "remote process", "timed out", "timeout", "broken pipe", "no route", "unreachable", "aborted")
"""Words of an error of gloo or NCCL about a rank that is gone."""
AXES = ("replicate", "shard", "context", "tensor")


@dataclass(frozen=True)
class World:
    """The place of this process among all."""

    rank: int = 0
    size: int = 1
    mesh: DeviceMesh | None = None

    @property
    def is_main(self) -> bool:
        """Whether this rank writes what is written once."""
        return self.rank == 0

    def axis(self, name: str) -> tuple[int, int]:
        """Return this rank's place along an axis of the mesh, and the axis's size."""
        if self.mesh is None:
            return 0, 1
        return self.mesh.get_local_rank(name), self.mesh.size(AXES.index(name))

    @property
    def data(self) -> tuple[int, int]:
        """This rank's place among those that read different rows, and their number."""
        (replica, replicas), (shard, shards) = self.axis("replicate"), self.axis("shard")
        return replica * shards + shard, replicas * shards

    def part(self, batch_rows: int) -> slice:
        """Return which rows of a batch this rank reads."""
        place, places = self.data
        each = batch_rows // places
        return slice(place * each, (place + 1) * each)

    def sum(self, values: Sequence[float]) -> list[float]:
        """Return the sums over all ranks, through host memory: no device waits."""
        if self.size == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(total)
        return total.tolist()

    def store(self) -> Any:
        """Return the key-value store that all ranks see; None for one process."""
        return dist.distributed_c10d._get_default_store() if self.size > 1 else None


@contextmanager
def open_world(recipe: Recipe, device: torch.device) -> Iterator[World]:
    """Join the ranks that `torchrun` started, if it did. Raises `XmodelError` if the recipe can't be cut into so many."""
    size = _world_size(device)
    shape = mesh_shape(recipe, size)
    if size == 1:
        yield World()
        return
    if device.type == "cuda":
        local, gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if local >= gpus:
            raise XmodelError(
                f"more processes than GPUs: this machine has {gpus}; start torchrun --nproc-per-node {gpus}"
            )
        torch.cuda.set_device(local)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    if mine := not dist.is_initialized():
        # Long: in the loop the watchdog looks, which can say who hangs; before it, rank 0 may read all data.
        timeout = timedelta(days=2)
        store = store_of_this_attempt(timeout)
        rank, count = (-1, -1) if store is None else (rank_of_process(), size)
        dist.init_process_group(backend, timeout=timeout, store=store, rank=rank, world_size=count)
    try:
        yield World(dist.get_rank(), size, init_device_mesh(device.type, shape, mesh_dim_names=AXES))
    except RuntimeError as error:
        if not is_lost_rank(error):
            raise
        said = str(error).strip().partition("\n")[0]
        raise XmodelError(
            f"rank {dist.get_rank()}: another rank has ended, or cannot be reached: what torchrun says below names it, and one"
            " that the system killed often had too little memory (`xmodel2 plan`). Checkpoints are whole; go on with --resume,"
            f" which torchrun --max-restarts does by itself. PyTorch said: {said}"
        ) from error
    if mine:  # not after an error: others may be in a collective, and taking the group down would wait for them
        dist.destroy_process_group()


def is_lost_rank(error: BaseException) -> bool:
    """Tell whether an error says that another rank is gone.

    >>> is_lost_rank(RuntimeError("[gloo/transport/tcp/pair.cc:537] Read error: Connection reset by peer"))
    True
    >>> is_lost_rank(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    False
    """
    if isinstance(error, dist.DistNetworkError | dist.DistStoreError):
        return True
    text = str(error).lower()
    named = isinstance(error, dist.DistBackendError) or (isinstance(error, RuntimeError) and "gloo" in text)
    return named and any(words in text for words in _GONE)


def _world_size(device: torch.device) -> int:
    """Return how many processes were started together. Raises `XmodelError` if what says so is not all there."""
    text = os.environ.get("WORLD_SIZE", "1")
    if not (text.isdecimal() and int(text)):
        raise XmodelError(
            f"WORLD_SIZE={text} in the environment: a number of processes; start with torchrun, or unset it"
        )
    wanted = ["RANK", "MASTER_ADDR", "MASTER_PORT", *(["LOCAL_RANK"] if device.type == "cuda" else [])]
    missing = [name for name in wanted if not os.environ.get(name)]
    if int(text) > 1 and missing and not dist.is_initialized():
        raise XmodelError(
            f"WORLD_SIZE={text} is in the environment, but not {', '.join(missing)}; start with torchrun, which sets them, or"
            " unset WORLD_SIZE for one process"
        )
    return int(text)


def mesh_shape(recipe: Recipe, size: int) -> tuple[int, int, int, int]:
    """Return the mesh of ``size`` ranks. Raises `XmodelError` naming the key that does not fit."""
    layout, model = recipe.parallel, recipe.model
    rest = layout.data_parallel_replicate * layout.context_parallel * layout.tensor_parallel
    shard = layout.data_parallel_shard or max(1, size // rest)
    if rest * shard != size:
        raise XmodelError(
            f"parallel: data_parallel_replicate {layout.data_parallel_replicate} x data_parallel_shard {shard} x"
            f" context_parallel {layout.context_parallel} x tensor_parallel {layout.tensor_parallel} is {rest * shard}, but"
            f" there are {size} processes; change the keys, or start with torchrun --nproc-per-node {rest * shard}"
        )
    if size > 1 and recipe.train.compile_mode == "reduce-overhead":
        raise XmodelError("train.compile_mode = 'reduce-overhead' (CUDA graphs) is for one process; use 'default'")
    groups = fused_layout.groups(model)
    if groups % layout.tensor_parallel:
        possible = [n for n in range(1, groups + 1) if groups % n == 0]
        raise XmodelError(
            f"parallel.tensor_parallel {layout.tensor_parallel}: the model's {model.num_key_value_heads} key/value heads and"
            f" feed-forward of {model.intermediate_size} can be cut into {', '.join(map(str, possible))} parts; set it to"
            " one of these"
        )
    if model.vocab_size % layout.tensor_parallel:
        raise XmodelError(
            f"parallel.tensor_parallel {layout.tensor_parallel}: does not divide model.vocab_size {model.vocab_size}"
        )
    parts = 2 * layout.context_parallel
    if layout.context_parallel > 1 and recipe.data.sequence_length % parts:
        raise XmodelError(
            f"parallel.context_parallel {layout.context_parallel}: data.sequence_length {recipe.data.sequence_length} must be"
            f" a multiple of {parts}, since each rank takes a part from the front and one from the back"
        )
    data = layout.data_parallel_replicate * shard
    if recipe.batch_rows % (data * recipe.train.micro_batch_size):
        rows, rest = divmod(recipe.batch_rows, data)
        fewer = largest_divisor(rows, recipe.train.micro_batch_size)
        advice = f"set train.micro_batch_size = {fewer}" if fewer and not rest else "use another number of processes"
        raise XmodelError(
            f"{size} processes: a batch of {recipe.batch_rows} rows (train.batch_tokens / data.sequence_length) can't be"
            f" shared by {data} data-parallel ranks in micro-batches of {recipe.train.micro_batch_size}; {advice}, or make"
            f" train.batch_tokens a multiple of {data * recipe.train.micro_batch_size * recipe.data.sequence_length}"
        )
    return layout.data_parallel_replicate, shard, layout.context_parallel, layout.tensor_parallel


def largest_divisor(rows: int, most: int) -> int:
    """Return the largest number up to ``most`` that divides ``rows``; 0 if there are none.

    >>> largest_divisor(120, 16)
    15
    """
    return max((size for size in range(1, min(rows, most) + 1) if rows % size == 0), default=0)
