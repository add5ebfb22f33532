"""A sweep: one hyperparameter tried at several values, at several sizes of the model or of the run, to see whether its best
value stays where it was.

    sweep = key, values, axis, sizes   ->   cells (rules, size, value, seed)   ->   trials   ->   a row each in cells.jsonl

Values are powers of two times the recipe's own, and go on outwards until the best is not at the edge.
"""

import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from xmodel2.errors import XmodelError
from xmodel2.files import append_json_line, read_json_lines
from xmodel2.recipe import Recipe
from xmodel2.recipe import replace as replace_keys
from xmodel2.search.rates import at_rate
from xmodel2.search.sizes import at_size
from xmodel2.search.trial import TrialResult

Run = Callable[[list[Recipe]], list[TrialResult]]
CELLS_FILE, TRIALS = "cells.jsonl", "trials"
RATE = "train.learning_rate"
"""The key whose sweeps move Muon's own rate by as much."""


@dataclass(frozen=True)
class Sweep:
    """One hyperparameter over one axis."""

    name: str
    key: str
    """Key of the recipe whose best value is looked for."""
    axis: str
    """What grows: width, depth, batch or length."""
    sizes: tuple[int, ...]
    """Hidden sizes, layers, tokens a batch, or tokens of both stages."""
    parametrization: str = "tensor_program"
    octaves: tuple[float, ...] = (-2, -1, 0, 1, 2)
    """Values tried at first, as powers of two times the recipe's."""
    most: int = 9
    """Values at a size, at most: then the best one may stay at the edge, and the result says so."""
    every: bool = False
    """Whether each of these values is tried with each seed at each size, and none beyond, so that all can be trained together."""


@dataclass(frozen=True)
class Cell:
    """One trial of a sweep, and what it gave."""

    sweep: str
    parametrization: str
    size: int
    octave: float
    value: float
    seed: int
    loss: float = math.nan
    seconds: float = 0.0

    @property
    def place(self) -> tuple[str, str, int, float, int]:
        """What the trial is, without what it gave."""
        return self.sweep, self.parametrization, self.size, self.octave, self.seed


