"""Peak rates: the same recipe at another one, and whether the best of those tried may be beaten by one that was not."""

from collections.abc import Collection

from xmodel2.recipe import Recipe, replace


def at_rate(recipe: Recipe, factor: float) -> Recipe:
    """Return the recipe with its peak rates times ``factor``: Muon's matrices have one of their own, which must move too."""
    train = recipe.train
    rates = {
        "train.learning_rate": train.learning_rate * factor,
        "train.muon_learning_rate": train.muon_learning_rate * factor,
    }
    return replace(recipe, rates)


def is_edge(best: float, tried: Collection[float], diverged: Collection[float]) -> bool:
    """Tell whether a better rate may lie beyond the best one: it is the lowest or highest tried, or beside one that diverged.

    >>> is_edge(2.0, (1.0, 2.0, 4.0), ()), is_edge(4.0, (1.0, 2.0, 4.0), ()), is_edge(2.0, (1.0, 2.0, 4.0), (4.0,))
    (False, True, True)
    """
    rates = sorted(tried)
    at = rates.index(best)
    return at in (0, len(rates) - 1) or any(rate in diverged for rate in rates[at - 1 : at + 2])
