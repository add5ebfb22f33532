"""The command that shows whether hyperparameters carry over to other sizes."""

from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from rich.table import Table

from xmodel2.arguments import Flag, Overrides, numbers
from xmodel2.errors import XmodelError
from xmodel2.output import print_json

COORDINATE = "coordinate"
"""Name of the coordinate check among the sweeps."""


def transfer(
    recipe: tyro.conf.Positional[Path],
    /,
    *,
    out: Path,
    widths: str = "64,128,256,512",
    depths: str = "2,4,8",
    batches: str = "",
    lengths: str = "",
    sweeps: str = "",
    octaves: str = "",
    seeds: int = 3,
    check_seeds: int = 8,
    trials_at_once: int = 1,
    direct_trials: int = 0,
    direct_seeds: int = 3,
    workers: int = 1,
    accept_code: Flag = False,
    set: Overrides = (),
    json: Flag = False,
) -> None:
    """Show whether hyperparameters carry over to other widths, depths, batches and lengths; resumable.

    Example: xmodel2 transfer recipes/wind-tunnel.toml --widths 64,128,256,512,1024 --out runs/transfer

    Against a direct search: xmodel2 transfer runs/search/best.toml --direct-trials 120 --widths 96,128 --out runs/direct

    Args:
        recipe: recipe file of the model at its own size
        out: directory of results; cells.jsonl has a line for each trial, figures/ a figure for each sweep
        widths: hidden sizes, multiples of the recipe's head width
        depths: numbers of layers
        batches: tokens a batch, for the rate's optimum over batch size
        lengths: tokens of both stages together, for its optimum over the length of training
        sweeps: comma-separated from coordinate (the check of activations), learning_rate-width, learning_rate-depth,
            scale_emb-width, scale_depth-depth, learning_rate-batch, learning_rate-length (default: all with two sizes)
        octaves: values tried at every size with every seed, as octaves from the recipe's own (-2,-1,0,1,2), for a GPU that trains
            many at once; without it, the best is looked for, and only it and its neighbours get all seeds
        seeds: seeds of the best values and their neighbours, or of all --octaves
        check_seeds: seeds of each model of the coordinate check
        trials_at_once: trials of one shape that are trained as one, for a GPU that a small model leaves idle
        direct_trials: trials of a search at each of the widths, with whose answer the recipe's own values are compared; without
            --sweeps nothing else is done. Give as many as the search had that found the recipe's values
        direct_seeds: seeds of that comparison, none of which either search has seen
        workers: processes that share the trials of a direct search and the runs of its comparison
        accept_code: go on with a direct search although the code changed since it began
        set: override a key of the recipe; may be repeated
        json: print everything as one JSON object
    """
    from xmodel2.recipe import load_recipe
    from xmodel2.search.coordinate_run import check_sizes, run_coordinate_check
    from xmodel2.search.direct import check_direct, run_direct, trials_of
    from xmodel2.search.direct_runs import Run
    from xmodel2.search.sweep import Cell
    from xmodel2.search.transfer import pick, run_transfer, sweeps_of

    counts = {"--seeds": seeds, "--check-seeds": check_seeds, "--trials-at-once": trials_at_once}
    counts |= {"--direct-seeds": direct_seeds, "--workers": workers}
    for flag, number in counts.items():
        if number < 1:
            raise XmodelError(f"{flag} {number}: must be at least 1")
    if direct_trials < 0:
        raise XmodelError(f"--direct-trials {direct_trials}: must be at least 1, or 0 for no direct search")
    settings = load_recipe(recipe, set)
    names = [name for name in sweeps.split(",") if name]
    given = {"widths": widths, "depths": depths, "batches": batches, "lengths": lengths}
    sizes = {option: sorted({*numbers(option, text, int)}) for option, text in given.items()}
    wide, deep = sizes["widths"], sizes["depths"]
    tried = numbers("octaves", octaves, float, signed=True)
    if 0 < len({*tried}) < 3:
        raise XmodelError(
            f"--octaves {octaves!r}: give at least three, since a best value has neighbours on both sides"
        )
    if not all(abs(octave) <= 30 for octave in tried):
        raise XmodelError(f"--octaves {octaves!r}: an octave is a factor of two; give numbers from -30 to 30")
    known = sweeps_of(**sizes, octaves=tried)
    named = [name for name in names if name != COORDINATE]
    everything = not names and not direct_trials
    chosen = pick(known, named) if named or everything else []
    checked = COORDINATE in names or (everything and len(wide) > 1 and len(deep) > 1)
    if not chosen and not checked and not direct_trials:
        raise XmodelError("nothing to do: give at least two of --widths, --depths, --batches or --lengths")
    if checked:
        check_sizes(wide, deep)
    if direct_trials:
        check_direct(settings, wide)
    console = Console(stderr=True, quiet=json, highlight=False)

    def say(cell: Cell) -> None:
        console.print(
            f"{cell.sweep}  {cell.parametrization}  {cell.size}  value {cell.value:.4g}  seed {cell.seed}"
            f"  loss {cell.loss:.4f}  {cell.seconds:.0f} s",
            soft_wrap=True,
        )

    def progress(what: str, done: int, total: int) -> None:
        console.print(f"coordinate check: {what}  ({done} of {total})", soft_wrap=True)

    def said(what: str, run: Run) -> None:
        loss = "diverged" if run.loss is None else f"loss {run.loss:.4f}"
        console.print(f"{run.width} wide  {what}  seed {run.seed}  {loss}  {run.seconds:.0f} s", soft_wrap=True)

    result: dict[str, Any] = {}
    if chosen:
        result = run_transfer(settings, chosen, seeds, out, say, trials_at_once)
    if checked:
        result[COORDINATE] = run_coordinate_check(settings, out, wide, deep, check_seeds, progress=progress)["cases"]
    if direct_trials:
        result["direct"] = run_direct(
            settings,
            wide,
            direct_trials,
            direct_seeds,
            out,
            workers,
            trials_at_once,
            accept_code,
            trials_of(recipe),
            said,
        )
    print_json(result) if json else _show(result, out)


