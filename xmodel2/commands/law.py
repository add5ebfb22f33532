"""The command that fits scaling laws."""

from pathlib import Path

import tyro

from xmodel2.arguments import Flag, Overrides, numbers
from xmodel2.errors import XmodelError


def law(
    recipe: tyro.conf.Positional[Path | None] = None,
    /,
    widths: str = "",
    then: int | None = None,
    tokens: str = "",
    seeds: int = 1,
    points: Path | None = None,
    out: Path | None = None,
    budgets: str = "",
    draws: int = 400,
    set: Overrides = (),
    json: Flag = False,
) -> None:
    """Loss as a function of parameters and tokens: train small sizes, fit, predict the next size up, then train it; resumable.

    Example: xmodel2 law recipes/wind-tunnel.toml --widths 64,96,128 --then 192 --tokens 200_000,400_000,800_000 --out runs/law

    Points of other runs: xmodel2 law --points runs/law/results.jsonl --budgets 1e15,1e18

    Args:
        recipe: recipe file; other widths keep its depth, width of a head and hyperparameters
        widths: comma-separated widths of the sizes that are fitted, at least three
        then: width that is predicted, with an interval, before it is trained
        tokens: comma-separated lengths of the runs, decay included, at least three; all of a size share one stable stage
        seeds: runs of each fitted size and length; with several, intervals are over runs
        points: fit lines of {"parameters", "tokens", "loss", "seed"} instead of training
        out: folder for results.jsonl, prediction-SIZE.json, law.json, figures and runs; must be given to train
        budgets: comma-separated FLOPs (6 x parameters x tokens) to read the optimum at (default: of the points)
        draws: of the bootstrap
        set: override a key of the recipe; may be repeated
        json: print law.json as one object
    """
    from xmodel2.output import print_json
    from xmodel2.recipe import load_recipe
    from xmodel2.search.law import LawPlan, fit_points, run_law
    from xmodel2.search.law_table import print_law

    spent = tuple(numbers("budgets", budgets, float))
    if (recipe is None) == (points is None):
        raise XmodelError("law: give a recipe to train, or --points FILE to fit what was trained")
    if draws < 20 or seeds < 1:
        raise XmodelError(f"law: --draws {draws} must be 20 or more, and --seeds {seeds} 1 or more")
    if points is not None:
        result = fit_points(points, out, spent, draws)
    elif recipe is not None and out is not None:
        lengths, sizes = numbers("tokens", tokens, int), numbers("widths", widths, int)
        plan = LawPlan(tuple(sizes), tuple(lengths), then, seeds)
        result = run_law(load_recipe(recipe, set), plan, out, spent, draws, _say)
    else:
        raise XmodelError("law: give --out DIR to train into")
    print_json(result) if json else print_law(result)


def _say(line: str) -> None:
    from rich.console import Console

    Console(stderr=True).print(line, highlight=False, markup=False, soft_wrap=True)
