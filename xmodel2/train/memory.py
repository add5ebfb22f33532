"""Memory of a training step, from the settings alone: what a device holds in each phase of a step, part by part.

    forward, a chunk of the loss  ->  loss's backward  ->  last norm's  ->  blocks' backward, from the last to the first
    ->  embedding's backward  ->  (between micro-batches: gradients stay)  ->  update

Weights, moments and what a checkpoint copies are there all the time; the peak is in the phase in which the rest is largest.
Figures are of tensors: a process on a CPU needs some 0.5 GB besides, a GPU as much for its context, and fragments.
Every term was read off the allocations of real steps (`python -m benchmarks.memory` compares the sums with them).

Letters: n tokens of a micro-batch on a rank, H hidden, F feed-forward, N query heads, V pieces of a rank, L layers, e bytes of an
element in the products' precision (fp32 4, bf16 2).
"""

from dataclasses import dataclass
from typing import NamedTuple

from xmodel2.model.count import block_parameter_count
from xmodel2.recipe import ModelSettings, Recipe
from xmodel2.train.loss import SLICE, chunk_positions
from xmodel2.train.muon import CHUNK_ELEMENTS
from xmodel2.train.recompute import blocks_computed_again

Parts = dict[str, int]


class Layout(NamedTuple):
    """Sizes of the mesh's axes (see `world`)."""

    replicate: int = 1
    shard: int = 1
    context: int = 1
    tensor: int = 1

    @property
    def size(self) -> int:
        """Ranks in all."""
        return self.replicate * self.shard * self.context * self.tensor

    @property
    def data(self) -> int:
        """Ranks that read different rows."""
        return self.replicate * self.shard

    def __str__(self) -> str:
        return " x ".join(map(str, self))


@dataclass(frozen=True)
class MemoryPlan:
    """What one device holds, in bytes, in each phase of a step, and what its process holds beside it."""

    phases: dict[str, Parts]
    host: Parts
    """CPU memory of each process beside the device's: copies of an asynchronous checkpoint."""

    @property
    def phase(self) -> str:
        """The phase of the step in which the peak lies."""
        return max(self.phases, key=lambda name: sum(self.phases[name].values()))

    @property
    def parts(self) -> Parts:
        """What is held at the peak, by part."""
        return self.phases[self.phase]

    @property
    def peak(self) -> int:
        """The most that is held at once."""
        return sum(self.parts.values())


def memory_plan(
    recipe: Recipe, precision: str, layout: Layout, compiled: bool, device: str, kernels: bool = True
) -> MemoryPlan:
    """Return what training a recipe holds on each device of a layout that it can be cut into; ``device``: cpu or cuda.

    ``kernels``: whether a GPU has its own (`gpu_kernels.can_use`).
    """
    return _Step(recipe, precision, layout, compiled, device == "cuda", kernels and device == "cuda").plan()