def resized(recipe: Recipe, axis: str, size: int) -> Recipe:
    """Return the recipe at another size of an axis; stages keep their proportion. Raises `XmodelError`."""
    if axis in ("width", "depth"):
        return at_size(recipe, axis, size)
    if axis == "batch":
        rows = max(1, size // recipe.data.sequence_length)
        sizes = {"train.batch_tokens": size, "train.micro_batch_size": math.gcd(rows, recipe.train.micro_batch_size)}
        return replace_keys(recipe, {**sizes, **_stretched(recipe, recipe.train.batch_tokens / size)})
    train, stable, decay = recipe.train, recipe.stages.stable.tokens, recipe.stages.decay.tokens
    least = math.ceil(train.batch_tokens * (stable + decay) / min(tokens for tokens in (stable, decay) if tokens))
    if size < least:
        raise XmodelError(
            f"--lengths {size:,}: leaves less than a step (train.batch_tokens = {train.batch_tokens:,}) for the stable stage or the"
            f" decay; give at least {least:,}"
        )
    share = size / (stable + decay)
    tokens = {
        f"stages.{name}.tokens": round(getattr(recipe.stages, name).tokens * share) for name in ("stable", "decay")
    }
    return replace_keys(recipe, {**tokens, **_stretched(recipe, share)})


def _stretched(recipe: Recipe, share: float) -> dict[str, int]:
    """Return what of the schedule is in steps, for a run of ``share`` times as many steps."""
    train = recipe.train
    return {
        "train.warmup_steps": max(1, round(train.warmup_steps * share)),
        "train.decay_half_life_steps": max(1, round(train.decay_half_life_steps * share)),
    }


def own_value(recipe: Recipe, key: str) -> float:
    """Return what a recipe has for a dotted key."""
    value: Any = recipe
    for part in key.split("."):
        value = getattr(value, part)
    return float(value)


def cells_at(recipe: Recipe, sweep: Sweep, size: int, wanted: Sequence[tuple[float, int]]) -> list[Cell]:
    """Return the cells of a size for (octave, seed), yet to be made."""
    base = own_value(recipe, sweep.key)
    return [Cell(sweep.name, sweep.parametrization, size, octave, base * 2.0**octave, seed) for octave, seed in wanted]


def cell_recipe(recipe: Recipe, sweep: Sweep, cell: Cell) -> Recipe:
    """Return the recipe of a cell."""
    name = f"{sweep.name}-{cell.parametrization}-{cell.size}-{cell.octave:g}-{cell.seed}"
    keys = {"name": name, "seed": cell.seed, "model.parametrization": cell.parametrization, sweep.key: cell.value}
    sized = resized(recipe, sweep.axis, cell.size)
    if sweep.key == RATE:
        sized = at_rate(sized, 2.0**cell.octave)
    return replace_keys(sized, keys)


def read_cells(path: Path) -> list[Cell]:
    """Read the cells that are done; a last line cut off by a kill is left out. Raises `XmodelError` for any other."""
    cells = []
    for number, row in enumerate(read_json_lines(path), 1):
        try:
            cells.append(Cell(**{**row, "loss": math.nan if row["loss"] is None else row["loss"]}))
        except (TypeError, KeyError) as error:
            raise XmodelError(f"{path}, line {number}: not a finished cell ({error}); remove the line") from None
    return cells


def run_sweep(
    recipe: Recipe, sweep: Sweep, seeds: Sequence[int], out: Path, run: Run, at_once: int = 1
) -> Iterator[Cell]:
    """Yield the cells of a sweep as they are done, those of earlier calls too; ``out/cells.jsonl`` keeps them.

    A trial is run for each value with the first seed, until the best is bracketed; then the other seeds, for the best and its
    neighbours. A size begins where the best of the last one was, and with the recipe's own value; or all is tried, if the sweep
    says ``every``. Up to ``at_once`` trials are handed to ``run`` together.
    """
    path = Path(out) / CELLS_FILE
    done = {cell.place: cell for cell in read_cells(path)}

    def made(size: int, wanted: Sequence[tuple[float, int]]) -> Iterator[Cell]:
        cells = cells_at(recipe, sweep, size, wanted)
        missing = [cell for cell in cells if cell.place not in done]
        for start in range(0, len(missing), at_once):
            group = missing[start : start + at_once]
            candidates = [cell_recipe(recipe, sweep, cell) for cell in group]
            for cell, candidate, result in zip(group, candidates, run(candidates), strict=True):
                done[cell.place] = replace(cell, loss=result.loss, seconds=result.seconds)
                _append(path, done[cell.place])
                shutil.rmtree(Path(out) / TRIALS / candidate.name, ignore_errors=True)
                yield done[cell.place]
        yield from (done[cell.place] for cell in cells if cell not in missing)

    begin = sweep.octaves
    for size in sweep.sizes:
        if sweep.every:
            yield from made(size, [(octave, seed) for octave in sweep.octaves for seed in seeds])
            continue
        losses: dict[float, float] = {}
        for octaves in _outwards(sweep, begin, losses):
            for cell in made(size, [(octave, seeds[0]) for octave in octaves]):
                losses[cell.octave] = cell.loss if math.isfinite(cell.loss) else math.inf
                yield cell
        best = min(losses, key=lambda octave: losses[octave])
        near = sorted(losses, key=lambda octave: abs(octave - best))[:3]
        yield from made(size, [(octave, seed) for seed in seeds[1:] for octave in near])
        begin = tuple(sorted({*near, 0.0}))


def _outwards(sweep: Sweep, begin: tuple[float, ...], losses: dict[float, float]) -> Iterator[tuple[float, ...]]:
    """Yield octaves: first ``begin``, then beyond the edge at which the best is, until its neighbours on both sides are there."""
    yield begin
    step = sweep.octaves[1] - sweep.octaves[0] if len(sweep.octaves) > 1 else 1.0
    while len(losses) < sweep.most:
        best = min(losses, key=lambda octave: losses[octave])
        if math.isinf(losses[best]):
            yield (min(losses) - step,)
        elif missing := [octave for octave in (best - step, best + step) if octave not in losses]:
            yield (missing[0],)
        else:
            return


def _append(path: Path, cell: Cell) -> None:
    append_json_line(path, {**cell.__dict__, "loss": cell.loss if math.isfinite(cell.loss) else None})
