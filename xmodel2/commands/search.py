"""The command that searches hyperparameters."""

from pathlib import Path

import tyro

from xmodel2.arguments import Overrides
from xmodel2.output import print_dict


def search(recipe: tyro.conf.Positional[Path], /, *, trials: int, out: Path, set: Overrides = ()) -> None:
    """Search Table 5's hyperparameters by training the recipe's model once a trial; resumable.

    Example: xmodel2 search recipes/nano.toml --trials 20 --out runs/search --set stages.stable.tokens=1_000_000

    Args:
        recipe: recipe file of the search model
        trials: trials to add to the study
        out: study directory; best.toml is a recipe that `train` takes
        set: override a key of the recipe; may be repeated
    """
    from xmodel2.recipe import load_recipe
    from xmodel2.search.study import run_search, trial_loss

    study = run_search(load_recipe(recipe, set), trials, out, lambda r: trial_loss(r, out / "trials"))
    print_dict({"best loss": study["best_value"], **study["best_params"], "recipe": str(out / "best.toml")}, False)
