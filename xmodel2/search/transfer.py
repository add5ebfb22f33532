"""Do hyperparameters carry over? Sweeps over width, depth, batch and length, each optimum's drift, and what is not carried.

recipe -> sweeps -> cells.jsonl -> drift of each optimum -> transfer.json, figures
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from xmodel2.errors import XmodelError, nearest
from xmodel2.files import alone_in, write_json_atomic, write_text_atomic
from xmodel2.recipe import Recipe
from xmodel2.search.optimum import Drift, drift
from xmodel2.search.setting import same_setting
from xmodel2.search.sweep import CELLS_FILE, RATE, TRIALS, Cell, Sweep, cell_recipe, cells_at, read_cells, run_sweep
from xmodel2.search.transfer_figure import sweep_figure
from xmodel2.search.trials import TrialResult, train_trials

RESULT_FILE = "transfer.json"

KEYS_AND_AXES = {
    "learning_rate-width": (RATE, "width"),
    "learning_rate-depth": (RATE, "depth"),
    "scale_emb-width": ("model.scale_emb", "width"),
    "scale_depth-depth": ("model.scale_depth", "depth"),
    "learning_rate-batch": (RATE, "batch"),
    "learning_rate-length": (RATE, "length"),
}
"""Sweeps by name: the key whose optimum is looked for, and what grows."""

STANDARD_OCTAVES = (-3.0, -2.0, -1.0, 0.0, 1.0)
"""Where the rate is first looked for under the standard rules, which want lower ones."""

HALF_AN_OCTAVE = 0.5
"""Drift below which an optimum counts as carried over."""


def sweeps_of(
    widths: Sequence[int],
    depths: Sequence[int],
    batches: Sequence[int],
    lengths: Sequence[int],
    octaves: Sequence[float] = (),
) -> dict[str, list[Sweep]]:
    """Return the sweeps by name; each is made under tensor programs, those of the rate under the standard rules too.

    With ``octaves`` these values are tried with every seed, and none beyond them.
    """
    sizes = {"width": widths, "depth": depths, "batch": batches, "length": lengths}
    found = {}
    for name, (key, axis) in KEYS_AND_AXES.items():
        found[name] = [Sweep(name, key, axis, tuple(sorted(sizes[axis])))]
        if key == RATE and axis in ("width", "depth"):
            standard = dataclasses.replace(found[name][0], parametrization="standard", octaves=STANDARD_OCTAVES)
            found[name].append(standard)
        if octaves:
            tried = tuple(sorted({*octaves}))
            found[name] = [dataclasses.replace(sweep, octaves=tried, every=True) for sweep in found[name]]
    return {name: sweeps for name, sweeps in found.items() if len(sweeps[0].sizes) > 1}


def pick(sweeps: dict[str, list[Sweep]], names: Sequence[str]) -> list[Sweep]:
    """Return the sweeps that are asked for, all without names. Raises `XmodelError` for an unknown one."""
    for name in names:
        if name not in sweeps:
            raise XmodelError(f"--sweeps {name!r}: allowed are {', '.join(sweeps)}.{nearest(name, list(sweeps))}")
    return [sweep for name in (names or sweeps) for sweep in sweeps[name]]


def run_transfer(
    recipe: Recipe,
    sweeps: Sequence[Sweep],
    seeds: int,
    out: Path,
    say: Callable[[Cell], None] = lambda _: None,
    at_once: int = 1,
) -> dict[str, Any]:
    """Make the sweeps' trials that ``out`` does not have yet, and return (and write to ``out/transfer.json``) the drifts.

    Raises `XmodelError` if ``out`` began with another recipe or other data, or a size does not fit the recipe.
    """
    out = Path(out)

    def run(candidates: list[Recipe]) -> list[TrialResult]:
        return train_trials(candidates, out / TRIALS)

    for sweep in sweeps:  # what does not fit is said before the first trial
        for size in sweep.sizes:
            for cell in cells_at(recipe, sweep, size, [(octave, recipe.seed) for octave in sweep.octaves]):
                cell_recipe(recipe, sweep, cell)
    with alone_in(out):
        recipe = same_setting(recipe, out)
        for sweep in sweeps:
            for cell in run_sweep(recipe, sweep, range(recipe.seed, recipe.seed + seeds), out, run, at_once):
                say(cell)
        return summarise(recipe, out)


def summarise(recipe: Recipe, out: Path) -> dict[str, Any]:
    """Return the drift of every sweep that ``out`` has cells of; write it, and a figure of each."""
    groups: dict[tuple[str, str], list[Cell]] = {}
    for cell in read_cells(Path(out) / CELLS_FILE):
        groups.setdefault((cell.sweep, cell.parametrization), []).append(cell)
    found = [
        {"sweep": name, "parametrization": rules, **dataclasses.asdict(moved), "verdict": verdict(moved)}
        for (name, rules), cells in groups.items()
        for moved in [drift(cells)]
    ]
    trials = [cell for cells in groups.values() for cell in cells]
    result = {
        "recipe": recipe.name,
        "trials": len(trials),
        "seconds": sum(cell.seconds for cell in trials),
        "sweeps": found,
    }
    write_json_atomic(Path(out) / RESULT_FILE, result)
    figures = Path(out) / "figures"
    figures.mkdir(exist_ok=True)
    for name in dict.fromkeys(name for name, _ in groups):
        cells = [cell for (sweep, _), part in groups.items() if sweep == name for cell in part]
        key, axis = KEYS_AND_AXES[name]
        write_text_atomic(figures / f"{name}.svg", sweep_figure(cells, key, axis))
    return result


def verdict(moved: Drift) -> str:
    """Say whether an optimum carries over: "held", "not held", or "not told": by one seed, an edge, or an interval with both."""
    if moved.octaves is None:
        return "not told: fewer than two sizes have a loss"
    if any(optimum.at_edge for optimum in moved.optima):
        return "not told: a best value is at the edge of those tried, or beside one that diverged"
    if moved.interval is None:
        return "not told: one seed has no interval"
    low, high = moved.interval
    if max(abs(low), abs(high)) <= HALF_AN_OCTAVE:
        return "held"
    if low > HALF_AN_OCTAVE or high < -HALF_AN_OCTAVE:
        return "not held"
    return "not told: the interval has both"
