"""The model card of an export: what the model is, how it is used and was trained, how it did, and what it is not good for."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from xmodel2.errors import XmodelError
from xmodel2.eval.agent_tables import origin, outcome_table, played
from xmodel2.eval.result_files import RESULTS_FILE, read_results
from xmodel2.eval.result_tables import TITLES, is_share, measured_part, shown
from xmodel2.eval.tasks import SUITES
from xmodel2.model import tensor_program
from xmodel2.model.count import block_parameter_count, parameter_count
from xmodel2.page import printable
from xmodel2.recipe import ModelSettings, Recipe, recipe_to_toml
from xmodel2.release.markdown import fenced, plain, table, yaml_value
from xmodel2.release.reporting.faults import complaint
from xmodel2.release.results import run_results
from xmodel2.release.trained import Trained
from xmodel2.train.lineage import imported_before, weights_of

NATIVE = "GraniteForCausalLM"
_LANGUAGE, _DATASET = re.compile("[a-z]{2,3}"), re.compile(r"[\w-][\w.-]*(/[\w.-]+)?")
"""Names that the Hub accepts in a header."""
_CITATION = """
@techreport{xmodel2,
  title  = {Xmodel-2 Technical Report},
  author = {Wang Qun and Liu Yang and Lin Qingquan and Qu Zhijiu and Jiang Ling},
  year   = {2024},
  note   = {arXiv:2412.19638},
  url    = {https://arxiv.org/abs/2412.19638}
}
"""


def card_of(trained: Trained, architecture: str = NATIVE) -> str:
    """Return README.md of an export: all that is known of the model, and no more.

    ``architecture``: of `transformers`, that the export is of. Raises `XmodelError` if a file of results is damaged.
    """
    state = trained.state or {}
    imported = state.get("imported")
    made_here = bool(state) and imported is None
    before = imported_before(trained.run) if made_here and trained.run else None
    # Where an import brought no recipe of its own, the run's says nothing of how it was trained.
    recipe = trained.public_recipe if imported is None or imported.get("own_recipe") else None
    began = before[0] if before else 0
    parts = [_header(recipe), f"# {plain(trained.name)}", _what(trained, made_here, began)]
    if imported is not None or before is not None:
        parts.append(_where_from(before[1] if before else state["imported"], made_here))
    parts += ["## Use", *_use(trained, architecture), "## Architecture", _architecture(trained.settings, architecture)]
    if recipe and recipe.stages.stable.mixture:
        if made_here:
            parts += ["## Training", _training(recipe, state, began)]
        parts += ["## Data", _data(recipe)]
    if made_here and trained.run:
        parts += _results(trained, state)
    parts += ["## Limitations", _limitations(trained, recipe, made_here, began)]
    if recipe:
        parts.append(_recipe(recipe, made_here))
    parts += ["## Citation", "The method is that of the report:", fenced(_CITATION, "bibtex")]
    return "\n\n".join(parts) + "\n"


def _header(recipe: Recipe | None) -> str:
    lines = ["library_name: transformers", "pipeline_tag: text-generation"]
    if recipe:
        used = _shares(recipe)
        sources = [recipe.data.sources[name] for name in used if name in recipe.data.sources]
        languages = _known(_LANGUAGE, [source.language for source in sources])
        datasets = _known(_DATASET, [source.dataset or "" for source in sources])
        lines += [f"language: {yaml_value(languages)}"] if languages else []
        lines += [f"datasets: {yaml_value(datasets)}"] if datasets else []
    lines.append(
        f"tags: {yaml_value(['xmodel2', 'small-language-model', 'tensor-program', 'wsd', 'arxiv:2412.19638'])}"
    )
    return "\n".join(["---", *lines, "---"])


def _known(pattern: re.Pattern[str], names: Sequence[str]) -> list[str]:
    return [name for name in dict.fromkeys(names) if pattern.fullmatch(name)]


def _tokens(recipe: Recipe, state: Mapping[str, Any], began: int) -> int:
    """Return the tokens that were trained on since step ``began``."""
    return int(state["tokens"]) - began * recipe.train.batch_tokens


def _what(trained: Trained, made_here: bool, began: int) -> str:
    settings, recipe, state = trained.settings, trained.recipe, trained.state or {}
    said = f"A decoder-only language model of {parameter_count(settings):,} parameters"
    if not made_here:
        return f"{said}, in the architecture of Xmodel-2 (arXiv 2412.19638)."
    tuned = recipe is not None and state["stage"] == "decay" and recipe.stages.decay.sft_share > 0
    ending = "; instruction data was mixed into the end of its training" if tuned else ""
    averaged = state.get("averaged")
    mean = (
        f" These weights are an average of the checkpoints of steps {', '.join(map(str, averaged['steps']))}."
        if averaged
        else ""
    )
    assert recipe is not None
    first = weights_of(trained.run)
    how = f"trained, from the weights of {plain(str(first['name']))}, on" if first else "trained from scratch on"
    how = "imported, and trained on" if began else how
    tokens = f"{_tokens(recipe, state, began):,} tokens"
    return f"{said}, {how} {tokens} with the Xmodel-2 method (arXiv 2412.19638){ending}.{mean}"


def _where_from(imported: Mapping[str, Any], made_here: bool) -> str:
    said = "It was not trained here but imported: what is known of its training is what came with it."
    if made_here:
        said = "It went on from a model that was imported, of whose own training nothing is known here."
    folded = imported.get("folded") or {}
    if folded:
        parts = ", ".join(f"{plain(part)} x {factor:.6g}" for part, factor in folded.items())
        said += f" Where the source's scales are not those of these settings, the weights make up for it: {parts}."
    return said


def _use(trained: Trained, architecture: str) -> list[str]:
    code = """
from transformers import AutoModelForCausalLM, AutoTokenizer

folder = "."  # or the name of the repository that this card is in
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder)
messages = [{"role": "user", "content": "What is 2 + 3?"}]
inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
answer = model.generate(**inputs, max_new_tokens=100)[0, inputs["input_ids"].shape[1] :]
print(tokenizer.decode(answer, skip_special_tokens=True))
"""
    shell = """
