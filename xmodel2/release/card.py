"""The model card of an export: what the model is, how it was trained, and how it did."""

from typing import Any

from xmodel2.model.count import parameter_count
from xmodel2.recipe import Recipe, recipe_to_toml
from xmodel2.release.results import run_results
from xmodel2.release.trained import Trained


def card_of(trained: Trained) -> str:
    """Return README.md of an export of a model: of a native directory that says nothing of its training, its shape alone."""
    if trained.recipe and trained.state:
        return model_card(trained.recipe, trained.state, run_results(trained.run) if trained.run else None)
    count = parameter_count(trained.settings)
    return f"---\nlibrary_name: transformers\n---\n\n# {trained.name}\n\nA decoder of {count:,} parameters.\n"


def model_card(recipe: Recipe, state: dict[str, Any], results: dict[str, Any] | None) -> str:
    """Return README.md of a native directory: facts, data table, results, and the recipe to repeat it."""
    model = recipe.model
    lines = [
        "---",
        "library_name: transformers",
        "pipeline_tag: text-generation",
        "tags: [xmodel2, granite, tensor-program, wsd]",
        "---",
        "",
        f"# {recipe.name}",
        "",
        f"A decoder of {parameter_count(model):,} parameters: {model.num_hidden_layers} layers of width"
        f" {model.hidden_size}, {model.num_attention_heads} heads over {model.num_key_value_heads} key/value heads,"
        f" vocabulary {model.vocab_size:,}, context {model.max_position_embeddings:,}. Trained on"
        f" {state['tokens']:,} tokens with the Xmodel-2 method (arXiv 2412.19638).",
        "",
        "It is a native `GraniteForCausalLM`: `AutoModelForCausalLM.from_pretrained` loads it without custom code.",
        "",
        "## Data",
        "",
        "| source | stable | decay | licence |",
        "|---|---|---|---|",
    ]
    decay = recipe.decay_mixture
    for name in dict.fromkeys([*recipe.stages.stable.mixture, *decay]):
        source = recipe.data.sources.get(name)
        licence = source.licence if source and source.licence else "not stated"
        lines.append(
            f"| {name} | {recipe.stages.stable.mixture.get(name, 0):.2%} | {decay.get(name, 0):.2%} | {licence} |"
        )
    if results:
        lines += ["", "## Results", "", *_results(results, state)]
    lines += ["", "## Recipe", "", "```toml", recipe_to_toml(recipe).strip(), "```", ""]
    return "\n".join(lines)


def _results(results: dict[str, Any], state: dict[str, Any]) -> list[str]:
    """Return what was measured at this very step; of reasoning, also at the stage before."""
    lines: list[str] = []
    stage = state["stage"]
    if results.get("steps", {}).get(stage) != state["step"]:
        return ["Not evaluated at this step."]
    heldout = results.get("heldout", {}).get(stage, {})
    if heldout:
        lines += ["| held-out source | loss (nats a token) | bits a byte |", "|---|---|---|"]
        for name, row in heldout.items():
            bits = f"{row['bits_per_byte']:.3f}" if "bits_per_byte" in row else ""
            lines.append(f"| {name} | {row['loss']:.3f} | {bits} |")
    reasoning = results.get("questions", {})
    stages = ["stable", "decay"] if stage == "decay" else [stage]
    found = [f"{reasoning[s]['accuracy']:.1%} at step {results['steps'][s]} ({s})" for s in stages if s in reasoning]
    if found:
        lines += ["", f"Reasoning, exact match: {', '.join(found)}."]
    return lines or ["Not evaluated."]
