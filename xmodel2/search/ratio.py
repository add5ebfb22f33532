"""The decay stage by experiment: how much instruction data, of what, for how long, how the rate falls, and against one cosine.

    settings -> which decays to make -> DecayRuns -> rows -> curves over the share, tables of the rest -> ratio.json, figures

A comparison is the recipe's own decay and those that differ from it in one thing. `cosine` and `checkpoints` are about the
schedule alone, so their decays have no instruction data, and each is as long beside its stable stage as the recipe's.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

from xmodel2.errors import XmodelError, nearest
from xmodel2.files import write_json_atomic, write_text_atomic
from xmodel2.recipe import Recipe, load_recipe
from xmodel2.recipe import replace as with_keys
from xmodel2.search.decay import FOR, OWN, Decay, Shape, base_decay, proportional
from xmodel2.search.decay_runs import DecayRuns, Say, Score
from xmodel2.search.ratio_figures import figures
from xmodel2.search.ratio_fit import LEAST_SHARES
from xmodel2.search.ratio_formats import ARMS, format_rows, no_two_formats, score_formats
from xmodel2.search.ratio_summary import Summary
from xmodel2.train.branch import branched
from xmodel2.train.checkpoint import checkpoint_steps
from xmodel2.train.run_dir import RECIPE_FILE

COMPARISONS = ("shares", "mixtures", "length", "shape", "cosine", "checkpoints", "format")


@dataclass(frozen=True)
class RatioSettings:
    """What is compared."""

    compare: tuple[str, ...] = ("shares",)
    """Of `COMPARISONS`, or `all`: those that the data allow."""
    shares: tuple[float, ...] = tuple(i / 10 for i in range(11))
    """Shares of instruction data."""
    seeds: int = 1
    """Pairs of stable stage and decays, each with its own weights and order of the data."""
    lengths: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0)
    """Lengths of the decay, as multiples of the recipe's."""
    checkpoints: int = 5
    """Checkpoints along the stable stage, its end included."""
    rates: tuple[float, ...] = (1.0,)
    """Peak rates at which the two schedules are compared, as multiples of the recipe's."""
    weights: Mapping[str, float] = field(default_factory=dict)
    """Of losses in the combined score; empty: text and answers alike (or instructions, without questions)."""
    swaps: Mapping[str, str] = field(default_factory=dict)
    """Of `mixtures`: an instruction source, and another source of the data that takes its place."""

    def checked(self) -> "RatioSettings":
        """Return them, `all` spelt out. Raises `XmodelError` naming the option."""
        compare = COMPARISONS if "all" in self.compare else self.compare
        for name in compare:
            if name not in COMPARISONS:
                raise XmodelError(
                    f"--compare {name!r}: allowed are all, {', '.join(COMPARISONS)}.{nearest(name, COMPARISONS)}"
                )
        for share in self.shares:
            if not 0 <= share <= 1:
                raise XmodelError(f"--shares {share:g}: a share lies between 0 and 1")
        if "shares" in compare and len(set(self.shares)) < LEAST_SHARES:
            raise XmodelError(f"--shares: a curve needs at least {LEAST_SHARES} different shares")
        for option, least in (("seeds", self.seeds), ("checkpoints", self.checkpoints)):
            if least < 1:
                raise XmodelError(f"--{option} {least}: give at least 1")
        for option, values in (("lengths", self.lengths), ("rates", self.rates)):
            if not values or not all(value > 0 and math.isfinite(value) for value in values):
                raise XmodelError(f"--{option}: give numbers above 0")
        for name, weight in self.weights.items():
            if name not in ("text", "sft", "answers") or not (weight >= 0 and math.isfinite(weight)):
                raise XmodelError(
                    f"--weigh {name}={weight:g}: weights are of text, sft and answers, finite and not negative"
                )
        if self.weights and not sum(self.weights.values()):
            raise XmodelError("--weigh: at least one weight must be above 0")
        return replace(self, compare=tuple(compare))


