"""Arms of an ablation: recipes that differ from the user's own in one choice of the architecture, or in keys given by hand.

    settings  ->  arms of each comparison (embedding, depth, attention, tokenizer, keys)  ->  recipes (arm, rate, seed)

The recipe itself is the arm `own` of every comparison.
"""

import math
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from xmodel2.errors import XmodelError, nearest
from xmodel2.model.count import block_parameter_count
from xmodel2.recipe import ModelSettings, Recipe
from xmodel2.recipe import replace as with_keys
from xmodel2.search.ablation_text import at_equal_text
from xmodel2.search.rates import at_rate
from xmodel2.search.sizes import size_name
from xmodel2.train.run_dir import differences

OWN = "own"
COMPARISONS = ("embedding", "depth", "attention", "tokenizer", "keys")
ARCHITECTURE = COMPARISONS[:3]
"""Comparisons that need no more than the recipe."""
DEPTHS = (0.25, 0.5, 2.0)
"""Numbers of layers tried, as multiples of the recipe's."""
EQUAL, CLOSE = 0.01, 0.001
"""Share by which parameters that count as equal may differ, and up to which a rounder size is taken."""
_NAME = re.compile(r"\w[\w.+-]*")
_HELD_FIXED = ("name", "seed", "data.dir", "train.heldout_rows")


@dataclass(frozen=True)
class Arm:
    """One side of a comparison."""

    comparison: str
    """Of `COMPARISONS`, or `own`."""
    name: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Keys in which it differs from the recipe."""

    def recipe(self, own: Recipe, rate: float = 1.0, seed: int | None = None) -> Recipe:
        """Return what to train: with peak rates of ``rate`` times its own, measured at the end only."""
        seed = own.seed if seed is None else seed
        recipe = at_rate(with_keys(own, dict(self.changes)), rate)
        name = f"{self.name}_rate{rate:g}_seed{seed}"
        return with_keys(recipe, {"name": name, "seed": seed, "train.heldout_every": 0})


@dataclass(frozen=True)
class AblationSettings:
    """What is compared, and with how much effort."""

    compare: tuple[str, ...] = ARCHITECTURE
    """Of `COMPARISONS`."""
    rates: tuple[float, ...] = (0.5, 1.0, 2.0)
    """Peak rates that every arm tries, as multiples of the recipe's."""
    seeds: int = 3
    """Runs of each arm at its best rate; the recipe's seed and those after it."""
    data: Mapping[str, str] = field(default_factory=dict)
    """Directories of the same documents by another tokenizer, by name of the arm."""
    arms: Mapping[str, str] = field(default_factory=dict)
    """``key=value,key=value`` by name of the arm."""
    at_once: int = 4
    """Runs of one shape that are trained as one, at most."""

    def checked(self) -> "AblationSettings":
        """Return them with what ``data`` and ``arms`` imply, `all` spelt out. Raises `XmodelError` naming the option."""
        chosen = [*self.compare, *["tokenizer"] * bool(self.data), *["keys"] * bool(self.arms)]
        if "all" in chosen:
            chosen = [*ARCHITECTURE, *chosen]
        for name in chosen:
            if name not in (*COMPARISONS, "all"):
                raise XmodelError(
                    f"--compare {name!r}: allowed are all, {', '.join(COMPARISONS)}.{nearest(name, COMPARISONS)}"
                )
        for name, given, option in (
            ("tokenizer", self.data, "--data NAME=DIR"),
            ("keys", self.arms, "--arm NAME:KEY=VALUE"),
        ):
            if name in chosen and not given:
                raise XmodelError(f"--compare {name}: give at least one {option}")
        if not chosen:
            raise XmodelError(f"--compare: give at least one of {', '.join(ARCHITECTURE)}, or --arm, or --data")
        if not self.rates or not all(rate > 0 and math.isfinite(rate) for rate in self.rates):
            raise XmodelError("--rates: give numbers above 0")
        for option, count in (("seeds", self.seeds), ("trials-at-once", self.at_once)):
            if count < 1:
                raise XmodelError(f"--{option} {count}: give at least 1")
        return replace(
            self,
            compare=tuple(name for name in COMPARISONS if name in chosen),
            rates=tuple(sorted({*self.rates})),
        )


def arms_of(recipe: Recipe, settings: AblationSettings) -> dict[str, list[Arm]]:
    """Return the arms of each comparison, `own` first. Raises `XmodelError` if a comparison has no other, or one can't be made."""
    model = recipe.model
    makers: dict[str, Callable[[], list[Arm]]] = {
        "embedding": lambda: _embedding_arms(model),
        "depth": lambda: _depth_arms(model),
        "attention": lambda: _attention_arms(model),
        "tokenizer": lambda: [
            Arm("tokenizer", name, at_equal_text(recipe, name, folder)) for name, folder in settings.data.items()
        ],
        "keys": lambda: [_arm_by_hand(recipe, name, text) for name, text in settings.arms.items()],
    }
    found = {name: [Arm(OWN, OWN), *makers[name]()] for name in settings.compare}
    names = [arm.name for arms in found.values() for arm in arms[1:]]
    for option, given in (("data", settings.data), ("arm", settings.arms)):
        for name in given:
            if not _NAME.fullmatch(name) or name == OWN or names.count(name) > 1:
                raise XmodelError(
                    f"--{option} {name}: an arm needs a name of its own, of letters, digits and . _ + -, not {OWN!r} or one"
                    " of another arm"
                )
    return found


def _embedding_arms(model: ModelSettings) -> list[Arm]:
    tied = model.tie_word_embeddings
    return [Arm("embedding", "untied" if tied else "tied", {"model.tie_word_embeddings": not tied})]


