"""Commands on a recipe: train it, or say what training it would cost."""

from pathlib import Path

import tyro

from xmodel2.arguments import Flag, Overrides
from xmodel2.commands import INTERRUPTED
from xmodel2.output import print_dict


def train(
    recipe: tyro.conf.Positional[Path],
    /,
    set: Overrides = (),
    out: Path | None = None,
    resume: Flag = False,
) -> int:
    """Train both stages of a recipe: stable, then decay with instruction data.

    Example: xmodel2 train recipes/nano.toml --set train.learning_rate=0.02 --out runs/nano --resume

    Args:
        recipe: recipe file
        set: override a key of the recipe; may be repeated
        out: run directory (default: runs/NAME)
        resume: go on from the newest checkpoint in the run directory
    """
    from xmodel2.recipe import load_recipe
    from xmodel2.train import train as run

    settings = load_recipe(recipe, set)
    result = run(settings, out or Path("runs") / settings.name, resume)
    if result.finished and result.loss is None:
        print(f"{result.run_dir}: already finished at step {result.step}")
    elif result.finished:
        print(f"{result.run_dir}: finished at step {result.step}, loss {result.loss:.4f}")
    return 0 if result.finished else INTERRUPTED


def plan(recipe: tyro.conf.Positional[Path], /, set: Overrides = (), json: Flag = False) -> None:
    """Parameters, steps, FLOPs and bytes of a recipe, before anything is paid for.

    Example: xmodel2 plan recipes/xmodel2-1.2b.toml

    Args:
        recipe: recipe file
        set: override a key of the recipe; may be repeated
        json: print one JSON object
    """
    from xmodel2.model.count import plan_run
    from xmodel2.recipe import load_recipe

    print_dict(plan_run(load_recipe(recipe, set)), json)
