"""The mixtures that a sources file asks for, as a part of a recipe: DIR/mixture.toml, for a recipe's `base`."""

from typing import Any

from xmodel2.recipe.load import tree_to_toml

MIXTURE_FILE = "mixture.toml"


def mixture_toml(index: dict[str, Any], directory: str) -> str:
    """Return the text of mixture.toml for a data directory."""
    shares = own_shares(index)
    stages: dict[str, Any] = {"stable": {"mixture": shares["stable"]}}
    if shares["decay"]:
        stages["decay"] = {"sft_share": _sft_share(index, shares), "sft_mixture": shares["decay"]}
    used = {**shares["stable"], **shares["decay"]}
    sources = {name: {key: index["sources"][name][key] for key in ("kind", "language", "licence")} for name in used}
    tree = {
        "model": {"vocab_size": index["tokenizer"]["vocab_size"]},
        "data": {"dir": directory, "sources": sources},
        "stages": stages,
    }
    head = "# Shares of tokens by source: a base for recipes. data.dir is as it was given to `data prepare`.\n"
    return head + tree_to_toml(tree)


def _sft_share(index: dict[str, Any], shares: dict[str, dict[str, float]]) -> float:
    """Return the decay stage's share for its own sources: all of it where there are no others, none where it has none."""
    return index.get("sft_share", 0.64) if shares["stable"] and shares["decay"] else float(bool(shares["decay"]))


def own_shares(index: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Return for each stage the shares of its own sources, which sum to 1: by weight or, without weights, by tokens."""
    parts: dict[str, dict[str, float]] = {"stable": {}, "decay": {}}
    for name, entry in index["sources"].items():
        stage = entry.get("stage") or ("decay" if entry["kind"] == "sft" else "stable")
        if stage in parts:
            parts[stage][name] = entry.get("weight") or float(entry["splits"]["train"]["tokens"])
    shares = {}
    for stage, part in parts.items():
        total = sum(part.values())
        shares[stage] = {name: weight / total for name, weight in part.items()}
    return shares


def stage_shares(index: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Return each stage's share of tokens by source.

    In the decay stage, its own sources have ``sft_share`` and those of the stable stage the rest, as in a recipe.
    """
    shares = own_shares(index)
    sft = _sft_share(index, shares)
    stable = {name: share * (1 - sft) for name, share in shares["stable"].items() if sft < 1}
    return {"stable": shares["stable"], "decay": {**stable, **{n: share * sft for n, share in shares["decay"].items()}}}
