"""Hyperparameters found on a small model, unchanged at larger sizes, against those that a search at each size finds.

recipe at a width -> search there -> its best values and the carried-over ones, on fresh seeds -> direct.json, a figure

The best of many trials is partly the luckiest. So no loss is compared that chose anything: both sets of values are trained once
more with seeds of which neither search knows, the same for both, and each search at a size draws points and seeds of its own.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from xmodel2.errors import XmodelError
from xmodel2.files import alone_in, read_json, write_json_atomic, write_text_atomic
from xmodel2.model.count import parameter_count
from xmodel2.recipe import Recipe, replace
from xmodel2.search.direct_figure import direct_figure
from xmodel2.search.direct_runs import Runs, Say, say_nothing
from xmodel2.search.over_seeds import mean_and_error, t_interval
from xmodel2.search.setting import same_setting
from xmodel2.search.sizes import at_width, size_name
from xmodel2.search.space import check_space, drawn, flat
from xmodel2.search.study import run_search
from xmodel2.search.study_report import BEST_FILE, STUDY_FILE
from xmodel2.search.study_trials import Trainer
from xmodel2.search.trials import train_trials

RESULT_FILE, FOLDER, FIGURE = "direct.json", "direct", "figures/direct.svg"
BOUND_PERCENT = 0.5
"""Loss that carried-over values may cost and still count as carried over."""
OTHER_SEED = 1_000_000
"""Added, with the width, to the recipe's seed for a search at a size: with the same seed it would begin at the same points."""
SIZE_KEYS = {
    *("model.hidden_size", "model.intermediate_size", "model.num_hidden_layers"),
    *("model.num_attention_heads", "model.num_key_value_heads"),
}
ENDS = ("complete", "pruned", "diverged", "refused")
"""How a trial that counts as one may end."""


def run_direct(
    recipe: Recipe,
    widths: Sequence[int],
    trials: int,
    seeds: int,
    out: Path,
    workers: int = 1,
    at_once: int = 1,
    accept_code: bool = False,
    small_trials: int | None = None,
    say: Say = say_nothing,
    train: Trainer = train_trials,
) -> dict[str, Any]:
    """Compare at each width, and return (and write to ``out/direct.json``) what the carried-over values lose.

    ``trials``: of the search at each width, over the recipe's own space and for its own number of tokens; ``seeds``: fresh ones of
    the comparison; ``workers``: processes that share a search's trials and the comparison's runs; ``small_trials``: of the search
    that found the recipe's values, if known. Goes on where an earlier call stopped: a search is a folder of `run_search`, a run of
    the comparison a line of results.jsonl.
    Raises `XmodelError` before the first trial for a width or space that does not fit or a folder begun with another recipe, and
    if a search finds no finite loss.
    """
    out = Path(out)
    check_direct(recipe, widths)
    with alone_in(out):
        recipe = same_setting(recipe, out)
        runs, fresh, sizes = Runs(recipe, out / FOLDER, at_once, train, say), fresh_seeds(recipe, seeds), []
        for width in sorted(set(widths)):
            found = _search(runs, width, trials, workers, accept_code)
            sizes.append(_size(runs, width, found, fresh, len(set(widths)), workers))
        result = {
            "recipe": recipe.name,
            "space": {key: value for key, value in flat(recipe).items() if key.startswith("search.space.")},
            "trials": trials,
            "small_trials": small_trials,
            "tokens": recipe.total_steps * recipe.train.batch_tokens,
            "seeds": fresh,
            "seeds_are": "fresh: no trial that chose the carried or the direct values had them",
            "bound_percent": BOUND_PERCENT,
            "sizes": sizes,
            **({"lost_workers": runs.lost} if runs.lost else {}),
            "verdict": overall(sizes, small_trials),
        }
        write_json_atomic(out / RESULT_FILE, result)
        write_text_atomic(out / FIGURE, direct_figure(result))
    return result


def check_direct(recipe: Recipe, widths: Sequence[int]) -> None:
    """Raise `XmodelError` without widths, for one that does not fit, or for a space that can't be searched at a given size."""
    if not widths:
        raise XmodelError("--direct-trials: give --widths, at least one")
    for width in widths:
        at_width(recipe, width)
    if sizes := [key for key in recipe.search.space if key in SIZE_KEYS]:
        raise XmodelError(
            f"search.space: {', '.join(sizes)} sets the model's size, which --widths gives; leave it out of the space"
        )
    check_space(recipe)


def fresh_seeds(recipe: Recipe, count: int) -> list[int]:
    """Return the seeds after those with which the small search chose: its trials' own and those of its repeats."""
    first = recipe.seed + recipe.search.top_seeds
    return list(range(first, first + count))


def trials_of(recipe_file: Path) -> int | None:
    """Return how many trials found a search's best.toml, by the study.json beside it; None for any other file."""
    study = read_json(recipe_file.parent / STUDY_FILE) if recipe_file.name == BEST_FILE else None
    return sum(study["totals"][how] for how in ENDS) if study else None


