"""Hyperparameters found on a small model, unchanged at larger sizes, against those that a search at each size finds.

recipe at a width -> search there -> its best values and the carried-over ones, on fresh seeds -> direct.json, a figure

The best of many trials is partly the luckiest. So no loss is compared that chose anything: both sets of values are trained once
more with seeds of which neither search knows, the same for both, and each search at a size draws points and seeds of its own.
"""

import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from xmodel2.errors import XmodelError
from xmodel2.files import alone_in, append_json_line, read_json, read_json_lines, write_json_atomic, write_text_atomic
from xmodel2.model.count import parameter_count
from xmodel2.recipe import Recipe, replace
from xmodel2.recipe.search import Value
from xmodel2.search.direct_figure import direct_figure
from xmodel2.search.over_seeds import mean_and_error, t_interval
from xmodel2.search.setting import same_setting
from xmodel2.search.sizes import at_width, size_name
from xmodel2.search.space import check_space, drawn, flat
from xmodel2.search.study import run_search
from xmodel2.search.study_report import BEST_FILE, STUDY_FILE
from xmodel2.search.study_trials import Trainer
from xmodel2.search.sweep import TRIALS
from xmodel2.search.trials import train_trials

RESULT_FILE, FOLDER, RUNS_FILE, FIGURE = "direct.json", "direct", "results.jsonl", "figures/direct.svg"
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


@dataclass(frozen=True)
class Run:
    """One training of a comparison."""

    width: int
    values: dict[str, Value]
    """Dotted key of the recipe to what the run has for it, of all keys that are searched."""
    seed: int
    loss: float | None
    """Held-out nats a token at the end, mean over text sources; None if it diverged."""
    seconds: float

    @property
    def place(self) -> tuple[int, str, int]:
        """What the run is, without what it gave."""
        return _place(self.width, self.values, self.seed)


Say = Callable[[str, Run], None]
"""Called with "carried" or the name of a direct search's trial, and the run that ended."""


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
    say: Say = lambda *_: None,
    train: Trainer = train_trials,
) -> dict[str, Any]:
    """Compare at each width, and return (and write to ``out/direct.json``) what the carried-over values lose.

    ``trials``: of the search at each width, over the recipe's own space and for its own number of tokens; ``seeds``: fresh ones of
    the comparison; ``small_trials``: of the search that found the recipe's values, if known. Goes on where an earlier call
    stopped: a search is a folder of `run_search`, a run of the comparison a line of results.jsonl.
    Raises `XmodelError` before the first trial for a width or space that does not fit or a folder begun with another recipe, and
    if a search finds no finite loss.
    """
    out = Path(out)
    check_direct(recipe, widths)
    with alone_in(out):
        recipe = same_setting(recipe, out)
        compared = Comparison(recipe, out / FOLDER, at_once, say, train)
        sizes = []
        for width in sorted(set(widths)):
            found = compared.search(width, trials, workers, accept_code)
            sizes.append(compared.size(width, found, fresh_seeds(recipe, seeds), len(set(widths))))
        result = {
            "recipe": recipe.name,
            "space": {key: value for key, value in flat(recipe).items() if key.startswith("search.space.")},
            "trials": trials,
            "small_trials": small_trials,
            "tokens": recipe.total_steps * recipe.train.batch_tokens,
            "seeds": fresh_seeds(recipe, seeds),
            "seeds_are": "fresh: no trial that chose the carried or the direct values had them",
            "bound_percent": BOUND_PERCENT,
            "sizes": sizes,
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


@dataclass(frozen=True)
class Comparison:
    """The searches and runs of one folder."""

    recipe: Recipe
    """The small model's, with the values that are carried over."""
    folder: Path
    at_once: int
    """Runs of one shape that are trained together."""
    say: Say
    train: Trainer

    def search(self, width: int, trials: int, workers: int, accept_code: bool) -> dict[str, Any]:
        """Search at a width, and return the answer with the loss of each trial that was trained to its end."""
        recipe = self._at(width)
        recipe = replace(recipe, {"seed": recipe.seed + OTHER_SEED + width})
        out = self._folder_of(recipe)
        answer = run_search(recipe, trials, out, None, workers, self.at_once, accept_code, self.train)
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

    def size(self, width: int, found: dict[str, Any], seeds: Sequence[int], sizes: int) -> dict[str, Any]:
        """Train what is not there yet of both sets of values at a width, one of ``sizes``, and return their comparison."""
        own = flat(self.recipe)
        carried = {key: own[key] for key in found["values"]}
        ours = self._losses("carried", width, carried, seeds)
        theirs = self._losses(f"trial-{found['chosen_trial']}", width, found["values"], seeds)
        return {
            "width": width,
            "layers": self.recipe.model.num_hidden_layers,
            "parameters": parameter_count(self._at(width).model),
            "carried": {"values": carried, **_side(ours)},
            "direct": {**found, **_side(theirs)},
            **compare(ours, theirs, sizes),
        }

    def _losses(self, what: str, width: int, values: dict[str, Value], seeds: Sequence[int]) -> dict[int, float | None]:
        done = {run.place: run for run in self._runs()}
        missing = [seed for seed in seeds if _place(width, values, seed) not in done]
        for start in range(0, len(missing), self.at_once):
            group = missing[start : start + self.at_once]
            for run in self._train(what, width, values, group):
                done[run.place] = run
                self.say(what, run)
        return {seed: done[_place(width, values, seed)].loss for seed in seeds}

    def _train(self, what: str, width: int, values: dict[str, Value], seeds: Sequence[int]) -> list[Run]:
        recipe = drawn(self._at(width), values)
        recipes = [replace(recipe, {"seed": seed, "name": f"{recipe.name}-{what}-{seed}"}) for seed in seeds]
        runs = []
        for one, result in zip(recipes, self.train(recipes, self.folder / TRIALS, None), strict=True):
            loss = result.loss if math.isfinite(result.loss) else None
            runs.append(Run(width, values, one.seed, loss, round(result.seconds, 3)))
            append_json_line(self.folder / RUNS_FILE, asdict(runs[-1]))
            shutil.rmtree(self.folder / TRIALS / one.name, ignore_errors=True)
        return runs

    def _runs(self) -> list[Run]:
        path = self.folder / RUNS_FILE
        try:
            return [Run(**row) for row in read_json_lines(path)]
        except TypeError as error:
            raise XmodelError(f"{path}: a line is not a finished run ({error}); remove it") from None

    def _at(self, width: int) -> Recipe:
        recipe = at_width(self.recipe, width)
        return replace(recipe, {"name": f"{recipe.name}-{size_name(recipe.model)}"})

    def _folder_of(self, recipe: Recipe) -> Path:
        return self.folder / size_name(recipe.model)


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


def _place(width: int, values: Mapping[str, Value], seed: int) -> tuple[int, str, int]:
    return width, json.dumps(values, sort_keys=True), seed
