"""The command that shows whether hyperparameters carry over to other sizes."""

from pathlib import Path

import tyro

from xmodel2.arguments import Flag, Overrides
from xmodel2.output import print_json


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
    seeds: int = 3,
    set: Overrides = (),
    json: Flag = False,
) -> None:
    """Show whether hyperparameters carry over to other widths, depths, batches and lengths; resumable.

    Example: xmodel2 transfer recipes/wind-tunnel.toml --widths 64,128,256,512,1024 --out runs/transfer

    Args:
        recipe: recipe file of the model at its own size
        out: directory of results; cells.jsonl has a line for each trial
        widths: hidden sizes, multiples of the recipe's head width
        depths: numbers of layers
        batches: tokens a batch, for the rate's optimum over batch size
        lengths: tokens of both stages together, for its optimum over the length of training
        sweeps: comma-separated names of sweeps (default: all that have at least two sizes)
        seeds: seeds of the best values and their neighbours
        set: override a key of the recipe; may be repeated
        json: print the drifts as one JSON object
    """
    from xmodel2.recipe import load_recipe
    from xmodel2.search.sweep import Cell
    from xmodel2.search.transfer import pick, run_transfer, sweeps_of

    def say(cell: Cell) -> None:
        if not json:
            print(
                f"{cell.sweep}  {cell.parametrization}  {cell.size}  value {cell.value:.4g}  seed {cell.seed}"
                f"  loss {cell.loss:.4f}  {cell.seconds:.0f} s",
                flush=True,
            )

    known = sweeps_of(
        _numbers(widths, "--widths"),
        _numbers(depths, "--depths"),
        _numbers(batches, "--batches"),
        _numbers(lengths, "--lengths"),
    )
    chosen = pick(known, [name for name in sweeps.split(",") if name])
    result = run_transfer(load_recipe(recipe, set), chosen, seeds, out, say)
    print_json(result)


def _numbers(text: str, name: str) -> list[int]:
    from xmodel2.errors import XmodelError

    try:
        return sorted({int(part.replace("_", "")) for part in text.split(",") if part.strip()})
    except ValueError:
        raise XmodelError(f"{name} {text!r}: write whole numbers with commas between, such as 64,128,256") from None
