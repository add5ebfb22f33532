"""The same recipe at another peak rate."""

from xmodel2.recipe import Recipe, replace


def at_rate(recipe: Recipe, factor: float) -> Recipe:
    """Return the recipe with its peak rates times ``factor``: Muon's matrices have one of their own, which must move too."""
    train = recipe.train
    rates = {
        "train.learning_rate": train.learning_rate * factor,
        "train.muon_learning_rate": train.muon_learning_rate * factor,
    }
    return replace(recipe, rates)