def _depth_arms(model: ModelSettings) -> list[Arm]:
    own = model.num_hidden_layers
    depths = sorted({round(own * share) for share in DEPTHS} - {0, own})
    return [_arm("depth", size_name(shaped), model, shaped) for shaped in (at_equal_blocks(model, d) for d in depths)]


def _attention_arms(model: ModelSettings) -> list[Arm]:
    heads, own = model.num_attention_heads, model.num_key_value_heads
    if heads == 1:
        raise XmodelError("--compare attention: the recipe has one attention head, so there is nothing to share")
    arms = []
    if own < heads:
        multi = _with(model, num_key_value_heads=heads)
        equal = _filled(multi, block_parameter_count(model))
        if equal is None:
            raise XmodelError(
                f"--compare attention: {heads} key/value heads leave no room for a feed-forward at equal parameters; raise"
                " model.intermediate_size"
            )
        arms = [
            _arm("attention", "multi-head", model, multi),
            _arm("attention", "multi-head-equal", model, equal),
        ]
    if own > 1:
        arms.append(_arm("attention", "multi-query", model, _with(model, num_key_value_heads=1)))
    return arms


def at_equal_blocks(model: ModelSettings, layers: int) -> ModelSettings:
    """Return a model of ``layers`` layers and as many block parameters, within 1%.

    Its width is a multiple of the head width; of those that can be, the one whose ratios of feed-forward to width and of queries
    to key/value heads are nearest to the model's. Raises `XmodelError` if none can.
    """
    wanted, head_dim = block_parameter_count(model), model.head_dim
    queries = model.num_attention_heads / model.num_key_value_heads
    proportion = model.intermediate_size / model.hidden_size
    widest = 2 * math.ceil(model.num_attention_heads * math.sqrt(model.num_hidden_layers / layers))
    found: list[tuple[float, ModelSettings]] = []
    for heads in range(1, widest + 1):
        for kv in (kv for kv in range(1, heads + 1) if heads % kv == 0):
            sizes = {"hidden_size": heads * head_dim, "num_attention_heads": heads, "num_key_value_heads": kv}
            shaped = _filled(_with(model, num_hidden_layers=layers, **sizes), wanted)
            if shaped is not None:
                away = abs(math.log(shaped.intermediate_size / shaped.hidden_size / proportion))
                found.append((away + abs(math.log(heads / kv / queries)), shaped))
    if not found:
        raise XmodelError(
            f"--compare depth: {layers} layers of heads {head_dim} wide can't have {wanted:,} block parameters within"
            f" {EQUAL:.0%}; give the recipe more heads, or a larger model.intermediate_size"
        )
    return min(found, key=lambda pair: pair[0])[1]


def _filled(model: ModelSettings, wanted: int) -> ModelSettings | None:
    """Return the model with the feed-forward that brings its blocks to ``wanted`` parameters; None if that fails by 1%."""
    each = block_parameter_count(_with(model, intermediate_size=2)) - block_parameter_count(
        _with(model, intermediate_size=1)
    )
    room = 1 + (wanted - block_parameter_count(_with(model, intermediate_size=1))) / each
    for unit in (64, 32, 16, 8, 4, 2, 1):  # devices like powers of two
        size = unit * round(room / unit)
        apart = abs((size - room) * each) / wanted
        if size > 0 and apart <= (CLOSE if unit > 1 else EQUAL):
            return _with(model, intermediate_size=size)
    return None


def _with(model: ModelSettings, **sizes: Any) -> ModelSettings:
    return replace(model, preset=None, **sizes)


def _arm(comparison: str, name: str, own: ModelSettings, other: ModelSettings) -> Arm:
    return Arm(comparison, name, {f"model.{key}": value for key, _, value in differences(own, other)})


def _arm_by_hand(recipe: Recipe, name: str, text: str) -> Arm:
    where = f"--arm {name}:{text}"
    changes = {}
    for pair in re.split(r",(?=\s*\w+(?:\.[\w-]+)+\s*=)", text):  # a comma before a dotted key, not one inside a list
        key, equals, value = (part.strip() for part in pair.partition("="))
        if not equals or not key:
            raise XmodelError(f"{where}: write it as NAME:key=value,key=value, such as high:train.weight_decay=0.2")
        if key in _HELD_FIXED or key.split(".")[0] == "search":
            why = "; give other data with --data" if key == "data.dir" else ""
            raise XmodelError(f"{where}: {key} must be the same in all arms, or their losses do not compare{why}")
        try:
            changes[key] = tomllib.loads(f"x = {value}")["x"]
        except tomllib.TOMLDecodeError:
            changes[key] = value
    try:
        changed = with_keys(recipe, changes)
    except XmodelError as error:
        raise XmodelError(f"{where}: {str(error).removeprefix('recipe: ')}") from None
    if not differences(recipe, changed):
        raise XmodelError(f"{where}: changes nothing in the recipe")
    return Arm("keys", name, changes)


def parse_arms(arms: Sequence[str]) -> dict[str, str]:
    """Return the keys of arms by name. Raises `XmodelError` for one that is not NAME:key=value, or a name given twice."""
    return _named("arm", ":", arms, "NAME:key=value,key=value")


def parse_data(data: Sequence[str]) -> dict[str, str]:
    """Return the directories by name. Raises `XmodelError` for one that is not NAME=DIR, or a name given twice."""
    return _named("data", "=", data, "NAME=DIR")


def _named(option: str, separator: str, given: Sequence[str], form: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in given:
        name, between, rest = text.partition(separator)
        if not between or not name or not rest:
            raise XmodelError(f"--{option} {text!r}: write it as {form}")
        if name in found:
            raise XmodelError(f"--{option} {name}: is given twice")
        found[name] = rest
    return found
