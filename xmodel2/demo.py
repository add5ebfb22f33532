"""The whole road in one command, at pico scale, on text that this machine already has.

    starter corpus -> tokenizer, shards -> stable stage -> decay stage -> evaluation -> export -> report

Each stage is the function that its own command calls; only the sizes are the demo's.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from xmodel2.data.prepare import prepare
from xmodel2.data.read import read_documents
from xmodel2.data.shards import INDEX_FILE, ShardSet, open_shards
from xmodel2.data.starter import write_starter_corpus
from xmodel2.errors import XmodelError
from xmodel2.eval.ngram import KneserNey, unigram_entropy
from xmodel2.eval.open_model import RUN_SUITES
from xmodel2.eval.reasoning import majority_baseline
from xmodel2.eval.run import evaluate_run
from xmodel2.files import fresh_folder, is_marked, write_json_atomic
from xmodel2.model.count import parameter_count
from xmodel2.recipe import Recipe, recipe_from_dict
from xmodel2.release.exporting.formats import export_model
from xmodel2.release.reporting.build import build_report
from xmodel2.train import read_metrics, train

VOCAB_SIZE = 2048
MIXTURE = {"docs": 0.35, "code": 0.35, "web": 0.3}
PROMPTS = ("The function returns", "def __init__(self", "This package provides")

CORPUS: dict[str, Any] = {
    "max_bytes": 500_000,
    "examples": 20_000,
    "heldout_examples": 400,
    "vocab_size": VOCAB_SIZE,
}
RECIPE: dict[str, Any] = {
    "name": "demo",
    "model": {"preset": "pico", "vocab_size": VOCAB_SIZE, "max_position_embeddings": 512, "dim_model_base": 64},
    "data": {
        "sequence_length": 256,
        "sources": {
            "docs": {"licence": "as the packages they come from"},
            "code": {"language": "code", "licence": "as the packages it comes from"},
            "web": {"licence": "as the packages they come from"},
            "reasoning": {"kind": "sft", "licence": "Apache-2.0 (reasoning-gym)"},
        },
    },
    "stages": {
        "stable": {"tokens": 1_900_000, "mixture": MIXTURE},
        "decay": {"tokens": 1_700_000, "sft_share": 0.64, "sft_mixture": {"reasoning": 1.0}},
    },
    "evaluation": {"prompts": PROMPTS},
    "train": {
        "learning_rate": 0.006,
        "warmup_steps": 50,
        "decay_half_life_steps": 250,
        "batch_tokens": 2048,
        "micro_batch_size": 8,
        "checkpoint_every": 500,
        "heldout_every": 250,
        "heldout_rows": 12,
    },
}


def run_demo(
    out: Path,
    overwrite: bool = False,
    resume: bool = False,
    corpus: dict[str, Any] | None = None,
    settings: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Run the road into ``out``, print what came of it and return the results.

    ``resume``: go on with a demo that was stopped. ``corpus`` and ``settings`` replace the demo's own sizes. Raises
    `XmodelError` if ``out`` exists and is not to be gone on with.
    """
    console = Console()
    if resume and overwrite:
        raise XmodelError("--resume goes on with the demo that --overwrite would delete; give one")
    again = resume and out.exists()
    if not again:
        fresh_folder(out, overwrite, "demo")
    elif not is_marked(out, "demo"):
        raise XmodelError(
            f"{out}: was not made by `xmodel2 demo`, so there is none to go on with; choose another --out"
        )
    started = time.perf_counter()
    run_dir = out / "run"
    if not (out / "data" / INDEX_FILE).exists():  # written last
        with _stage(console, "corpus"):
            write_starter_corpus(out / "corpus", **(corpus or CORPUS), overwrite=again)
        with _stage(console, "tokenizer and shards"):
            prepare(out / "corpus" / "sources.toml", out / "data")
    recipe = demo_recipe(out / "data", settings)
    with _stage(console, "training"):
        result = train(recipe, run_dir, resume=again)
        if not result.finished:
            raise XmodelError(f"stopped at step {result.step}; everything so far is in {run_dir}")
    with _stage(console, "evaluation"):
        results = _evaluate(run_dir, recipe, out)
        write_json_atomic(run_dir / "results.json", results)  # the model card shows it
    with _stage(console, "export"):
        (exported,) = export_model(run_dir, ["hf"], out / "hf", overwrite=again)
        results["export"] = {"max_abs_difference": exported["max_abs_difference"]}
    write_json_atomic(run_dir / "results.json", results)
    with _stage(console, "report"):
        page = build_report([run_dir], out / "report.html")
    _print_summary(console, recipe, run_dir, results, page, time.perf_counter() - started)
    return results


def demo_recipe(data: Path, settings: dict[str, Any] | None = None) -> Recipe:
    """Return the demo's recipe on a data directory."""
    tree = settings or RECIPE
    return recipe_from_dict({**tree, "data": {**tree["data"], "dir": str(data)}})


