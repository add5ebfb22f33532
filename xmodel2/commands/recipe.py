"""Command that shows a recipe as it is resolved."""

import io
import sys
from pathlib import Path

import tyro

from xmodel2.arguments import Flag, Overrides


def recipe(
    recipe: tyro.conf.Positional[Path | None] = None,
    /,
    set: Overrides = (),
    explain: Flag = False,
) -> None:
    """Print a recipe fully resolved, bases, preset and defaults included; without a file, the defaults, which are the report's.

    Example: xmodel2 recipe recipes/nano.toml --explain

    A recipe of your own: xmodel2 recipe recipes/nano.toml --set train.learning_rate=0.02 > mine.toml

    Args:
        recipe: recipe file
        set: override a key of the recipe; may be repeated
        explain: say above every key what it is, and what it may be
    """
    from xmodel2.recipe import load_recipe, recipe_explained, recipe_to_toml

    found = load_recipe(recipe, set)
    if isinstance(sys.stdout, io.TextIOWrapper):  # as recipes are read, whatever the terminal takes
        sys.stdout.reconfigure(encoding="utf-8")
    print((recipe_explained if explain else recipe_to_toml)(found), end="")
