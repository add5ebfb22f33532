"""The whole road in one command, at pico scale, on text that this machine already has.

    embedded corpus -> tokenizer -> shards -> stable stage -> decay stage -> evaluation -> export -> report

Each stage is the same function that its own command calls; only the sizes are the demo's.
"""

import json
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from xmodel2.data.embedded import embedded_corpus
from xmodel2.data.prepare import PrepareSource, prepare
from xmodel2.data.reasoning import Example, reasoning_examples
from xmodel2.data.shards import ShardSet, open_shards
from xmodel2.errors import XmodelError
from xmodel2.eval.ngram import KneserNey, unigram_entropy
from xmodel2.eval.reasoning import evaluate_reasoning, majority_baseline
from xmodel2.files import write_json_atomic
from xmodel2.model.count import parameter_count
from xmodel2.model.generate import generate
from xmodel2.recipe import Recipe, recipe_from_dict
from xmodel2.release.export import export_checkpoint
from xmodel2.release.report import build_report
from xmodel2.tokenizer import Tokenizer, train_unigram
from xmodel2.train import heldout_losses, load_model, read_metrics, train

VOCAB_SIZE = 2048
CORPUS_BYTES = 2_000_000
TRAIN_EXAMPLES, HELDOUT_EXAMPLES = 30_000, 315
MIXTURE = {"docs": 0.4, "code": 0.4, "web": 0.2}
PROMPTS = {"docs": "The function returns", "code": "def __init__(self", "web": "This package provides"}


def demo_recipe(data: Path) -> Recipe:
    """Return the demo's recipe."""
    return recipe_from_dict(
        {
            "name": "demo",
            "model": {"preset": "pico", "vocab_size": VOCAB_SIZE, "max_position_embeddings": 512},
            "data": {
                "dir": str(data),
                "sequence_length": 256,
                "sources": {
                    "docs": {"licence": "as the packages they come from"},
                    "code": {"language": "code", "licence": "as the packages it comes from"},
                    "web": {"licence": "as the packages they come from"},
                    "reasoning": {"kind": "sft", "licence": "Apache-2.0 (reasoning-gym)"},
                },
            },
            "stages": {
                "stable": {"tokens": 3_400_000, "mixture": MIXTURE},
                "decay": {"tokens": 1_700_000, "sft_share": 0.64, "sft_mixture": {"reasoning": 1.0}},
            },
            "train": {
                "learning_rate": 0.01,
                "warmup_steps": 30,
                "decay_half_life_steps": 35,
                "batch_tokens": 8192,
                "micro_batch_size": 32,
                "checkpoint_every": 100,
                "heldout_every": 100,
                "heldout_rows": 32,
            },
        }
    )


def run_demo(out: Path, overwrite: bool = False) -> dict[str, Any]:
    """Run the road into ``out`` and print what came of it. Raises `XmodelError` if ``out`` exists."""
    console = Console()
    if out.exists() and any(out.iterdir()):
        if not overwrite:
            raise XmodelError(f"{out}: already exists; give --overwrite, or choose another --out")
        shutil.rmtree(out)
    started = time.perf_counter()
    with _stage(console, "corpus"):
        corpus = embedded_corpus(CORPUS_BYTES)
        examples = reasoning_examples(TRAIN_EXAMPLES, seed=1)
        held = reasoning_examples(HELDOUT_EXAMPLES, seed=2, exclude={e["question"] for e in examples})
    with _stage(console, "tokenizer"):
        tokenizer = train_unigram(_sample(corpus, examples), VOCAB_SIZE, out / "tokenizer")
    with _stage(console, "data"):
        prepare(_sources(corpus, examples, held), tokenizer, out / "data", heldout_fraction=0.03)
        shards = open_shards(out / "data")
    recipe = demo_recipe(out / "data")
    run_dir = out / "run"
    with _stage(console, "training"):
        result = train(recipe, run_dir)
        if not result.finished:
            raise XmodelError(f"stopped at step {result.step}; everything so far is in {run_dir}")
    with _stage(console, "evaluation"):
        results = evaluate_demo(run_dir, recipe, shards, tokenizer, examples, held)
        write_json_atomic(run_dir / "results.json", results)
    with _stage(console, "export"):
        exported = export_checkpoint(run_dir, out / "hf")
        results["export"] = {"max_abs_difference": exported["max_abs_difference"]}
    write_json_atomic(run_dir / "results.json", results)
    with _stage(console, "report"):
        page = build_report([run_dir], out / "report.html")
    _print_summary(console, recipe, run_dir, results, page, time.perf_counter() - started)
    return results