def _evaluate(run_dir: Path, recipe: Recipe, out: Path) -> dict[str, Any]:
    """Score the ends of both stages, and baselines fitted to the very documents the run saw."""
    results: dict[str, Any] = {
        "steps": {},
        "heldout": {},
        "questions": {},
        "baselines": baselines(open_shards(out / "data"), recipe),
    }
    transcripts: dict[str, Any] = {}
    for step in (recipe.stable_steps, recipe.total_steps):
        checkpoint = run_dir / "checkpoints" / f"step-{step}"
        scored = evaluate_run(checkpoint, RUN_SUITES)
        for part in ("steps", "heldout", "questions"):
            results[part] |= scored[part]
        transcripts |= scored["transcripts"]
    asked, held = (list(read_documents([out / "corpus" / f"{n}.jsonl"])) for n in ("reasoning", "reasoning-heldout"))
    results["questions"]["majority"] = majority_baseline(asked, held)
    write_json_atomic(run_dir / "transcripts.json", transcripts)
    return results


def baselines(shards: ShardSet, recipe: Recipe) -> dict[str, dict[str, float]]:
    """Fit unigram and 5-gram to all training text; nats a held-out token by source."""
    vocab_size = shards.vocab_size
    tokens = np.concatenate([_tokens(shards, name, "train") for name in recipe.stages.stable.mixture])
    five_gram = KneserNey(vocab_size).fit(tokens)
    result: dict[str, dict[str, float]] = {"unigram": {}, "five_gram": {}}
    for name in recipe.stages.stable.mixture:
        held = _tokens(shards, name, "heldout")
        wanted = held != 1  # a document's <s> follows from nothing
        result["unigram"][name] = unigram_entropy(tokens, held[wanted], vocab_size)
        result["five_gram"][name] = five_gram.score(held, wanted)
    return result


def _tokens(shards: ShardSet, name: str, split: str) -> np.ndarray:
    part = getattr(shards.source(name), split)
    return np.concatenate([part.document(d) for d in range(part.documents)]).astype(np.int64)


@contextmanager
def _stage(console: Console, name: str) -> Iterator[None]:
    started = time.perf_counter()
    console.print(f"[bold]{name}[/] ...", highlight=False)
    yield
    console.print(f"[bold]{name}[/] {time.perf_counter() - started:.0f} s", highlight=False)


def _print_summary(
    console: Console, recipe: Recipe, run_dir: Path, results: dict[str, Any], page: Path, seconds: float
) -> None:
    steps = [line for line in read_metrics(run_dir) if line.get("kind", "train") == "train"]
    by_stage = {stage: [s["loss"] for s in steps if s["stage"] == stage][-10:] for stage in ("stable", "decay")}
    text = list(recipe.stages.stable.mixture)
    perplexity = {stage: _perplexity([results["heldout"][stage][n]["loss"] for n in text]) for stage in by_stage}
    baseline = {name: _perplexity(list(losses.values())) for name, losses in results["baselines"].items()}
    reasoning = {stage: results["questions"][stage]["accuracy"] for stage in ("stable", "decay", "majority")}
    table = Table(title="Xmodel-2 demo", show_header=False)
    for name, value in (
        ("parameters", f"{parameter_count(recipe.model):,}"),
        ("tokens", f"{steps[-1]['tokens']:,}"),
        ("tokens/s (median)", f"{np.median([s['tokens_per_second'] for s in steps]):,.0f}"),
        ("stable loss (last 10 steps)", f"{np.mean(by_stage['stable']):.3f}"),
        ("decay loss (last 10 steps)", f"{np.mean(by_stage['decay']):.3f}"),
        ("held-out perplexity before / after decay", f"{perplexity['stable']:.2f} / {perplexity['decay']:.2f}"),
        (
            "held-out perplexity of unigram / 5-gram",
            f"{baseline['unigram']:.2f} / {baseline['five_gram']:.2f}",
        ),
        ("reasoning accuracy before / after decay", f"{reasoning['stable']:.1%} / {reasoning['decay']:.1%}"),
        ("reasoning accuracy of the commonest answers", f"{reasoning['majority']:.1%}"),
        ("time", f"{seconds / 60:.1f} minutes"),
        ("report", str(page)),
    ):
        table.add_row(name, value)
    console.print(table)
    written = [line for line in read_metrics(run_dir) if line.get("kind") == "samples"]
    for sample in written[-1]["samples"] if written else []:
        console.print(f"[bold]{sample['prompt']}[/]", end="")
        console.print(sample["continuation"], markup=False, highlight=False)


def _perplexity(losses: list[float]) -> float:
    """Return exp of the mean loss over sources."""
    return float(np.exp(np.mean(losses)))
