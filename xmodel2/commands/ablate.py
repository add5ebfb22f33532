"""The command that compares the recipe's architecture with others at equal tokens and equal search effort."""

from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from xmodel2.arguments import Flag, Overrides
from xmodel2.output import print_json, print_wide


def ablate(
    recipe: tyro.conf.Positional[Path],
    /,
    *,
    out: Path,
    set: Overrides = (),
    compare: tuple[str, ...] = (),
    rates: tuple[float, ...] = (0.5, 1.0, 2.0),
    seeds: int = 3,
    data: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=DIR"), tyro.conf.UseAppendAction] = (),
    arm: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME:KEY=VALUE,..."), tyro.conf.UseAppendAction] = (),
    trials_at_once: int = 4,
    json: Flag = False,
) -> None:
    """Compare the recipe's architecture with others, at equal tokens and with equal search of the learning rate.

    Example: xmodel2 ablate recipes/wind-tunnel.toml --compare embedding depth attention --out runs/ablate

    Resumable: run it again, with more comparisons, rates or seeds too. The same command in a second shell helps the first.

    Args:
        recipe: recipe file; what the others are compared with
        out: directory of results.jsonl, ablation.json and figures/
        set: override a key of the recipe; may be repeated
        compare: embedding (tied or not), depth (deep and thin against wide and shallow), attention (heads that share keys and
            values), tokenizer (needs --data), keys (needs --arm), or all (default: embedding, depth, attention, or those of
            --data and --arm alone)
        rates: peak rates that every arm tries with the first seed, as multiples of the recipe's
        seeds: runs of each arm at its best rate
        data: NAME=DIR: the same documents prepared with another tokenizer; may be repeated
        arm: NAME:key=value,key=value: an arm by hand; may be repeated
        trials_at_once: runs of one shape that are trained as one, at most
        json: print the results as one JSON object
    """
    from xmodel2.recipe import load_recipe
    from xmodel2.search.ablation import ARCHITECTURE, AblationSettings, parse_arms, parse_data
    from xmodel2.search.ablation_runs import run_ablation

    chosen = compare or (() if data or arm else ARCHITECTURE)
    settings = AblationSettings(chosen, rates, seeds, parse_data(data), parse_arms(arm), trials_at_once)
    console = Console(stderr=True, highlight=False)
    found = run_ablation(
        load_recipe(recipe, set), settings, out, lambda text: console.print(text, markup=False, soft_wrap=True)
    )
    print_json(found) if json else _print(found, out)


def _print(found: dict[str, Any], out: Path) -> None:
    """Print a table a comparison."""
    from xmodel2.search.ablation_runs import FIGURE_FILE, RESULT_FILE
    from xmodel2.search.ablation_summary import UNITS

    console = Console(highlight=False)
    for name, comparison in found["comparisons"].items():
        unit = UNITS[comparison["measure"]]
        head = ("arm", "in blocks", "in all", "tokens", "rate", unit, "less own", "95% interval", "percent", "seeds")
        tried = ", ".join(f"{rate:g}" for rate in comparison["rates"])
        table = Table(
            *head, title=f"{name}: peak rates of {tried} times the recipe's; less own above 0 is worse", box=None
        )
        table.title_justify = "left"
        for column in table.columns[1:]:
            column.justify = "right"
        for arm in comparison["arms"]:
            table.add_row(*(escape(cell) for cell in _cells(arm)))
        print_wide(table)
    if any(arm["at_edge"] for comparison in found["comparisons"].values() for arm in comparison["arms"]):
        said = "* best at the edge of the rates tried, or beside one that diverged: another may be better; give more --rates"
        console.print(said, soft_wrap=True)
    if not found["comparisons"]:
        said = (
            "Nothing to compare: the arms here were tried at no common rate; give the --rates of the earlier calls too"
        )
        console.print(said, soft_wrap=True)
    for name, why in found["diverged"].items():
        console.print(f"{name}: {why}", markup=False, soft_wrap=True)
    console.print(f"{out / RESULT_FILE}, {out / FIGURE_FILE}", markup=False, soft_wrap=True)


def _cells(arm: dict[str, Any]) -> list[str]:
    sizes = [f"{arm[key]:,}" for key in ("parameters", "parameters_total", "tokens")]
    if arm["mean"] is None:
        return [arm["name"], *sizes, "", "diverged", "", "", "", "0"]
    interval, percent = arm["interval"], arm["percent"]
    return [
        arm["name"],
        *sizes,
        f"{arm['rate']:g}{'*' if arm['at_edge'] else ''}",
        f"{arm['mean']:.4f}",
        "" if arm["difference"] is None else f"{arm['difference']:+.4f}",
        "" if interval is None else f"{interval[0]:+.4f} to {interval[1]:+.4f}",
        "" if percent is None else f"{percent:+.2f}%",
        str(len(arm["losses"])),
    ]
