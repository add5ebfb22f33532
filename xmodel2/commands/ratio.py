"""The command that finds the share of instruction data in the decay, and compares decays."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from xmodel2.arguments import Flag, Overrides, key_values
from xmodel2.output import print_wide

if TYPE_CHECKING:
    from xmodel2.recipe import Recipe

_DOCUMENTS = 512  # held-out documents of a source that are scored in both formats, unless --questions says otherwise


def ratio(
    recipe: tyro.conf.Positional[Path],
    /,
    *,
    out: Path,
    set: Overrides = (),
    compare: tuple[str, ...] = ("shares",),
    shares: tuple[float, ...] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
    seeds: int = 1,
    from_: Annotated[tuple[str, ...], tyro.conf.arg(name="from", metavar="RUN@STEP ...")] = (),
    lengths: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0),
    checkpoints: int = 5,
    rates: tuple[float, ...] = (1.0,),
    weigh: tuple[str, ...] = (),
    swap: tuple[str, ...] = (),
    questions: int | None = None,
    json: Flag = False,
) -> None:
    """Find the share of instruction data in the decay: train one stable stage, branch decays from it, and score them.

    Example: xmodel2 ratio recipes/wind-tunnel.toml --out runs/ratio --compare shares mixtures --seeds 3

    Resumable: run it again, with more shares, seeds or comparisons too. The same command in a second shell helps the first.

    Args:
        recipe: recipe file; its own decay is what the others are compared with
        out: directory of all runs, results.jsonl, ratio.json and figures/
        set: override a key of the recipe; may be repeated
        compare: shares, mixtures (each source alone, each left out), length, shape, cosine (one cosine against WSD), checkpoints
            (decays along the stable stage, to fit a scaling law), format (the same documents as chats and as plain text), or all
        shares: shares of instruction data, from 0 to 1
        seeds: stable stages, each with decays of its own
        from_: RUN@STEP or RUN@stable: branch from runs that are there, one a seed, instead of training stable stages
        lengths: lengths of the decay, as multiples of the recipe's
        checkpoints: checkpoints along the stable stage to decay from, for length, cosine and checkpoints
        rates: peak rates at which WSD and cosine are compared, as multiples of the recipe's
        weigh: weights of the combined loss, such as text=1 answers=1 (the default; sft=1 if there are no questions)
        swap: OLD=NEW, for mixtures: also the recipe's own with source NEW of the data in the place of OLD
        questions: held-out questions to ask at most (default: all); for format also held-out documents of a source (512)
        json: print the results as one JSON object
    """
    from xmodel2.errors import XmodelError
    from xmodel2.output import print_json
    from xmodel2.recipe import load_recipe
    from xmodel2.search.ratio import Comparison, RatioSettings

    console = Console(stderr=True)
    if questions is not None and questions < 1:
        raise XmodelError(f"--questions {questions}: give at least 1")
    settings = RatioSettings(
        compare,
        shares,
        seeds,
        lengths,
        checkpoints,
        rates,
        {k: _number(k, v) for k, v in key_values("weigh", weigh).items()},
        key_values("swap", swap),
    )
    comparison = Comparison(load_recipe(recipe, set), settings, from_)
    score, asked, complaint = question_score(comparison.recipe.data.dir, questions)
    if complaint:
        console.print(f"{complaint}; decays are scored by loss alone", highlight=False, markup=False, soft_wrap=True)
    say = partial(console.print, highlight=False, markup=False, soft_wrap=True)
    found = comparison.run(out, score, say, format_score(comparison.recipe, questions), questions, asked)
    print_json(found) if json else _print(found, out)


def question_score(data: str, limit: int | None) -> tuple[Callable[[Path], dict[str, Any]], int | None, str]:
    """Return what scores a finished run on the held-out questions of a data directory, how many, and why it can't, if so."""
    from xmodel2.data.questions import read_questions
    from xmodel2.errors import XmodelError
    from xmodel2.eval.answers import answer_losses
    from xmodel2.eval.reasoning import evaluate_reasoning
    from xmodel2.tokenizer import load_tokenizer
    from xmodel2.train.checkpoint import find_tokenizer, load_model
    from xmodel2.train.device import pick_device

    try:
        asked = read_questions(data)[:limit]
    except XmodelError as error:
        return lambda run_dir: {}, None, str(error)

    def score(run_dir: Path) -> dict[str, Any]:
        model, recipe, _ = load_model(run_dir)
        model.to(pick_device(recipe.train.device))
        tokenizer = load_tokenizer(find_tokenizer(run_dir))
        loss, exact = answer_losses(model, tokenizer, asked), evaluate_reasoning(model, tokenizer, asked)
        return {
            "answers": loss["loss"],
            "accuracy": exact["accuracy"],
            "questions": exact["count"],
            "answers_by_task": {task: row["loss"] for task, row in loss["by_task"].items()},
            "accuracy_by_task": {task: row["accuracy"] for task, row in exact["by_task"].items()},
        }

    return score, len(asked), ""


