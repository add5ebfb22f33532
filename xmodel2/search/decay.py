"""A decay: one of the many ends of a stable stage, its name, and the recipe of its run."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from xmodel2.recipe import Recipe, replace
from xmodel2.recipe.preparation import text_form
from xmodel2.search.rates import at_rate

Shape = Literal["exponential", "linear", "cosine", "1-sqrt"]

OWN = "own"
"""The recipe's own mixture of instruction data; others are `only SOURCE`, `without SOURCE` and `NEW for OLD`."""
AS_TEXT = "as text"
"""The same mixture, each source's documents written as pretraining text."""
FOR = " for "
"""`NEW for OLD`: the same mixture, one source in the place of another."""


@dataclass(frozen=True)
class Decay:
    """One end of a stable stage."""

    seed: int
    step: int
    """Last step of the stable stage."""
    steps: int
    """Steps of the decay."""
    share: float
    """Of instruction data."""
    mixture: str = OWN
    """What that share is made of."""
    shape: Shape = "exponential"
    """How the rate falls; an exponential's half-life is stretched with ``steps``, so that all end at the same rate."""
    rate: float = 1.0
    """Peak rate, as a multiple of the recipe's."""
    schedule: Literal["wsd", "cosine"] = "wsd"
    """`cosine`: a run of its own."""

    @property
    def name(self) -> str:
        """Name of the run directory."""
        parts = [f"seed{self.seed}", f"{self.step}+{self.steps}"]
        parts += [self.shape] if self.schedule == "wsd" else ["one-cosine"]
        parts += [f"sft{self.share:g}"]
        parts += [self.mixture.replace(" ", "-")] if self.mixture != OWN else []
        parts += [f"rate{self.rate:g}"] if self.rate != 1 else []
        return "_".join(parts)

    @property
    def own_steps(self) -> int:
        """Steps that it makes itself."""
        return self.steps if self.schedule == "wsd" else self.step + self.steps

    def recipe(self, base: Recipe) -> Recipe:
        """Return the recipe of its run."""
        batch, half_life = base.train.batch_tokens, base.train.decay_half_life_steps
        return replace(
            at_rate(base, self.rate),
            {
                "name": self.name,
                "seed": self.seed,
                "stages.stable.tokens": self.step * batch,
                "stages.decay.tokens": self.steps * batch,
                "stages.decay.sft_share": self.share,
                "stages.decay.sft_mixture": part_of(base.stages.decay.sft_mixture, self.mixture),
                "train.schedule": self.schedule,
                "train.decay_shape": self.shape,
                "train.decay_half_life_steps": max(1, round(half_life * self.steps / base.decay_steps)),
                "train.keep_checkpoints": 1,
                "train.keep_checkpoint_every": 0,
            },
        )


def part_of(mixture: Mapping[str, float], name: str) -> dict[str, float]:
    """Return what a mixture's name stands for, its shares adding up to 1.

    >>> part_of({"a": 0.5, "b": 0.25, "c": 0.25}, "without a")
    {'b': 0.5, 'c': 0.5}
    >>> part_of({"a": 0.5, "b": 0.5}, "c for a"), part_of({"a": 0.5, "b": 0.5}, "b for a")
    ({'b': 0.5, 'c': 0.5}, {'b': 1.0})
    >>> part_of({"a": 0.5, "b": 0.5}, "as text")
    {'a-as-text': 0.5, 'b-as-text': 0.5}
    """
    if name == AS_TEXT:
        return {text_form(source): share for source, share in mixture.items() if share > 0}
    new, swapped, old = name.partition(FOR)
    if swapped:
        others = {source: share for source, share in mixture.items() if source != old}
        return others | {new: others.get(new, 0.0) + mixture[old]}
    how, _, source = name.partition(" ")
    if how == "only":
        return {source: 1.0}
    kept = {other: share for other, share in mixture.items() if how != "without" or other != source}
    total = sum(kept.values())
    return {other: share / total for other, share in kept.items()}


def base_decay(recipe: Recipe, seed: int) -> Decay:
    """Return the recipe's own decay."""
    share, shape = recipe.stages.decay.sft_share, recipe.train.decay_shape
    return Decay(seed, recipe.stable_steps, recipe.decay_steps, share, shape=shape)


def proportional(recipe: Recipe, step: int) -> int:
    """Return the steps of a decay that is to a stable stage of ``step`` steps as the recipe's is to its own."""
    return max(1, round(recipe.decay_steps * step / recipe.stable_steps))
