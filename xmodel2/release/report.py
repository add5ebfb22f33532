"""One self-contained HTML page that tells a run: curves, mixtures, model, evaluation, samples.

It reads only the run directory (recipe.toml, metrics.jsonl, results.json, evaluation/, samples.json); what is not there is
said, not guessed.
"""

from html import escape
from pathlib import Path
from typing import Any

from xmodel2.errors import XmodelError
from xmodel2.eval.tasks import TASKS
from xmodel2.files import read_json, write_text_atomic
from xmodel2.model.count import block_parameter_count, parameter_count
from xmodel2.page import page, table, tiles
from xmodel2.plots import colors, pie
from xmodel2.recipe import PRESETS, ModelSettings, Recipe, load_recipe
from xmodel2.release.figures import heldout_curves, loss_curve, score_curves
from xmodel2.release.results import benchmark_sections, run_results
from xmodel2.train.metrics import read_metrics
from xmodel2.train.run_dir import RECIPE_FILE


def build_report(run_dirs: list[Path], out: Path) -> Path:
    """Write ``out`` and return it. Raises `XmodelError` if a folder is not a run directory."""
    sections = []
    for run_dir in map(Path, run_dirs):
        if not (run_dir / RECIPE_FILE).exists():
            raise XmodelError(f"{run_dir}: not a run directory (no {RECIPE_FILE})")
        sections.append(_run(run_dir))
    title = " and ".join(load_recipe(Path(d) / RECIPE_FILE).name for d in run_dirs)
    write_text_atomic(out, page(f"Xmodel-2 report: {title}", "\n".join(sections)))
    return Path(out)


def _run(run_dir: Path) -> str:
    recipe = load_recipe(run_dir / RECIPE_FILE)
    lines = read_metrics(run_dir)
    steps = [line for line in lines if "kind" not in line]
    heldout = [line for line in lines if line.get("kind") == "heldout"]
    results = run_results(run_dir)
    stable_tokens = recipe.stable_steps * recipe.train.batch_tokens
    parts = [f"<h1>{escape(recipe.name)}</h1>", _summary(recipe, steps, results)]
    if steps:
        parts += [
            "<h2>Training</h2>",
            _figure(loss_curve(steps, stable_tokens), "Training loss by tokens (as Figure 3)"),
        ]
    else:
        parts.append("<p>No training step has been recorded yet.</p>")
    if heldout:
        parts.append(_figure(heldout_curves(heldout, stable_tokens), "Held-out loss by source"))
    parts += _benchmarks([line for line in lines if "scores" in line], stable_tokens, recipe.evaluation.limit)
    parts += ["<h2>Mixtures</h2>", _mixtures(recipe, run_dir), "<h2>Model</h2>", _model(recipe.model)]
    parts += [
        "<h2>Evaluation</h2>",
        _evaluation(results),
        *benchmark_sections(run_dir),
        "<h2>Samples</h2>",
        _samples(read_json(run_dir / "samples.json")),
    ]
    return "\n".join(parts)


def _benchmarks(lines: list[dict[str, Any]], stable_tokens: int, limit: int) -> list[str]:
    """Return figures of the scores while the run trained: shares of items in one, perplexities in another."""
    names = list(dict.fromkeys(name for line in lines for name in line["scores"]))
    falling = [name for name in names if name in TASKS and not TASKS[name].higher_is_better]
    rising = [name for name in names if name not in falling]
    figures = []
    if rising:
        drawing = score_curves(lines, stable_tokens, rising, "score, %")
        noise = 196 * (0.25 / limit) ** 0.5  # of a share near one half, 95%
        caption = f"Benchmark scores while training; {limit:,} items a task give ±{noise:.0f} points at most (95%)"
        figures.append(_figure(drawing, caption))
    if falling:
        drawing = score_curves(lines, stable_tokens, falling, "perplexity a word")
        figures.append(_figure(drawing, "Perplexity while training"))
    return figures


def _figure(drawing: str, caption: str) -> str:
    return f'<figure role="img" aria-label="{escape(caption)}">{drawing}<figcaption>{escape(caption)}</figcaption></figure>'


def _summary(recipe: Recipe, steps: list[dict[str, Any]], results: dict[str, Any]) -> str:
    cells = [
        ("parameters", f"{parameter_count(recipe.model):,}"),
        ("steps", f"{len(steps):,} of {recipe.total_steps:,}"),
    ]
    if steps:
        speeds = sorted(step["tokens_per_second"] for step in steps)
        cells += [
            ("tokens", f"{steps[-1]['tokens']:,}"),
            ("tokens/s, median", f"{speeds[len(speeds) // 2]:,.0f}"),
            ("last loss", f"{steps[-1]['loss']:.3f}"),
        ]
    reasoning = results.get("questions", {})
    if "decay" in reasoning and "stable" in reasoning:
        before, after = reasoning["stable"]["accuracy"], reasoning["decay"]["accuracy"]
        cells.append(("reasoning before → after decay", f"{before:.1%} → {after:.1%}"))
    return tiles(cells)