def format_score(recipe: "Recipe", limit: int | None) -> Callable[[Path], dict[str, Any]]:
    """Return what scores a finished run on held-out questions and documents of its data, as chats and as text."""
    from xmodel2.data.questions import heldout_answers, read_questions
    from xmodel2.data.shards import open_shards, read_index
    from xmodel2.eval.answer_formats import format_scores
    from xmodel2.tokenizer import load_tokenizer
    from xmodel2.train.checkpoint import find_tokenizer, load_model
    from xmodel2.train.device import pick_device

    def score(run_dir: Path) -> dict[str, Any]:
        model, own, _ = load_model(run_dir)
        model.to(pick_device(own.train.device))
        tokenizer = load_tokenizer(find_tokenizer(run_dir))
        entries = read_index(recipe.data.dir)["sources"].values()
        asked = read_questions(recipe.data.dir)[:limit] if any("questions" in entry for entry in entries) else []
        shards = open_shards(recipe.data.dir, cache_dir=recipe.data.cache_dir)
        most = _DOCUMENTS if limit is None else limit
        documents = heldout_answers(shards, recipe.stages.decay.sft_mixture, tokenizer, most)
        return format_scores(model, tokenizer, asked, documents)

    return score


def _number(name: str, text: str) -> float:
    from xmodel2.errors import XmodelError

    try:
        return float(text)
    except ValueError:
        raise XmodelError(f"--weigh {name}={text}: write it as {name}=NUMBER") from None


def _print(found: dict[str, Any], out: Path) -> None:
    """Print what is best, and a table a comparison."""
    from xmodel2.search.ratio_summary import OBJECTIVES

    console = Console()
    for name, curve in found["shares"].items():
        console.print(f"share for {OBJECTIVES[name]}: {curve['optimum_is']}", highlight=False, soft_wrap=True)
    for title in ("mixtures", "shape", "length", "equal_tokens"):
        rows = found[title]
        if rows:
            names = [name for name in OBJECTIVES if name in rows[0]]
            shown = Table(title, *names, title_justify="left", box=None)
            for row in rows:
                shown.add_row(escape(f"{row['value']}"), *(_cell(row[name]) for name in names))
            print_wide(shown)
    if found["format"]:
        print_wide(_formats(found["format"]))
    if found["schedules"]:
        shown = Table("tokens", "rate", "wsd", "cosine", "wsd - cosine", box=None)
        for row in found["schedules"]:
            cells = ("" if row[name] is None else f"{row[name]:.4f}" for name in ("wsd", "cosine"))
            apart = "" if row["difference"] is None else f"{row['difference']:+.4f}{_error(row['error'])}"
            shown.add_row(f"{row['tokens']:,}", f"{row['rate']:g}", *cells, apart)
        print_wide(shown)
    for name, why in found["diverged"].items():
        console.print(f"{name}: {why}", highlight=False, markup=False, soft_wrap=True)
    console.print(f"{out / 'ratio.json'}, {out / 'figures'}", highlight=False, soft_wrap=True)


def _formats(found: dict[str, Any]) -> Table:
    """Return the table of decays on chats and on texts, each scored in both formats."""
    from xmodel2.search.ratio_formats import MEASURES

    head = ("chat: as chat", "as text", "text: as text", "as chat", "chat - text", "95%")
    shown = Table("format", *head, title_justify="left", box=None)
    for name, row in found["measures"].items():
        cells = [f"{row[arm][where]:.4f}" for arm in ("chat", "text") for where in ("own", "other")]
        low_high = row["interval"] and "{:+.4f} to {:+.4f}".format(*row["interval"])
        shown.add_row(MEASURES[name], *cells, f"{row['difference']:+.4f}{_error(row['error'])}", low_high or "one seed")
    return shown


def _cell(cell: dict[str, Any]) -> str:
    if not cell["difference"]:
        return f"{cell['mean']:.4f}"
    return f"{cell['mean']:.4f} ({cell['difference']:+.4f}{_error(cell['error'])})"


def _error(error: float | None) -> str:
    return "" if error is None else f" ± {error:.4f}"