xmodel2 chat MODEL          # in the terminal
xmodel2 serve MODEL         # an OpenAI-compatible server, with a page to chat on
xmodel2 export MODEL --to gguf --out gguf && llama-server -m gguf/*.gguf   # llama.cpp
"""
    if architecture == NATIVE:
        shell = shell.replace("MODEL", ".")
    else:  # what our commands take is made of it
        shell = "xmodel2 import . --out model\n" + shell.strip().replace("MODEL", "model")
    return [
        f"`transformers` loads it as `{architecture}`, without code of its own:",
        fenced(code, "python"),
        "With `xmodel2` or llama.cpp:",
        fenced(shell, "sh"),
    ]


def _architecture(settings: ModelSettings, architecture: str) -> str:
    rows = {
        "class": architecture,
        "parameters": f"{parameter_count(settings):,}",
        "of them in blocks": f"{block_parameter_count(settings):,}",
        "layers": f"{settings.num_hidden_layers:,}",
        "width": f"{settings.hidden_size:,}",
        "feed-forward width (SwiGLU)": f"{settings.intermediate_size:,}",
        "query heads / key-value heads": f"{settings.num_attention_heads} / {settings.num_key_value_heads}",
        "width of a head": f"{settings.head_dim}",
        "vocabulary": f"{settings.vocab_size:,}",
        "context, tokens": f"{settings.max_position_embeddings:,}",
        "rotary base": f"{settings.rope_theta:g}",
        "RMSNorm epsilon": f"{settings.rms_norm_eps:g}",
        "embedding's output x": f"{tensor_program.embedding_multiplier(settings):.6g}",
        "each block's output x": f"{tensor_program.residual_multiplier(settings):.6g}",
        "logits x": f"{tensor_program.logit_multiplier(settings):.6g}",
        "query-key products x": f"{tensor_program.attention_multiplier(settings):.6g}",
    }
    if architecture != NATIVE:
        rows["the four scales above"] = "folded into the weights, with a head beside the embedding"
    return table(["", ""], list(rows.items()), numbers=False)


def _training(recipe: Recipe, state: Mapping[str, Any], began: int) -> str:
    train = recipe.train
    shape: str = train.decay_shape
    if shape == "exponential":
        shape += f", halving every {train.decay_half_life_steps:,} steps"
    schedule = "one cosine over the whole run" if train.schedule == "cosine" else f"WSD; decay {shape}"
    rule = "tensor program (Table 6)" if recipe.model.parametrization == "tensor_program" else "standard"
    off = f" without {', '.join(recipe.model.rules_off)}" if recipe.model.rules_off else ""
    rows = {
        "tokens": f"{_tokens(recipe, state, began):,}",
        "steps": f"{state['step']:,} of {recipe.total_steps:,}; ended in the {state['stage']} stage"
        + (f"; the first {began:,} stand for the training before the import" if began else ""),
        "stable stage / decay stage, steps": f"{recipe.stable_steps:,} / {recipe.decay_steps:,}",
        "batch, tokens": f"{train.batch_tokens:,}",
        "row, tokens": f"{recipe.data.sequence_length:,}",
        "schedule": f"{schedule}; {train.warmup_steps:,} steps of warm-up",
        "peak learning rate": f"{train.learning_rate:g} at width {recipe.model.dim_model_base:,}",
        "parametrization": rule + off,
        "optimizer": f"{train.optimizer}, betas {train.adam_beta1:g} and {train.adam_beta2:g}",
        "weight decay": f"{train.weight_decay:g}",
        "gradient norm at most": f"{train.max_grad_norm:g}",
        "precision": train.precision + (", float8 in the blocks" if train.float8 else ""),
        "seed": f"{recipe.seed}",
    }
    return table(["", ""], list(rows.items()), numbers=False)


def _shares(recipe: Recipe) -> dict[str, None]:
    decay = recipe.decay_mixture if recipe.decay_steps else {}
    return dict.fromkeys([*recipe.stages.stable.mixture, *decay])


def _data(recipe: Recipe) -> str:
    stable, decay = recipe.stages.stable.mixture, recipe.decay_mixture if recipe.decay_steps else {}
    rows = []
    for name in _shares(recipe):
        source = recipe.data.sources.get(name)
        shares = [f"{mixture.get(name, 0):.2%}" for mixture in (stable, decay)]
        kind = {"sft": "instructions", "text": "text"}[source.kind] if source else ""
        language = source.language if source else ""
        rows.append([name, *shares, (source.licence if source else "") or "not stated", kind, language])
    return table(["source", "stable", "decay", "licence", "kind", "language"], rows, numbers=False) + (
        "\n\nShares of tokens. The licence of these weights is not stated here; the licences above are those of the data."
    )


def _results(trained: Trained, state: Mapping[str, Any]) -> list[str]:
    """Return what was measured at this very step; of reasoning, also at the stage before."""
    assert trained.run is not None
    run, stage, step = trained.run, state["stage"], state["step"]
    folder = run / "evaluation" / f"step-{step}"

    def own() -> list[str]:
        results = run_results(run)
        if results.get("steps", {}).get(stage) != step:
            return []
        return _heldout(results, stage) + _questions(results, stage)

    parts = _of_file(own, run / RESULTS_FILE)
    if (folder / RESULTS_FILE).exists():
        parts += _of_file(lambda: _benchmarks(read_results(folder)), folder / RESULTS_FILE)
    return ["## Results", *(parts or ["Not evaluated at this step."])]


def _of_file(make: Callable[[], list[str]], path: Path) -> list[str]:
    """Return what ``make`` reads of a file. Raises `XmodelError` naming it if it is damaged, or of another version."""
    try:
        return make()
    except Exception as error:  # such a file fails in any way
        raise XmodelError(complaint(error, path)) from None


def _heldout(results: Mapping[str, Any], stage: str) -> list[str]:
    rows = []
    five_gram = results.get("baselines", {}).get("five_gram", {})
    for name, row in results.get("heldout", {}).get(stage, {}).items():
        bits = f"{row['bits_per_byte']:.3f}" if "bits_per_byte" in row else ""
        grams = f"{five_gram[name]:.3f}" if name in five_gram else ""
        rows.append([name, f"{row['loss']:.3f}", f"{row['perplexity']:.1f}", bits, grams])
    if not rows:
        return []
    head = ["held-out source", "loss, nats a token", "perplexity", "bits a byte", "loss of 5-grams"]
    return ["Text that was held out of training; 5-grams were counted on the same training tokens.", table(head, rows)]


def _questions(results: Mapping[str, Any], stage: str) -> list[str]:
    found = results.get("questions", {})
    stages = [name for name in (("stable", "decay") if stage == "decay" else (stage,)) if name in found]
    if stage not in stages:
        return []
    titles = [f"step {results['steps'][name]:,} ({name})" for name in stages]
    columns = [*stages, *(["majority"] if "majority" in found else [])]
    titles += ["the commonest answer"] if "majority" in found else []
    rows = []
    for task in dict.fromkeys(task for name in columns for task in found[name]["by_task"]):
        entries = [found[name]["by_task"].get(task) for name in columns]
        rows.append([task, *(f"{entry['accuracy']:.1%}" if entry else "" for entry in entries)])
    rows.append(["all", *(f"{found[name]['accuracy']:.1%}" for name in columns)])
    said = f"Held-out questions answered exactly (greedy, {found[stage]['count']:,} questions)."
    return [said, table(["task", *titles], rows)]


def _benchmarks(results: Mapping[str, Any]) -> list[str]:
    rows = []
    for name, task in results["tasks"].items():
        score, interval = shown(task)
        shots = "" if task.get("num_fewshot") is None else f"{task['num_fewshot']}"
        items = measured_part(task, results["settings"]) or f"{task['items']:,}"
        items += f"; {task['cut']:,} requests cut to the context" if task.get("cut") else ""
        title = f"{name}, made-up tasks" if task.get("made_up") else name
        unit = task["metric"] + (", %" if is_share(task["metric"]) else "")
        rows.append([title, unit, score, interval, items, shots])
    if not rows:
        return []
    for name, suite in results.get("suites", {}).items():
        interval = " to ".join(f"{100 * end:.1f}" for end in suite["interval"])
        said = [f"without {', '.join(suite['missing'])}"] if suite["missing"] else []
        if any(results["tasks"].get(task, {}).get("made_up") for task in SUITES[name]):
            said.append("made-up tasks")
        rows.append([f"{TITLES[name]}, average", "%", f"{100 * suite['average']:.2f}", interval, ", ".join(said), ""])
    head = ["benchmark", "metric", "score", "95% interval", "items", "shots"]
    told = "Definitions are lm-evaluation-harness' where it has one. A score over part of a set is no score of the set."
    parts = ["### Benchmarks", told, table(head, rows)]
    if games := played(results):
        outcomes = outcome_table(games)
        worlds = [f"- {plain(f'{name}: {origin(task)}')}" for name, task in games.items()]
        parts += ["### Agents", "How the episodes ended, and the worlds they were played in."]
        parts += [table(*outcomes), "\n".join(worlds)]
    return parts


def _limitations(trained: Trained, recipe: Recipe | None, made_here: bool, began: int) -> str:
    settings, state = trained.settings, trained.state or {}
    small = f"- It is small ({parameter_count(settings):,} parameters"
    small += (
        f", {state['tokens']:,} tokens of training): "
        if made_here and not began and not weights_of(trained.run)
        else "): "
    )
    lines = [
        small + "what it states as a fact is often wrong, and it says so of nothing. Don't rely on its answers.",
        "- It was not aligned or tuned for safety: it can write what is harmful, biased or offensive, and follows any"
        " instruction as well as it can. Put checks of your own before people.",
    ]
    languages = []
    if recipe:
        found = (recipe.data.sources[name].language for name in _shares(recipe) if name in recipe.data.sources)
        languages = list(dict.fromkeys(found))
    if languages:
        lines.append(f"- It has seen no languages but these: {plain(', '.join(languages))}.")
    lines.append(
        f"- It reads at most {settings.max_position_embeddings:,} tokens at once, prompt and answer together"
        + (f", and was trained on rows of {recipe.data.sequence_length:,}" if made_here and recipe else "")
        + "."
    )
    lines.append("- Its benchmarks say little of other uses; measure it on yours.")
    return "\n".join(lines)


def _recipe(recipe: Recipe, made_here: bool) -> str:
    what = "The recipe, which repeats the training" if made_here else "The recipe that came with it"
    text = "\n".join(map(printable, recipe_to_toml(recipe).splitlines()))
    return f"<details>\n<summary>{what}</summary>\n\n{fenced(text, 'toml')}\n\n</details>"
