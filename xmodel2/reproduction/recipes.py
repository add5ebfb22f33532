"""The recipes of a reproduction: searches, base and final model, written from a scale and from what was found before."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xmodel2.recipe import Recipe, load_recipe, recipe_from_dict
from xmodel2.reproduction.kinds import INSTRUCTIONS, SFT_SHARE, TEXT, Kind
from xmodel2.reproduction.scales import Length, Scale

PROMPTS = ("The history of", "def main():", "The answer is")


def search_recipe(scale: Scale, data: Path, kinds: Mapping[str, Kind]) -> Recipe:
    """Return the recipe whose hyperparameters are searched."""
    startup = max(6, scale.trials // 5)
    extra = {"search": {"startup_trials": startup}, "train": {"heldout_every": max(1, scale.search_length.stable // 3)}}
    return _recipe("search", scale, scale.search, scale.search_length, data, kinds, extra)


def carry_recipe(scale: Scale, data: Path, kinds: Mapping[str, Kind]) -> Recipe:
    """Return the recipe of the search whose answer is carried over: the small model's, longer, with more repeats.

    The rate has Table 5's range, drawn evenly in its logarithm: few trials are lost to rates that no model bears.
    """
    carry = scale.carry
    assert carry is not None
    rate = {"low": 0.001, "high": 0.1, "log": True}
    search = {
        "startup_trials": max(6, carry.trials // 4),
        "top_trials": carry.top_trials,
        "top_seeds": carry.top_seeds,
        "space": {"train.learning_rate": rate},
    }
    extra = {"search": search, "train": {"heldout_every": max(1, carry.length.stable // 3)}}
    return _recipe("carry", scale, scale.search, carry.length, data, kinds, extra)


def base_recipe(scale: Scale, data: Path, kinds: Mapping[str, Kind], best: Path) -> Recipe:
    """Return the recipe that comparisons change one thing of, with the search's hyperparameters."""
    return _recipe("base", scale, scale.base, scale.base_length, data, kinds, found(best))


def final_recipe(scale: Scale, data: Path, kinds: Mapping[str, Kind], best: Path) -> Recipe:
    """Return the recipe of the final model, with the search's hyperparameters; its decay is given the ratio's share."""
    extra = found(best)
    length = scale.final_length
    extra["train"] |= {"checkpoint_every": max(1, length.stable // 8), "heldout_every": max(1, length.stable // 16)}
    extra["evaluation"] = {"prompts": list(PROMPTS)}
    return _recipe("final", scale, scale.final, length, data, kinds, extra)


def found(best: Path) -> dict[str, Any]:
    """Return the hyperparameters of the search's answer as a part of a recipe."""
    recipe = load_recipe(best)
    tree: dict[str, Any] = {}
    for key in recipe.search.space:
        section, _, name = key.partition(".")
        tree.setdefault(section, {})[name] = getattr(getattr(recipe, section), name)
    return tree


def _recipe(
    name: str,
    scale: Scale,
    model: Mapping[str, Any],
    length: Length,
    data: Path,
    kinds: Mapping[str, Kind],
    extra: dict[str, Any],
) -> Recipe:
    stable = _shares(kinds, TEXT)
    sft = _shares(kinds, INSTRUCTIONS)
    tree: dict[str, Any] = {
        "name": f"{scale.name}-{name}",
        "model": {
            **model,
            "vocab_size": scale.vocab_size,
            "max_position_embeddings": max(scale.context if name == "final" else 256, length.sequence_length),
        },
        "data": {"dir": str(data), "sequence_length": length.sequence_length},
        "stages": {
            "stable": {"tokens": length.stable_tokens, "mixture": stable},
            "decay": {"tokens": length.decay_tokens, "sft_share": SFT_SHARE, "sft_mixture": sft},
        },
        "train": {
            "warmup_steps": length.warmup,
            "decay_half_life_steps": length.half_life,
            "batch_tokens": length.batch_tokens,
            "micro_batch_size": length.micro_batch_size,
            "checkpoint_every": 100_000,
            "heldout_every": 0,
            "heldout_rows": 128 if name == "base" else 32,
            "norms_every": 0 if name != "final" else 100,
            "trackers": [],
        },
    }
    return recipe_from_dict(_merged(tree, extra))


def _shares(kinds: Mapping[str, Kind], stage: Mapping[str, Kind]) -> dict[str, float]:
    own = {name: kind.share for name, kind in kinds.items() if name in stage}
    total = sum(own.values())
    return {name: share / total for name, share in own.items()}


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    both = {key: _merged(below[key], above[key]) for key in below.keys() & above.keys() if isinstance(below[key], dict)}
    return {**below, **above, **both}
