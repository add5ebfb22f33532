"""Typed settings of everything: presets, recipe files, and their checks."""

from xmodel2.recipe.explain import recipe_explained
from xmodel2.recipe.load import load_recipe, recipe_from_dict, recipe_to_toml, replace
from xmodel2.recipe.presets import PRESETS
from xmodel2.recipe.settings import (
    DataSettings,
    DecaySettings,
    ModelSettings,
    Recipe,
    SourceSettings,
    StableSettings,
    StagesSettings,
    TrainSettings,
)

__all__ = [
    "PRESETS",
    "DataSettings",
    "DecaySettings",
    "ModelSettings",
    "Recipe",
    "SourceSettings",
    "StableSettings",
    "StagesSettings",
    "TrainSettings",
    "load_recipe",
    "recipe_explained",
    "recipe_from_dict",
    "recipe_to_toml",
    "replace",
]
