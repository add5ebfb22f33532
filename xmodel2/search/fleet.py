"""Many models of one shape trained as one: their weights are stacked, and the products of the blocks are batches of products.

    trials: models whose weights are views of the stacks -> blocks of all in one forward and backward (vmap) -> each its own
    loss, clip, guard, rate and update, with the same code as alone

A small model leaves a GPU idle while kernels are launched; stacked, a launch of the blocks serves all. Each trial ends with
what it would have ended with alone, to rounding. Letters as in `model/decoder.py`, and E models.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.func import functional_call, vmap

from xmodel2.data.loader import IGNORED, Batch, Loader
from xmodel2.data.shards import ShardSet
from xmodel2.model import Xmodel2, tensor_program
from xmodel2.model.decoder import Rows, rotary
from xmodel2.model.mask import Places
from xmodel2.recipe import Recipe
from xmodel2.search.trial import TrialResult, Watch, mean_text_loss
from xmodel2.train.device import DTYPES, can_compile, keep_compiled_code_apart
from xmodel2.train.guard import Guard
from xmodel2.train.heldout import heldout_losses
from xmodel2.train.loss import Chunk, chunk_positions, compiled_chunk, cross_entropy_chunk, linear_cross_entropy
from xmodel2.train.optimizer import build_optimizer, set_rate
from xmodel2.train.schedule import rate_at, stage_of
from xmodel2.train.step import to_device
from xmodel2.train.sums import clip_

LoaderOf = Callable[[Recipe], Loader]


@dataclass
class _Trial:
    """One model of the fleet."""

    number: int
    recipe: Recipe
    loader: Loader
    model: Xmodel2
    optimizer: torch.optim.Optimizer
    guard: Guard
    heldout: dict[str, dict[str, Any]] = field(default_factory=dict)
    step: int = 0
    ended: str = ""

    def __post_init__(self) -> None:
        self.parameters = dict(self.model.named_parameters())


class _Hidden(nn.Module):
    """The model as a function of its weights, from pieces to last hidden states."""

    def __init__(self, model: Xmodel2, dtype: torch.dtype) -> None:
        super().__init__()
        self.model, self.dtype = model, dtype

    def forward(self, input_ids_BS: torch.Tensor, rows: Rows) -> torch.Tensor:
        return self.model.run(input_ids_BS, rows, self.dtype)


class Fleet:
    """Trials of one shape; ``recipes`` differ in what does not change the shape of a batch or of a weight."""

    def __init__(
        self, recipes: Sequence[Recipe], shards: ShardSet, loader_of: LoaderOf, precision: str, device: torch.device
    ) -> None:
        self.shards, self.precision, self.device = shards, precision, device
        self.recipe = recipes[0]
        self.trials = [self._trial(number, recipe, loader_of(recipe)) for number, recipe in enumerate(recipes)]
        with torch.device("meta"):
            self.hidden = _Hidden(Xmodel2(self.recipe.model), DTYPES[precision])
        rows, length = self.recipe.train.micro_batch_size, self.recipe.data.sequence_length
        self.chunk = chunk_positions(self.recipe, rows * length, DTYPES[precision].itemsize, device.type)
        self.index_S = torch.arange(length, device=device)
        model = self.recipe.model
        self.rotation = rotary(self.index_S[None], model.head_dim, model.rope_theta)
        self.forward: Callable[..., torch.Tensor] = self._hidden_of_all
        self.cross_entropy: Callable[..., Chunk] = cross_entropy_chunk
        if self.recipe.train.compile and can_compile(device):
            keep_compiled_code_apart(device)
            self.forward = torch.compile(self._hidden_of_all, mode=self.recipe.train.compile_mode)
            self.cross_entropy = compiled_chunk(cross_entropy_chunk, device)
        self._stack()

    def run(self, watch: Watch | None = None) -> list[TrialResult]:
        """Train all to their ends, and return their results in order; ``watch`` as in `train_trials`."""
        begin, recipe, count = time.perf_counter(), self.recipe, len(self.trials)
        ended: list[_Trial] = []
        for step in range(1, recipe.total_steps + 1):
            self._step(step)
            every = recipe.train.heldout_every
            if (every and step % every == 0) or step in (recipe.stable_steps, recipe.total_steps):
                self._heldout(step, watch)
            ended += self._leave_out_ended()
            if not self.trials:
                break
        seconds = (time.perf_counter() - begin) / count
        return [_result(trial, seconds) for trial in sorted(ended + self.trials, key=lambda trial: trial.number)]

    def _trial(self, number: int, recipe: Recipe, loader: Loader) -> _Trial:
        model = Xmodel2(recipe.model).to(self.device)
        tensor_program.initialise(model, recipe.seed)
        optimizer = build_optimizer(model.named_parameters(), recipe.model, recipe.train)
        return _Trial(number, recipe, loader, model, optimizer, Guard(recipe.guard))

    def _stack(self) -> None:
        """Lay the weights of the trials that are left side by side, and make those of each model views of them."""
        parameters = [trial.parameters for trial in self.trials]
        self.stacks = {
            name: torch.stack([one[name].detach() for one in parameters]).requires_grad_() for name in parameters[0]
        }
        for name, stack in self.stacks.items():
            for one, weight in zip(parameters, stack.detach().unbind(), strict=True):
                one[name].data = weight

        def factors(of: Callable[[Xmodel2], float]) -> torch.Tensor:
            return torch.tensor([of(trial.model) for trial in self.trials], device=self.device)

        self.embedding_E = factors(lambda model: model.embedding_multiplier)
        self.residual_E = factors(lambda model: model.residual_multiplier)
        self.logit_E = factors(lambda model: model.logit_multiplier)

    def _hidden_of_all(
        self,
        stacks: dict[str, torch.Tensor],
        embedding_E: torch.Tensor,
        residual_E: torch.Tensor,
        input_ids: torch.Tensor,
        documents: torch.Tensor | None,
    ) -> torch.Tensor:
        """Return last hidden states [E, B, S, H]; ids and documents are [B, S], the same for all, or [E, B, S]."""

        def one(
            weights: dict[str, torch.Tensor],
            embedding: torch.Tensor,
            residual: torch.Tensor,
            ids_BS: torch.Tensor,
            documents_BS: torch.Tensor | None,
        ) -> torch.Tensor:
            places = Places(self.index_S, self.index_S, documents_BS, documents_BS)
            rows = Rows(self.rotation, embedding, residual, places)
            hidden: torch.Tensor = functional_call(self.hidden, weights, (ids_BS, rows))
            return hidden

        weights = {f"model.{name}": stack for name, stack in stacks.items()}
        ids = 0 if input_ids.dim() == 3 else None
        # Under a mask of None there is nothing to spread over.
        spread = vmap(one, in_dims=(0, 0, 0, ids, None if documents is None else ids))
        result: torch.Tensor = spread(weights, embedding_E, residual_E, input_ids, documents)
        return result

    def _step(self, step: int) -> None:
        batches = self._batches(step)
        counts = [max(1, int((batch.targets != IGNORED).sum())) for batch in batches]
        totals = torch.zeros(len(self.trials), device=self.device)
        rows = self.recipe.train.micro_batch_size
        for start in range(0, self.recipe.batch_rows, rows):
            nats = self._nats([_part(batch, start, start + rows) for batch in batches])
            torch.stack(nats).sum().backward()
            totals += torch.stack(nats).detach()
        norms = self._gradient_norms()
        figures = torch.stack((totals.double(), norms)).cpu().tolist()  # the only time that the device is waited for
        for index, (trial, total, norm, count) in enumerate(zip(self.trials, *figures, counts, strict=True)):
            if not trial.ended:
                self._update(trial, step, index, total / count, norm / count, count)
        for stack in self.stacks.values():
            stack.grad = None

    def _batches(self, step: int) -> list[Batch]:
        """Return each trial's batch; trials that read the same share it."""
        read: dict[int, Batch] = {}
        for trial in self.trials:
            if id(trial.loader) not in read:
                read[id(trial.loader)] = trial.loader.batch(step - 1)
        return [read[id(trial.loader)] for trial in self.trials]

    def _nats(self, batches: list[Batch]) -> list[torch.Tensor]:
        """Return each trial's summed nats of a micro-batch."""
        shared = all(trial.loader is self.trials[0].loader for trial in self.trials)
        different = batches[:1] if shared else batches

        def laid_out(arrays: list[Any]) -> torch.Tensor:
            tensors = [to_device(array, self.device) for array in arrays]
            return tensors[0] if shared else torch.stack(tensors)

        documents = None
        if self.recipe.data.mask_documents:
            documents = laid_out([batch.document_ids for batch in different])
        ids = laid_out([batch.inputs for batch in different])
        hidden = self.forward(self.stacks, self.embedding_E, self.residual_E, ids, documents)
        tied = self.recipe.model.tie_word_embeddings
        heads = self.stacks["embed_tokens.weight" if tied else "lm_head.weight"].unbind()
        targets = laid_out([b.targets.ravel() for b in different])
        return [
            linear_cross_entropy(
                hidden_BSH.flatten(0, 1),
                head,
                target,
                None,
                self.chunk,
                partial(self.cross_entropy, multiplier=multiplier),
            )
            for hidden_BSH, head, target, multiplier in zip(
                hidden.unbind(), heads, targets.expand(len(heads), -1), self.logit_E.unbind(), strict=True
            )
        ]

    def _gradient_norms(self) -> torch.Tensor:
        """Return the norm of each trial's gradient, of its sum over tokens [E], fp64."""
        gradients = [stack.grad.flatten(1) for stack in self.stacks.values() if stack.grad is not None]
        norms = torch.stack([torch.linalg.vector_norm(gradient, dim=1) for gradient in gradients])
        return norms.double().square().sum(0).sqrt()

    def _update(self, trial: _Trial, step: int, index: int, loss: float, norm: float, count: int) -> None:
        """Update one trial as its own loop would; one that its guard would take back has diverged."""
        trial.step = step
        parameters = trial.parameters
        for name, parameter in parameters.items():
            gradient = self.stacks[name].grad
            assert gradient is not None
            parameter.grad = gradient[index]
        verdict = trial.guard.judge(step, stage_of(trial.recipe, step), loss, norm)
        if verdict.action == "go":
            set_rate(trial.optimizer, rate_at(trial.recipe, step))
            clip_(
                parameters.values(), torch.tensor(norm, device=self.device), trial.recipe.train.max_grad_norm, 1 / count
            )
            trial.optimizer.step()
        elif verdict.action == "roll back":
            trial.ended = f"diverged: step {step}: {verdict.reason}"
        trial.optimizer.zero_grad(set_to_none=True)

    def _heldout(self, step: int, watch: Watch | None) -> None:
        for trial in self.trials:
            if trial.ended:
                continue
            rows = trial.recipe.train.heldout_rows
            trial.heldout = heldout_losses(trial.model, self.shards, trial.recipe, self.precision, rows)
            loss = mean_text_loss(trial.heldout)
            if watch is not None and watch(trial.number, step, loss) and step < trial.recipe.total_steps:
                trial.ended = "pruned"

    def _leave_out_ended(self) -> list[_Trial]:
        """Stack anew without those that ended, once they are half, and return them: each new stack is compiled again."""
        left = [trial for trial in self.trials if not trial.ended]
        if 2 * len(left) > len(self.trials):
            return []
        ended = [trial for trial in self.trials if trial.ended]
        for trial in ended:  # its weights are views, which would keep the old stack alive
            del trial.model, trial.optimizer, trial.parameters
        self.trials = left
        if left:
            self._stack()
        return ended


def _result(trial: _Trial, seconds: float) -> TrialResult:
    losses = {name: row["loss"] for name, row in trial.heldout.items()}
    loss = math.nan if trial.ended.startswith("diverged") else mean_text_loss(trial.heldout)
    return TrialResult(loss, losses, trial.step, seconds, trial.ended)


def _part(batch: Batch, start: int, stop: int) -> Batch:
    part = slice(start, stop)
    return Batch(batch.inputs[part], batch.targets[part], batch.document_ids[part], [])
