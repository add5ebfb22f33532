"""The command that searches hyperparameters."""

from pathlib import Path

import tyro

from xmodel2.arguments import Flag, Overrides


def search(
    recipe: tyro.conf.Positional[Path],
    /,
    *,
    trials: int,
    out: Path,
    set: Overrides = (),
    workers: int = 1,
    trials_at_once: int = 1,
    storage: str | None = None,
    accept_code: Flag = False,
    json: Flag = False,
) -> None:
    """Search hyperparameters (Table 5, or the recipe's search.space) by training its model once a trial.

    The same command goes on where it was stopped or killed; given on another machine with the same --storage, it helps.

    Example: xmodel2 search recipes/wind-tunnel.toml --trials 100 --out runs/search --workers 2

    One more key: xmodel2 search recipes/wind-tunnel.toml --set 'search.space={"train.weight_decay" = {low = 0.0, high = 0.3}}'

    Watch it in a browser: optuna-dashboard runs/search/journal.log

    Args:
        recipe: recipe file of the search model
        trials: trials that the study is to have when the command ends; a larger number than last time adds to it
        out: study directory; best.toml in it is a recipe that `train` takes
        set: override a key of the recipe; may be repeated
        workers: processes on this machine, which share its threads or GPUs
        trials_at_once: trials that each worker trains together
        storage: where the study is kept: URL of a database (sqlite:///FILE, postgresql://...) or path of a journal file
            that other machines see too (default: OUT/journal.log)
        accept_code: go on although the code changed since the study began
        json: print one JSON object
    """
    from xmodel2.output import print_dict
    from xmodel2.recipe import load_recipe
    from xmodel2.search.study import run_search

    answer = run_search(load_recipe(recipe, set), trials, out, storage, workers, trials_at_once, accept_code)
    print_dict(answer, json)
