"""The runs of a comparison with a direct search: both sides' values, trained with the same seeds, by one process or several.

values, seeds -> those without a line in results.jsonl -> trained, a lock for each -> results.jsonl
"""

import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from xmodel2.errors import XmodelError
from xmodel2.files import append_json_line, having, read_json_lines
from xmodel2.recipe import Recipe
from xmodel2.recipe import replace as replace_keys
from xmodel2.recipe.search import Value
from xmodel2.search.sizes import at_width, size_name
from xmodel2.search.space import drawn
from xmodel2.search.study_trials import Trainer
from xmodel2.search.sweep import TRIALS
from xmodel2.search.workers import share_work

RUNS_FILE, LOCKS = "results.jsonl", "locks"


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
Sides = Mapping[str, Mapping[str, Value]]
"""Name of a side, "carried" or that of a direct search's trial, to its values."""
Missing = tuple[str, Mapping[str, Value], Sequence[int]]
"""Name of a side, its values, seeds of which at least one is to be trained."""


def say_nothing(what: str, run: Run) -> None:
    """Be the `Say` of a process that nobody looks at."""


@dataclass(frozen=True)
class Runs:
    """The runs of one folder."""

    recipe: Recipe
    """The small model's; each width's is made from it."""
    folder: Path
    at_once: int
    """Runs of one shape that are trained together."""
    train: Trainer
    say: Say = say_nothing
    lost: list[str] = field(default_factory=list)
    """What became of processes that did not come to their end."""
    _said: set[tuple[int, str, int]] = field(default_factory=set)

    def losses(self, width: int, sides: Sides, seeds: Sequence[int], workers: int = 1) -> list[dict[int, float | None]]:
        """Return each side's loss by seed, made with as many processes as asked for; what those leave is made here.

        Raises `XmodelError` for a line of results.jsonl that is not a run, and if no process comes to its end.
        """
        self._said.update(run.place for run in self._made())
        if workers > 1 and len([*self._missing(width, sides, seeds)]) > 1:
            helper = replace(self, say=say_nothing)
            given = (helper, width, sides, seeds)
            self.lost.extend(share_work(_help, given, workers, self.folder, lambda: self._tell(width, sides)))
        self.make(width, sides, seeds, wait=True)
        made = {run.place: run.loss for run in self._made()}
        return [{seed: made[_place(width, values, seed)] for seed in seeds} for values in sides.values()]

    def make(self, width: int, sides: Sides, seeds: Sequence[int], wait: bool) -> None:
        """Make the runs that are not there and that nobody else is at; with ``wait`` those too, once they are left."""
        for what, values, missing in self._missing(width, sides, seeds):
            with having(self.folder / LOCKS / f"{width}-{what}-{missing[0]}.lock", -1 if wait else 0) as alone:
                there = {run.place for run in self._made()}
                left = [seed for seed in missing if _place(width, values, seed) not in there]
                if alone and left:
                    self._train(what, width, values, left)
            self._tell(width, sides)

    def _missing(self, width: int, sides: Sides, seeds: Sequence[int]) -> Iterator[Missing]:
        """Yield what is to be trained together, the same groups in every process; values that both sides have once."""
        there, others = {run.place for run in self._made()}, list[Mapping[str, Value]]()
        for what, values in sides.items():
            if values in others:
                continue
            others.append(values)
            for start in range(0, len(seeds), self.at_once):
                group = seeds[start : start + self.at_once]
                if any(_place(width, values, seed) not in there for seed in group):
                    yield what, values, group

    def _train(self, what: str, width: int, values: Mapping[str, Value], seeds: Sequence[int]) -> None:
        recipe = drawn(self.at(width), dict(values))
        recipes = [replace_keys(recipe, {"seed": seed, "name": f"{recipe.name}-{what}-{seed}"}) for seed in seeds]
        for one, result in zip(recipes, self.train(recipes, self.folder / TRIALS, None), strict=True):
            loss = result.loss if math.isfinite(result.loss) else None
            run = Run(width, dict(values), one.seed, loss, round(result.seconds, 3))
            append_json_line(self.folder / RUNS_FILE, asdict(run))
            shutil.rmtree(self.folder / TRIALS / one.name, ignore_errors=True)

    def _tell(self, width: int, sides: Sides) -> None:
        names = {json.dumps(values, sort_keys=True): what for what, values in reversed([*sides.items()])}
        for run in self._made():
            if run.place not in self._said and run.width == width and run.place[1] in names:
                self._said.add(run.place)
                self.say(names[run.place[1]], run)

    def _made(self) -> list[Run]:
        path = self.folder / RUNS_FILE
        try:
            return [Run(**row) for row in read_json_lines(path)]
        except TypeError as error:
            raise XmodelError(f"{path}: a line is not a finished run ({error}); remove it") from None

    def at(self, width: int) -> Recipe:
        """Return the recipe at a width."""
        recipe = at_width(self.recipe, width)
        return replace_keys(recipe, {"name": f"{recipe.name}-{size_name(recipe.model)}"})


def _help(runs: Runs, width: int, sides: Sides, seeds: Sequence[int]) -> None:
    runs.make(width, sides, seeds, wait=False)


def _place(width: int, values: Mapping[str, Value], seed: int) -> tuple[int, str, int]:
    return width, json.dumps(values, sort_keys=True), seed