class Comparison:
    """What is made of a recipe under these settings."""

    def __init__(self, recipe: Recipe, settings: RatioSettings, sources: Sequence[str] = ()) -> None:
        """``sources``: stable runs to branch from, RUN@STEP, one a seed; without any, they are trained.

        Raises `XmodelError` for a recipe without instruction data, without a decay, or with another schedule.
        """
        asked, settings = settings.compare, settings.checked()
        _check_recipe(recipe)
        if "format" in settings.compare and (error := no_two_formats(recipe)):
            if "format" in asked:
                raise error
            settings = replace(settings, compare=tuple(name for name in settings.compare if name != "format"))
        for old in settings.swaps:
            if old not in recipe.stages.decay.sft_mixture:
                raise XmodelError(
                    f"--swap {old}: is no source of stages.decay.sft_mixture.{nearest(old, recipe.stages.decay.sft_mixture)}"
                )
        self.settings = settings
        self.origins: dict[int, Path] = {}
        for source in sources:
            run_dir = Path(source.rpartition("@")[0])
            there = run_dir / RECIPE_FILE
            seed = load_recipe(there).seed if there.exists() else recipe.seed
            found = branched(with_keys(recipe, {"seed": seed}), source)
            if self.origins and found.stable_steps != recipe.stable_steps:
                raise XmodelError(f"--from {source}: all must be at one step; the first is at {recipe.stable_steps}")
            if seed in self.origins:
                raise XmodelError(f"--from {source}: has seed {seed}, as another one; each must have its own")
            recipe = found if not self.origins else recipe
            self.origins[seed] = run_dir
        if self.origins and settings.seeds > len(self.origins):
            raise XmodelError(
                f"--seeds {settings.seeds}: a seed is a stable stage of its own; give --from once for each, or train them here"
            )
        self.recipe = recipe
        self.every = max(1, recipe.stable_steps // settings.checkpoints)
        self.seeds = tuple(self.origins) or tuple(range(recipe.seed, recipe.seed + settings.seeds))

    def points(self) -> list[int]:
        """Return the steps of the stable stage at which decays may begin."""
        stable, least = self.recipe.stable_steps, max(1, self.recipe.train.warmup_steps)
        kept = {*range(self.every, stable, self.every)}
        if self.origins:
            kept = set.intersection(*(set(checkpoint_steps(run)) for run in self.origins.values()))
        kept = {step for step in kept if stable - step >= self.every} if not self.origins else kept
        return sorted(step for step in {*kept, stable} if least <= step <= stable)

    def decays(self) -> list[Decay]:
        """Return the decays to make, each once, a seed after the other."""
        each: dict[str, Callable[[Decay], Iterator[Decay]]] = {
            "shares": lambda base: (
                replace(base, share=share) for share in sorted({*self.settings.shares, base.share})
            ),
            "mixtures": lambda base: (replace(base, mixture=name) for name in self.mixtures()),
            "length": self._lengths,
            "shape": lambda base: (replace(base, shape=shape) for shape in get_args(Shape)),
            "cosine": self._schedules,
            "checkpoints": lambda base: (self._plain(base, step) for step in self.points()),
            "format": lambda base: iter(self._formats(base.seed)),
        }
        wanted = [
            decay
            for seed in self.seeds
            for name in self.settings.compare
            for decay in each[name](base_decay(self.recipe, seed))
        ]
        return list(dict.fromkeys(wanted))

    def mixtures(self) -> list[str]:
        """Return the names of what the share may be made of."""
        sources = [name for name, share in self.recipe.stages.decay.sft_mixture.items() if share > 0]
        if len(sources) < 2:
            return [OWN, *self._swapped()]
        without = [f"without {name}" for name in sources] if len(sources) > 2 else []
        return [OWN, *(f"only {name}" for name in sources), *without, *self._swapped()]

    def _swapped(self) -> list[str]:
        return [f"{new}{FOR}{old}" for old, new in self.settings.swaps.items()]

    def _formats(self, seed: int) -> list[Decay]:
        return [replace(base_decay(self.recipe, seed), mixture=mixture) for mixture in ARMS.values()]

    def _lengths(self, base: Decay) -> Iterator[Decay]:
        for length in self.settings.lengths:
            yield replace(base, steps=max(1, round(base.steps * length)))
        for step in self.points():  # and at equal tokens: an earlier beginning, a longer decay
            yield replace(base, step=step, steps=self.recipe.total_steps - step)

    def _plain(self, base: Decay, step: int) -> Decay:
        return replace(base, step=step, steps=proportional(self.recipe, step), share=0.0)

    def _schedules(self, base: Decay) -> Iterator[Decay]:
        for rate in self.settings.rates:
            for step in self.points():
                plain = replace(self._plain(base, step), rate=rate)
                yield from (plain, replace(plain, schedule="cosine"))

    def run(
        self,
        out: Path,
        score: Score,
        say: Say = lambda text: None,
        in_formats: Score | None = None,
        questions: int | None = None,
        asked: int | None = None,
    ) -> dict[str, Any]:
        """Make what is missing, write ratio.json, law.jsonl and the figures, and return what ratio.json says.

        ``in_formats`` scores the decays of comparison `format`, by ``questions`` at most, ``score`` all by the ``asked`` that
        there are of them: again if an earlier call had another number.
        """
        runs = DecayRuns(self.recipe, out, self.every, self.origins, score, say)
        runs.make(self.decays())
        if asked is not None:
            runs.score_again(asked)
        rows = list(runs.rows().values())
        if in_formats and "format" in self.settings.compare:
            arms = {decay.name for row in rows for decay in self._formats(row["seed"])}
            finished = [row["name"] for row in rows if row["name"] in arms and not row["ended"]]
            score_formats(out, finished, in_formats, questions, say)
        scored = format_rows(out)
        rows = [{**row, "formats": scored.get(row["name"])} for row in rows]
        found = Summary(self.recipe, self.settings.weights, rows).to_dict()
        write_json_atomic(out / "ratio.json", found)
        write_text_atomic(out / "law.jsonl", "".join(json.dumps(point) + "\n" for point in found["law"]))
        for name, figure in figures(found, out).items():
            write_text_atomic(out / "figures" / f"{name}.svg", figure)
        return found


def _check_recipe(recipe: Recipe) -> None:
    if recipe.train.schedule != "wsd":
        raise XmodelError(f"recipe: train.schedule is {recipe.train.schedule!r}; decays need 'wsd'")
    if not recipe.decay_steps:
        raise XmodelError("recipe: stages.decay.tokens is 0; give the decay a length")
    if not any(share > 0 for share in recipe.stages.decay.sft_mixture.values()):
        raise XmodelError(
            "recipe: stages.decay.sft_mixture is empty; name the instruction sources whose share is to be found, and their"
            " parts"
        )