def block_activations(
    model: ModelSettings, e: int, layout: Layout, length: int, compiled: bool, scores: bool, kernels: bool
) -> int:
    """Return the bytes a token that one block keeps for its backward pass, weights cast to bf16 not counted.

    ``length``: positions of a row; ``scores``: attention holds its weights, one a pair of positions; ``kernels``: a GPU's own.
    """
    H, N, t = model.hidden_size, model.num_attention_heads, layout.tensor
    kv, F = model.num_key_value_heads * model.head_dim, model.intermediate_size
    # q, out, rotated k, and the product of qkv, which v is a view of.
    attention = 2 * H + kv + H + 2 * kv
    if kernels or layout.context > 1:  # q, out, and keys and values of all positions
        attention = 2 * H + 2 * kv * layout.context
    rest = 4 * N // t + 8  # of the softmax and of the norms, one figure a row
    if scores:
        rest += N // t * length * (4 if compiled or e == 4 else 6) + (0 if compiled else length)
    if compiled or kernels:
        # Beside these: input, both norms' outputs, output of attention or its sum; gate_up, and silu(gate) * up.
        return e * (4 * H + (attention + 3 * F) // t) + rest
    # Each norm keeps its input and the normed input in fp32, and silu(gate) is kept as well.
    return 16 * H + e * (2 * H + (attention + 4 * F) // t) + rest


class _Step:
    def __init__(
        self, recipe: Recipe, precision: str, layout: Layout, compiled: bool, cuda: bool, kernels: bool
    ) -> None:
        self.recipe, self.layout, self.compiled, self.cuda = recipe, layout, compiled, cuda
        model, train = recipe.model, recipe.train
        self.e = 4 if precision == "fp32" else 2
        length = recipe.data.sequence_length
        self.tokens = train.micro_batch_size * length // layout.context
        self.sharded = layout.size > layout.tensor
        self.accumulates = recipe.batch_rows > layout.data * train.micro_batch_size
        # Parameters of a rank before FSDP cuts them: matrices and tables are cut by tensor parallelism, norms are not.
        norms = (2 * model.num_hidden_layers + 1) * model.hidden_size
        self.table = model.vocab_size * model.hidden_size // layout.tensor
        self.tables = self.table if model.tie_word_embeddings else 2 * self.table
        self.whole_matrices = block_parameter_count(model) - norms
        self.matrices = self.whole_matrices // layout.tensor
        self.block = self.matrices // model.num_hidden_layers
        self.parameters = self.tables + self.matrices + norms
        self.shards = layout.shard * layout.context if self.sharded else 1
        self.own = -(-self.parameters // self.shards)
        scores = train.attention == "plain" or (layout.context > 1 and not cuda)
        whole = block_activations(model, self.e, layout, length, compiled, scores, kernels)
        first = self.e * model.hidden_size  # a block's input, from which the rest can be computed again
        budget, blocks = train.activation_memory_budget, model.num_hidden_layers
        if not compiled:
            budget = 1 - blocks_computed_again(blocks, budget) / blocks
        self.kept = first + round((whole - first) * budget)
        self.again = (whole - self.kept if compiled else whole - first if budget < 1 else 0) * self.tokens

    def plan(self) -> MemoryPlan:
        """Put the parts together, phase by phase."""
        model, e, n = self.recipe.model, self.e, self.tokens
        H, L = model.hidden_size, model.num_hidden_layers
        table, hidden = 4 * self.table, n * H
        casts = 0 if self.sharded or e == 4 else 2 * self.block  # of a block's weights, kept with its activations
        blocks = L * (n * self.kept + casts)
        # Compiled, the last norm keeps its input; else that and the normed input, in fp32.
        last_norm, norm_workspace = (e * hidden, 3 * e * hidden) if self.compiled else (8 * hidden, 16 * hidden)
        workspace = self._workspace()
        gradients = self._gradients()
        all_blocks = self._unsynced() or gradients - 4 * self.tables // (self.shards if self.sharded else 1)
        in_place = not self.cuda and self.layout.size == 1 and self.tables == self.table  # see `TiedEmbedding`
        loss, loss_backward = self._loss()
        phases: dict[str, Parts] = {
            "loss": {"activations": blocks + last_norm + e * hidden, "loss": loss},
            "backward of the loss": {"activations": blocks + last_norm, "loss": loss_backward},
            "backward of the last norm": {
                "activations": blocks + last_norm,
                "loss": table,
                "workspace": norm_workspace,
            },
            "backward of the last block": {"activations": blocks, "loss": table, "workspace": workspace},
            "backward of the first block": {
                "activations": blocks // L,
                "loss": table,
                "workspace": workspace,
                "gradients": all_blocks,
            },
            "backward of the embedding": {
                "loss": table if in_place else 2 * table,
                "workspace": (4 + e) * hidden,
                "gradients": all_blocks,
            },
            "update": {"gradients": gradients, "workspace": self._update()},
        }
        if self.accumulates:
            for name in list(phases)[:-1]:
                phases[name]["gradients"] = self._unsynced() or gradients
            # Of the head alone, since the embedding's is another, or added in place, it is added to those before at once.
            if (self.tables > self.table or in_place) and not self.sharded:
                for name in list(phases)[2:-1]:
                    phases[name]["loss"] -= table
        constant = {"weights": 4 * self.own, "optimizer moments": self._moments()}
        copies = {"checkpoint copies": 0}
        if self.recipe.train.async_checkpoint:
            copies["checkpoint copies"] = -(-(4 * self.parameters + self._whole_moments()) // self.shards)
            copies["checkpoint copies"] //= self.layout.replicate  # of what several hold, one writes each tensor
        for name, parts in phases.items():
            gathered = self._gathered(name)
            phases[name] = constant | parts | ({"gathered weights": gathered} if gathered else {})
            if not self.cuda:
                phases[name] |= copies
        return MemoryPlan(phases, copies if self.cuda else {})

    def _moments(self) -> int:
        return -(-self._whole_moments() // self.shards)

    def _whole_moments(self) -> int:
        one = self.matrices if self.recipe.train.optimizer == "muon" else 0
        return 8 * self.parameters - 4 * one

    def _gradients(self) -> int:
        """Gradients that the update sees."""
        return 4 * self.own

    def _unsynced(self) -> int:
        """Gradients of all parameters that FSDP keeps whole, in fp32, until a step's last micro-batch; 0 if there are none."""
        return 4 * self.parameters if self.sharded and self.accumulates else 0

    def _loss(self) -> tuple[int, int]:
        """Bytes of the loss's own tensors: while a chunk's gradient is made, and in its backward pass."""
        model, e, H = self.recipe.model, self.e, self.recipe.model.hidden_size
        V = model.vocab_size // self.layout.tensor
        C = chunk_positions(self.recipe, self.tokens, e, "cuda" if self.cuda else "cpu", self.layout.tensor)
        # Hidden states of the positions with a target, gathered, and their gradient.
        table, positions = e * V * H, e * -(-self.tokens // C) * C * H
        # In fp32 and on a GPU it is part of the sum; in 16 bits a CPU casts what it adds.
        product = 0 if e == 4 or self.cuda else min(V, SLICE) * H * (2 + 4)
        results = 2 * e * C * H + product
        if self.cuda and self.compiled:
            making = e * C * V + results  # the logits become their own gradient
        elif self.cuda:
            softmax = 16 * C * V  # logits, softmax, one-hot or product, and their difference, in fp32
            making = max(softmax, (4 + e) * C * V + results)
        else:
            # Beside their gradient lie the logits, and if not compiled its fp32; then what is made of it.
            logits = e if self.compiled or e == 4 else 2 + 4
            making = e * C * V + max(logits * C * V, results)
        cast = table if e == 2 else 0
        return 4 * V * H + cast + 2 * positions + making, 4 * V * H + 2 * positions

    def _workspace(self) -> int:
        """Bytes in flight in a block's backward pass: the residual's gradient, those of the feed-forward, one matrix's."""
        model, n, t = self.recipe.model, self.tokens, self.layout.tensor
        H, F = model.hidden_size, model.intermediate_size // t
        return self.e * n * (H + 2 * F) + 4 * H * F + self.again

    def _gathered(self, phase: str) -> int:
        """Bytes of weights that FSDP holds whole, and of gradients on their way to the shards."""
        if not self.sharded or phase == "update":
            return 0
        root = 4 * self.tables  # which stay fp32
        # The block at work, the next one's weights, and the buffer that they arrive in.
        block = 3 * self.e * self.block
        if phase == "backward of the embedding":
            return root + 4 * self.tables  # the buffer that is reduced, in fp32
        if "block" in phase:
            block += (self.e + 2 * 4) * self.block  # this block's gradients; two buffers that are reduced, in fp32
        return root + block

    def _update(self) -> int:
        """Bytes that an update needs beside gradients: a copy of the weights where norms are measured; Muon's products."""
        train = self.recipe.train
        copy = 4 * self.own if train.norms_every else 0
        if train.optimizer == "adamw":
            return copy
        model = self.recipe.model
        largest = 2 * model.hidden_size * model.intermediate_size // self.layout.tensor
        chunk = min(max(CHUNK_ELEMENTS, largest), self.matrices)
        # Averages, whole, and of the largest batch of equal shapes (gate and up) two iterates, and two squares of H x H.
        share = 2 * model.intermediate_size * model.hidden_size * model.num_hidden_layers / self.whole_matrices
        batch = chunk * share
        squares = 2 * batch * min(1.0, model.hidden_size / model.intermediate_size)
        element = 2 if self.cuda else 4
        cast = 2 * batch if self.cuda else 0
        return copy + round(4 * chunk + element * (2 * batch + squares) + cast)