def evaluate_demo(
    run_dir: Path,
    recipe: Recipe,
    shards: ShardSet,
    tokenizer: Tokenizer,
    examples: list[Example],
    held: list[Example],
) -> dict[str, Any]:
    """Compare the ends of both stages with each other and with baselines fitted to the very tokens the run saw."""
    results: dict[str, Any] = {"heldout": {}, "reasoning": {}, "baselines": baselines(recipe, shards)}
    samples = []
    for stage, step in (("stable", recipe.stable_steps), ("decay", recipe.total_steps)):
        model, _, _ = load_model(run_dir / "checkpoints" / f"step-{step}")
        results["heldout"][stage] = heldout_losses(model, shards, recipe, "fp32")
        outcome = evaluate_reasoning(model, tokenizer, held)
        write_json_atomic(run_dir / f"transcripts-{stage}.json", outcome.pop("transcripts"))
        results["reasoning"][stage] = outcome
        prompts = [[tokenizer.bos_id, *tokenizer.encode(text)] for text in PROMPTS.values()]
        answers = generate(model, prompts, 60, [tokenizer.eos_id], temperature=0.7, top_p=0.9, seed=recipe.seed)
        for text, ids in zip(PROMPTS.values(), answers, strict=True):
            samples.append({"stage": stage, "prompt": text, "continuation": tokenizer.decode(ids, True)})
    results["reasoning"]["majority"] = majority_baseline(examples, held)
    write_json_atomic(run_dir / "samples.json", samples)
    return results


def baselines(recipe: Recipe, shards: ShardSet) -> dict[str, dict[str, float]]:
    """Fit unigram and 5-gram to the distinct text tokens that the whole run can have seen; nats a held-out token by source."""
    tokens = np.concatenate([_tokens(shards, name, "train") for name in MIXTURE])
    five_gram = KneserNey(VOCAB_SIZE).fit(tokens)
    result: dict[str, dict[str, float]] = {"unigram": {}, "five_gram": {}}
    for name in MIXTURE:
        held = _tokens(shards, name, "heldout")
        wanted = held != 1  # a document's <s> follows from nothing
        result["unigram"][name] = unigram_entropy(tokens, held[wanted], VOCAB_SIZE)
        result["five_gram"][name] = five_gram.score(held, wanted)
    return result


def _tokens(shards: ShardSet, name: str, split: str) -> np.ndarray:
    part = getattr(shards.source(name), split)
    return np.concatenate([part.document(d) for d in range(part.documents)]).astype(np.int64)


def _sample(corpus: dict[str, list[str]], examples: list[Example]) -> Iterator[str]:
    """Yield a third of the corpus and some questions, for the tokenizer to learn from."""
    for texts in corpus.values():
        yield from texts[::3]
    yield from (message["content"] for example in examples[:2000] for message in example["messages"])


def _sources(corpus: dict[str, list[str]], examples: list[Example], held: list[Example]) -> Iterable[PrepareSource]:
    for name, texts in corpus.items():
        yield PrepareSource(name, "text", [{"text": text} for text in texts])
    yield PrepareSource("reasoning", "sft", examples, held)


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
    perplexity = {stage: _mean_perplexity(results["heldout"][stage]) for stage in ("stable", "decay")}
    five_gram = np.exp(np.mean(list(results["baselines"]["five_gram"].values())))
    reasoning = {stage: results["reasoning"][stage]["accuracy"] for stage in ("stable", "decay", "majority")}
    table = Table(title="Xmodel-2 demo", show_header=False)
    for name, value in (
        ("parameters", f"{parameter_count(recipe.model):,}"),
        ("tokens", f"{steps[-1]['tokens']:,}"),
        ("tokens/s (median)", f"{np.median([s['tokens_per_second'] for s in steps]):,.0f}"),
        ("stable loss (last 10 steps)", f"{np.mean(by_stage['stable']):.3f}"),
        ("decay loss (last 10 steps)", f"{np.mean(by_stage['decay']):.3f}"),
        ("held-out perplexity before / after decay", f"{perplexity['stable']:.2f} / {perplexity['decay']:.2f}"),
        ("held-out perplexity of a 5-gram model", f"{five_gram:.2f}"),
        ("reasoning accuracy before / after decay", f"{reasoning['stable']:.1%} / {reasoning['decay']:.1%}"),
        ("reasoning accuracy of the commonest answers", f"{reasoning['majority']:.1%}"),
        ("time", f"{seconds / 60:.1f} minutes"),
        ("report", str(page)),
    ):
        table.add_row(name, value)
    console.print(table)
    for sample in json.loads((run_dir / "samples.json").read_text()):
        if sample["stage"] == "stable":
            continue
        console.print(f"[bold]{sample['prompt']}[/]", end="")
        console.print(sample["continuation"], markup=False, highlight=False)


def _mean_perplexity(losses: dict[str, dict[str, Any]]) -> float:
    return float(np.exp(np.mean([losses[name]["loss"] for name in MIXTURE])))
