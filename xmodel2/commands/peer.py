"""The command that compares our training with a plain transformers Trainer."""

from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from xmodel2.arguments import Flag, Overrides
from xmodel2.output import print_wide


def peer(
    recipe: tyro.conf.Positional[Path],
    /,
    *,
    out: Path,
    set: Overrides = (),
    rates: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0),
    peer_rates: tuple[float, ...] = (3e-4, 1e-3, 3e-3, 1e-2),
    widen: int = 2,
    seeds: int = 3,
    lengths: tuple[float, ...] = (0.3, 0.45, 0.6, 0.8, 1.0),
    rounds: int = 7,
    json: Flag = False,
) -> None:
    """Train the recipe beside a plain transformers Trainer on the same rows: loss at equal tokens, and tokens-time to its loss.

    Example: xmodel2 peer recipes/wind-tunnel.toml --out runs/peer --set stages.decay.sft_share=0

    Resumable: run it again, with more seeds, rates or lengths too. The Trainer has its defaults (AdamW, clipping at 1) and a
    cosine over the recipe's whole length, for LlamaForCausalLM of the same sizes. Losses of text compare best without
    instruction data in the decay, as above.

    Args:
        recipe: recipe file; its whole length is the Trainer's
        out: directory of all runs, results.jsonl, peer.json and figures/
        set: override a key of the recipe; may be repeated
        rates: our peak rates, as multiples of the recipe's
        peer_rates: peak rates of the Trainer, as many
        widen: rates that both get more, as long as the best of one is at the edge of its grid or beside one that diverged
        seeds: runs of each side at its best rate
        lengths: lengths of our runs, as shares of the recipe's, which is among them; all of a seed share one stable stage
        rounds: rounds in which the time a token is measured, one side after the other
        json: print peer.json as one object
    """
    from xmodel2.output import print_json
    from xmodel2.recipe import load_recipe
    from xmodel2.reproduction.peer import PeerPlan, run_peer

    console = Console(stderr=True)
    plan = PeerPlan(rates, peer_rates, widen, seeds, lengths, rounds)
    found = run_peer(
        load_recipe(recipe, set),
        plan,
        out,
        lambda text: console.print(text, highlight=False, markup=False, soft_wrap=True),
    )
    print_json(found) if json else _print(found, out)


def _print(found: dict[str, Any], out: Path) -> None:
    """Print both sides at equal tokens, the factors, and the verdict."""
    console = Console()

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    for side in ("ours", "peer"):
        tried = "  ".join(f"{row['rate']:g}: {_loss(row['loss'])}" for row in found[side]["rates"])
        edge = " (at the edge of what was tried, or beside one that diverged)" if found[side]["at_edge"] else ""
        say(f"{side}: best rate {found[side]['rate']:g}{edge}, of  {tried}")
    say(f"the Trainer's own rate {found['peer']['default_rate']:g}: {_loss(found['peer']['default_rate_loss'])}")
    losses = Table("held-out loss, nats a token", "tokens", *(f"seed {seed}" for seed in found["seeds"]), box=None)
    for row in found["ours"]["lengths"]:
        losses.add_row("ours", f"{row['tokens']:,}", *map(_loss, row["losses"].values()))
    losses.add_row("Trainer", f"{found['tokens']:,}", *map(_loss, found["peer"]["losses"].values()))
    apart = found["peer"]["losses_documents_apart"]
    losses.add_row("Trainer, documents apart", f"{found['tokens']:,}", *map(_loss, apart.values()))
    print_wide(losses)
    tokens = found["tokens_factor"]
    most = "at most " if tokens["at_most"] else ""
    reached = f"seeds {tokens['not_reached']} did not reach it" if tokens["not_reached"] else most + _interval(tokens)
    say(f"ours - Trainer at equal tokens: {_interval(found['difference'], '+')}")
    say(f"tokens to the Trainer's loss, as a share of its own: {reached}")
    for name, product in found["tokens_time"].items():
        time, equal = found["time_factor"][name], found["equal_time"][name]
        say(
            f"{escape(name)}: time a token {time['factor']:.3f} ({time['low']:.3f} to {time['high']:.3f});"
            f" tokens-time {most}{_interval({**product, 'mean': product['factor']})}, bound {found['bound']}: {product['verdict']};"
            f" ours - Trainer at equal time: {_interval(equal['difference'], '+')}"
        )
    if found["diverged"]:
        say(f"diverged: seeds {', '.join(map(str, found['diverged']))}")
    say(f"{out / 'peer.json'}, {out / 'figures'}")


def _loss(loss: float | None) -> str:
    return "diverged" if loss is None else f"{loss:.4f}"


def _interval(value: dict[str, Any], sign: str = "") -> str:
    if value["mean"] is None:
        return "none"
    text = f"{value['mean']:{sign}.3f}"
    return (
        text
        if value["interval"] is None
        else f"{text} ({' to '.join(f'{end:{sign}.3f}' for end in value['interval'])})"
    )