def _search(runs: Runs, width: int, trials: int, workers: int, accept_code: bool) -> dict[str, Any]:
    """Search at a width, and return the answer with the loss of each trial that was trained to its end."""
    recipe = runs.at(width)
    recipe = replace(recipe, {"seed": recipe.seed + OTHER_SEED + width})
    out = runs.folder / size_name(recipe.model)
    answer = run_search(recipe, trials, out, None, workers, runs.at_once, accept_code, runs.train)
    runs.lost.extend(answer.get("lost_workers", []))
    made = read_json(out / STUDY_FILE)["trials"]
    own = flat(drawn(recipe, answer["values"]))  # whole numbers as the recipe has them: 9 and 9.0 are one value
    return {
        "values": {key: own[key] for key in answer["values"]},
        "trials": sum(answer[how] for how in ENDS),
        **{how: answer[how] for how in (*ENDS, "repeats")},
        "chosen_trial": answer["trial"],
        "chosen_by": answer["losses"],
        "points": [
            {"number": trial["number"], "values": trial["values"], "loss": trial["loss"]}
            for trial in made
            if trial["loss"] is not None
        ],
    }


def _size(
    runs: Runs, width: int, found: dict[str, Any], seeds: Sequence[int], sizes: int, workers: int
) -> dict[str, Any]:
    """Train what is not there yet of both sets of values at a width, one of ``sizes``, and return their comparison."""
    own = flat(runs.recipe)
    carried = {key: own[key] for key in found["values"]}
    sides = {"carried": carried, f"trial-{found['chosen_trial']}": found["values"]}
    ours, theirs = runs.losses(width, sides, seeds, workers)
    return {
        "width": width,
        "layers": runs.recipe.model.num_hidden_layers,
        "parameters": parameter_count(runs.at(width).model),
        "carried": {"values": carried, **_side(ours)},
        "direct": {**found, **_side(theirs)},
        **compare(ours, theirs, sizes),
    }


def compare(carried: Mapping[int, float | None], direct: Mapping[int, float | None], sizes: int = 1) -> dict[str, Any]:
    """Return what the carried-over values lose, paired over seeds, with 95% intervals (Student's t), and the verdict.

    Losses are nats a token by seed, None for a run that diverged; percent are of the direct values' mean. The claim is held if it
    is at every size, but not held if it is not at any one: that takes an interval which holds at all ``sizes`` together.

    >>> found = compare({1: 4.02, 2: 4.01, 3: 4.03}, {1: 4.0, 2: 4.0, 3: 4.01})
    >>> round(found["percent"], 2), [round(end, 2) for end in found["percent_interval"]], found["verdict"]
    (0.42, [0.06, 0.77], 'not told: the interval has both')
    """
    pairs = [
        (loss, other) for seed, loss in carried.items() if loss is not None and (other := direct[seed]) is not None
    ]
    difference, error = mean_and_error([ours - theirs for ours, theirs in pairs])
    interval, percent, percents, least = t_interval(difference, error, len(pairs)), None, None, None
    together = t_interval(difference, error, len(pairs), sizes)
    if difference is not None:
        to_percent = 100 * len(pairs) / sum(theirs for _, theirs in pairs)
        percent = difference * to_percent
        percents = interval and [end * to_percent for end in interval]
        least = together and together[0] * to_percent
    lost = [seed for seed, loss in carried.items() if loss is None and direct[seed] is not None]
    return {
        "difference": difference,
        "error": error,
        "interval": interval and list(interval),
        "percent": percent,
        "percent_interval": percents,
        "verdict": verdict(percents, least, lost),
    }


def verdict(percents: Sequence[float] | None, least: float | None, diverged: Sequence[int] = ()) -> str:
    """Say whether a loss is within the bound, by its interval and by the low end of that which holds at all sizes together.

    ``diverged``: seeds with which only the carried values did.
    """
    if diverged:
        return f"not held: the carried-over values diverge with seed {', '.join(map(str, diverged))}"
    if percents is None or least is None:
        return "not told: fewer than two seeds have both losses"
    if percents[1] <= BOUND_PERCENT:
        return "held"
    return "not held" if least > BOUND_PERCENT else "not told: the interval has both"


def overall(sizes: Sequence[Mapping[str, Any]], small_trials: int | None = None) -> str:
    """Return "held" if it is at every size, "not held" if it is not at one, otherwise "not told".

    A search with fewer trials than the ``small_trials`` that found the carried values finds worse ones: to beat it tells nothing.
    """
    for word in ("not held", "not told"):
        if widths := [str(size["width"]) for size in sizes if size["verdict"].startswith(word)]:
            return f"{word} at width {', '.join(widths)}"
    fewest = min(size["direct"]["trials"] for size in sizes)
    if small_trials and fewest < small_trials:
        return f"not told: held, but against {fewest} trials, and {small_trials} found the carried values"
    return "held"


def _side(losses: Mapping[int, float | None]) -> dict[str, Any]:
    finite = [loss for loss in losses.values() if loss is not None]
    return {"losses": {str(seed): loss for seed, loss in losses.items()}, "mean": mean_and_error(finite)[0]}