def _show(result: dict[str, Any], out: Path) -> None:
    console = Console()
    if sweeps := result.get("sweeps"):
        table = Table("sweep", "rules", "optimum at each size, octaves", "drift, octaves", "carried over?")
        for sweep in sweeps:
            optima = ", ".join(f"{one['size']}: {_octaves(one['octave'])}" for one in sweep["optima"])
            drift = _octaves(sweep["octaves"])
            if sweep["interval"]:
                drift += f" ({sweep['interval'][0]:+.2f} to {sweep['interval'][1]:+.2f})"
            table.add_row(sweep["sweep"], sweep["parametrization"].replace("_", " "), optima, drift, sweep["verdict"])
        console.print(table)
    if cases := result.get(COORDINATE):
        table = Table("coordinate check", "held", "violated")
        for name, case in cases.items():
            violated = sorted({finding["criterion"] for finding in case["violated"]})
            table.add_row(name, "yes" if case["held"] else "no", ", ".join(violated))
        console.print(table)
    if direct := result.get("direct"):
        _show_direct(direct, console)
    console.print(f"figures: {out / 'figures'}")


def _show_direct(direct: dict[str, Any], console: Console) -> None:
    table = Table("width", "parameters", "carried over", "best of a search there", "lost, percent", "within the bound?")
    for size in direct["sizes"]:
        means = [_loss(size[side]["mean"]) for side in ("carried", "direct")]
        lost = "" if size["percent"] is None else f"{size['percent']:+.2f}"
        if size["percent_interval"]:
            lost += " ({:+.2f} to {:+.2f})".format(*size["percent_interval"])
        table.add_row(str(size["width"]), f"{size['parameters']:,}", *means, lost, size["verdict"])
    console.print(table)
    for line in direct.get("lost_workers", []):
        console.print(line, style="red", markup=False, soft_wrap=True)
    small = direct["small_trials"]
    found = "" if small is None else f"; the search that found the carried values had {small}"
    console.print(
        f"bound {direct['bound_percent']}%: {direct['verdict']}. Means of seeds {', '.join(map(str, direct['seeds']))},"
        f" of which no search knew; {direct['trials']} trials at each width{found}",
        highlight=False,
        soft_wrap=True,
    )


def _loss(mean: float | None) -> str:
    return "diverged" if mean is None else f"{mean:.4f}"


def _octaves(value: float | None) -> str:
    return "diverged" if value is None else f"{value:+.2f}"
