"""A recipe's model and what makes its updates, with the weights that training begins with."""

import torch

from xmodel2.model import Xmodel2
from xmodel2.recipe import Recipe
from xmodel2.train.optimizer import build_optimizer
from xmodel2.train.sharding import draw_weights
from xmodel2.train.step import TrainStep
from xmodel2.train.world import World


def new_model(recipe: Recipe, device: str = "cpu") -> Xmodel2:
    """Return a recipe's model as its training begins, fp32."""
    model = _on_no_device(recipe)
    draw_weights(model, torch.device(device), recipe.seed)
    return model


def build_step(
    recipe: Recipe, precision: str, device: torch.device, world: World | None = None
) -> tuple[TrainStep, torch.optim.Optimizer]:
    """Return what makes a recipe's updates, and their optimizer: the model laid over the ranks, compiled, its weights drawn."""
    step = TrainStep(_on_no_device(recipe), recipe, precision, device, world)
    draw_weights(step.model, device, recipe.seed)
    return step, build_optimizer(step.model.named_parameters(), recipe.model, recipe.train)


def _on_no_device(recipe: Recipe) -> Xmodel2:
    with torch.device("meta"):
        return Xmodel2(recipe.model)