def _mixtures(recipe: Recipe, run_dir: Path) -> str:
    stable, decay = recipe.stages.stable.mixture, recipe.decay_mixture if recipe.decay_steps else {}
    names = list(dict.fromkeys([*stable, *decay]))
    color_of = colors(names)
    drawings = _figure(pie(stable, "stable stage", color_of), "Stable mixture, share of tokens (as Figure 2)")
    if decay:
        drawings += _figure(pie(decay, "decay stage", color_of), "Decay mixture, share of tokens (as Figure 2)")
    taken = (read_json(run_dir / "mixture.json") or {"stages": []})["stages"]
    realised = [_realised(stage) for stage in [*taken, {}, {}][:2]]
    rows = [
        [name, *(text for mix, real in zip((stable, decay), realised, strict=True) for text in _asked(mix, real, name))]
        for name in names
    ]
    head = ["source", "stable, asked", "stable, realised", "decay, asked", "decay, realised"]
    return f'<div class="row">{drawings}</div>' + table(head, rows, "Asked and so far realised shares of tokens")


def _realised(stage: dict[str, Any]) -> dict[str, float]:
    """Return shares of the tokens that a stage has taken, of an entry in mixture.json; empty if it took none."""
    sources = stage.get("sources", {}) if stage.get("rows") else {}
    return {name: row["share_realised"] for name, row in sources.items()}


def _asked(mixture: dict[str, float], realised: dict[str, float], name: str) -> list[str]:
    if name not in mixture:
        return ["", ""]
    return [f"{mixture[name]:.3%}", f"{realised[name]:.3%}" if name in realised else "not yet"]


def _model(ours: ModelSettings) -> str:
    paper = ModelSettings(**PRESETS["xl"])
    rows = []
    for name in (
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "vocab_size",
        "max_position_embeddings",
        "scale_emb",
        "dim_model_base",
        "scale_depth",
        "init_std",
    ):
        rows.append([name, f"{getattr(ours, name):,}", f"{getattr(paper, name):,}"])
    for label, count in (("parameters in blocks", block_parameter_count), ("parameters", parameter_count)):
        rows.append([label, f"{count(ours):,}", f"{count(paper):,}"])
    return table(["", "this run", "Xmodel-2 1.2B (Table 1)"], rows, "Model")


def _evaluation(results: dict[str, Any]) -> str:
    parts = []
    heldout, baselines = results.get("heldout", {}), results.get("baselines", {})
    at = {stage: f"{stage}, step {step:,}" for stage, step in results.get("steps", {}).items()}
    if heldout:
        names = list(dict.fromkeys(name for stage in heldout.values() for name in stage))
        rows = []
        for name in names:
            before, after = (heldout.get(stage, {}).get(name, {}) for stage in ("stable", "decay"))
            rows.append(
                [
                    name,
                    _number(before.get("loss")),
                    _number(after.get("loss")),
                    _number(after.get("bits_per_byte")),
                    _number(baselines.get("five_gram", {}).get(name)),
                    _number(baselines.get("unigram", {}).get(name)),
                ]
            )
        head = [
            "held-out source",
            f"loss at {at.get('stable', 'stable')}",
            f"at {at.get('decay', 'decay')}",
            "bits a byte",
            "5-gram loss",
            "unigram loss",
        ]
        parts.append(table(head, rows, "Held-out loss, nats a token (5-gram and unigram on the same training tokens)"))
    reasoning = results.get("questions", {})
    if reasoning:
        columns = [stage for stage in ("stable", "decay", "majority") if stage in reasoning]
        names = list(dict.fromkeys(task for stage in columns for task in reasoning[stage]["by_task"]))
        rows = [["all", *(f"{reasoning[stage]['accuracy']:.1%}" for stage in columns)]]
        for task in names:
            found = [reasoning[stage]["by_task"].get(task) for stage in columns]
            rows.append([task, *(f"{entry['accuracy']:.1%}" if entry else "" for entry in found)])
        titles = {
            "stable": at.get("stable", "stable"),
            "decay": at.get("decay", "decay"),
            "majority": "commonest answer",
        }
        parts.append(table(["reasoning task", *(titles[c] for c in columns)], rows, "Exact match, greedy generation"))
    return "\n".join(parts) or "<p>Not evaluated yet: run <code>xmodel2 eval RUN</code>.</p>"


def _number(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else "" if value is None else escape(str(value))


def _samples(samples: Any) -> str:
    if not samples:
        return "<p>No samples were written.</p>"
    return "\n".join(
        f'<article class="sample"><h3>{escape(str(s["stage"]))}</h3>'
        f"<pre><b>{escape(s['prompt'])}</b>{escape(s['continuation'])}</pre></article>"
        for s in samples
    )
