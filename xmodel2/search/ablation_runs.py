"""An ablation's runs: every arm at the same peak rates with the first seed, then its two best rates with the other seeds.

    arms x rates (first seed)  ->  two best of each  ->  x other seeds  ->  a line each in results.jsonl  ->  ablation.json

Several processes may work in one folder; each takes what no other has. A kill loses the runs in progress: those that are trained
as one begin anew, one that is alone goes on at its last checkpoint.
"""

import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from xmodel2.data.shards import data_fingerprint, read_index
from xmodel2.errors import XmodelError
from xmodel2.files import append_json_line, having, read_json_lines, write_json_atomic, write_text_atomic
from xmodel2.model.count import block_parameter_count, parameter_count
from xmodel2.recipe import Recipe
from xmodel2.search.ablation import AblationSettings, Arm, arms_of
from xmodel2.search.ablation_figure import ablation_figure
from xmodel2.search.ablation_summary import Row, common_rates, promising_rates, summarise
from xmodel2.search.ablation_text import bits_per_byte, tokenizer_kind
from xmodel2.search.setting import same_setting
from xmodel2.search.trial import TrialResult
from xmodel2.search.trials import train_trials

RESULTS_FILE, RESULT_FILE, FIGURE_FILE, TRIALS = "results.jsonl", "ablation.json", "figures/ablation.svg", "trials"

Say = Callable[[str], None]
Place = tuple[str, float, int]
"""Arm, rate and seed of a run."""


def run_ablation(recipe: Recipe, settings: AblationSettings, out: Path, say: Say = lambda text: None) -> dict[str, Any]:
    """Make what ``out`` lacks, write ablation.json and figures/ablation.svg, and return what ablation.json says.

    Raises `XmodelError`, before anything is trained, for an arm that can't be made or was another one in an earlier call, and
    if ``out`` began with another recipe or other data; KeyboardInterrupt if a signal stopped it.
    """
    settings = settings.checked()
    _check(recipe, settings)
    runs = AblationRuns(recipe, settings, out, say)
    runs.make()
    found = summarise(runs.recipe, runs.rows())
    write_json_atomic(out / RESULT_FILE, found)
    write_text_atomic(out / FIGURE_FILE, ablation_figure(found))
    return found


