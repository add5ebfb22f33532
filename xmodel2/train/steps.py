"""Steps without a run: a recipe's model, batches and updates in one process, for a notebook or a loop of one's own.

    steps = Steps(load_recipe("recipes/nano.toml"))
    losses = [steps(number) for number in range(1, 11)]

They are those of `train`, which adds the run directory, checkpoints, the guard and several ranks.
"""

from xmodel2.data.batch import IGNORED, Batch
from xmodel2.recipe import Recipe, replace
from xmodel2.train.allocator import keep_freed_memory
from xmodel2.train.build import build_step
from xmodel2.train.device import pick_device, pick_precision, set_determinism
from xmodel2.train.optimizer import set_rate
from xmodel2.train.run import make_loader, open_data
from xmodel2.train.schedule import rate_at


class Steps:
    """Updates by number, from 1; the batch and the rate of each are functions of it."""

    def __init__(self, recipe: Recipe) -> None:
        """Raise `XmodelError` if the recipe's data does not fit, or its device is not there."""
        device = pick_device(recipe.train.device)
        set_determinism(recipe.train.deterministic, device)
        keep_freed_memory(device)
        self.loader = make_loader(recipe, open_data(recipe))
        rows = recipe.train.micro_batch_size * recipe.data.sequence_length
        precision, _ = pick_precision(recipe.train.precision, device, rows, recipe.model)
        self.recipe = replace(recipe, {"train.precision": precision, "train.device": device.type})
        self._step, self.optimizer = build_step(self.recipe, precision, device)
        self.model = self._step.model

    def batch(self, number: int) -> Batch:
        """Return the rows of an update."""
        return self.loader.batch(number - 1)

    def __call__(self, number: int, batch: Batch | None = None) -> float:
        """Make an update, of its own rows or others; return the loss before it, in nats a loss token."""
        batch = self.batch(number) if batch is None else batch
        set_rate(self.optimizer, rate_at(self.recipe, number))
        loss, norm = self._step.gradients(batch, float((batch.targets != IGNORED).sum()))
        self._step.apply(self.optimizer, norm)
        return loss