class AblationRuns:
    """The folder of an ablation: recipe.toml, results.jsonl, trials/."""

    def __init__(self, recipe: Recipe, settings: AblationSettings, out: Path, say: Say) -> None:
        """Raises `XmodelError` as `run_ablation`."""
        self.out, self.settings, self.say = Path(out), settings, say
        self.recipe = same_setting(recipe, self.out)
        self.comparisons = arms_of(self.recipe, settings)
        self.arms = {arm.name: arm for arms in self.comparisons.values() for arm in arms}
        self.seeds = range(recipe.seed, recipe.seed + settings.seeds)
        folders = {self._recipe(name).data.dir for name in self.arms}
        self.data = {folder: data_fingerprint(folder) for folder in folders}
        self.tokenizers = {folder: tokenizer_kind(folder) for folder in folders}
        self._seconds, self._made = 0.0, 0
        self._check_arms()

    def rows(self) -> list[Row]:
        """Return the results so far, each run once; a line torn by a kill is passed over."""
        return list({row["name"]: row for row in read_json_lines(self.out / RESULTS_FILE)}.values())

    def make(self) -> None:
        """Make the runs that have no result yet; returns when all have one, those that other processes make too."""
        first, others = self.seeds[0], self.seeds[1:]
        self._make([[(name, rate, first) for rate in self.settings.rates] for name in self.arms])
        rows, wanted = self.rows(), dict[tuple[str, float], None]()
        for arms in self.comparisons.values():
            names = [arm.name for arm in arms]
            rates = common_rates(rows, names, first)
            wanted |= {(name, rate): None for name in names for rate in promising_rates(rows, name, rates, first)}
        self._make([[(name, rate, seed) for seed in others] for name, rate in wanted])

    def _make(self, groups: Sequence[Sequence[Place]]) -> None:
        """Make groups of runs of one arm; who holds an arm's lock, which the system frees when a process ends, makes its runs."""
        wait = 0.0
        while left := [missing for group in groups if (missing := self._missing(group))]:
            for group in left:
                with having(self.out / "locks" / f"{group[0][0]}.lock", wait) as alone:
                    if alone:
                        self._train(group, groups)
            wait = 1.0

    def _train(self, group: Sequence[Place], groups: Sequence[Sequence[Place]]) -> None:
        """Train what a group lacks, up to `at_once` together, and append their rows."""
        while part := self._missing(group)[: self.settings.at_once]:
            recipes = [self._recipe(*place) for place in part]
            begin = time.perf_counter()
            results = train_trials(recipes, self.out / TRIALS)
            self._seconds, self._made = self._seconds + time.perf_counter() - begin, self._made + len(part)
            for place, recipe, result in zip(part, recipes, results, strict=True):
                row = self._row(self.arms[place[0]], place[1], recipe, result)
                append_json_line(self.out / RESULTS_FILE, row)
                shutil.rmtree(self.out / TRIALS / recipe.name, ignore_errors=True)
                self.say(f"{recipe.name}: {_said(row)}")
            ahead = sum(len(self._missing(other)) for other in groups)
            self.say(f"{ahead} runs left here: about {ahead * self._seconds / self._made:.0f} s")

    def _missing(self, group: Sequence[Place]) -> list[Place]:
        there = {(row["arm"], row["rate"], row["seed"]) for row in self.rows()}
        return [place for place in group if place not in there]

    def _recipe(self, name: str, rate: float = 1.0, seed: int | None = None) -> Recipe:
        return self.arms[name].recipe(self.recipe, rate, seed)

    def _row(self, arm: Arm, rate: float, recipe: Recipe, result: TrialResult) -> Row:
        ended = result.ended or ("" if math.isfinite(result.loss) else "diverged: the held-out loss is not finite")
        sources = read_index(recipe.data.dir)["sources"]
        return {
            "name": recipe.name,
            "arm": arm.name,
            "comparison": arm.comparison,
            "changes": dict(arm.changes),
            "seed": recipe.seed,
            "rate": rate,
            "learning_rate": recipe.train.learning_rate,
            "loss": None if ended else result.loss,
            "bits_per_byte": None if ended else bits_per_byte(sources, result.heldout),
            "heldout": {} if ended else result.heldout,
            "layers": recipe.model.num_hidden_layers,
            "parameters": block_parameter_count(recipe.model),
            "parameters_total": parameter_count(recipe.model),
            "tokens": recipe.total_steps * recipe.train.batch_tokens,
            "data": self.data[recipe.data.dir],
            "tokenizer": self.tokenizers[recipe.data.dir],
            "seconds": result.seconds,
            "ended": ended,
        }

    def _check_arms(self) -> None:
        """An arm must be what it was in earlier calls; the folder of its data may have moved."""
        for row in self.rows():
            arm = self.arms.get(row["arm"])
            if arm is None:
                continue
            now = arm.comparison, _without_folder(arm.changes), self.data[self._recipe(arm.name).data.dir]
            if now != (row["comparison"], _without_folder(row["changes"]), row["data"]):
                raise XmodelError(
                    f"{self.out / RESULTS_FILE}: has runs of an arm {arm.name!r} that differs in other things"
                    f" ({_in_words(row['changes'])}, now {_in_words(arm.changes)}, or its data changed); give this one"
                    " another name, or choose another --out"
                )


def _check(recipe: Recipe, settings: AblationSettings) -> None:
    """Raise `XmodelError` for what would fail once training has begun: it would leave a folder that began with a mistake."""
    for arms in arms_of(recipe, settings).values():
        for arm in arms:
            arm.recipe(recipe)


def _without_folder(changes: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in changes.items() if key != "data.dir"}


def _in_words(changes: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} = {value!r}" for key, value in changes.items()) or "nothing"


def _said(row: Row) -> str:
    return row["ended"] or f"loss {row['loss']:.4f}; {row['seconds']:.0f} s"
