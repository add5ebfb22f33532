"""Our recipe beside a plain transformers Trainer: the same rows, equally many trials of the rate, the same machine.

    rates of both, first seed -> best rates, all seeds -> loss at equal tokens, tokens to the peer's loss   \\
    rounds of both in turn    -> seconds a token                                                           -> peer.json, figure

Tokens-time is the share of the peer's tokens that ours needs to reach the peer's final loss, times the share of its time a token.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import transformers

from xmodel2.errors import XmodelError
from xmodel2.files import alone_in, write_json_atomic, write_text_atomic
from xmodel2.model.count import block_parameter_count, parameter_count
from xmodel2.recipe import Recipe
from xmodel2.release.reporting.ablation_verdicts import PEER_FILE
from xmodel2.reproduction.peer_compare import PEERS, Tuned, compare
from xmodel2.reproduction.peer_figure import loss_by_tokens
from xmodel2.reproduction.peer_rates import Tried, at_edge, best_rate, tune_both
from xmodel2.reproduction.peer_runs import PeerRuns, Say
from xmodel2.reproduction.peer_trainer import DEFAULT_RATE, check_installed
from xmodel2.search.law_runs import at_length
from xmodel2.search.setting import same_setting
from xmodel2.search.sizes import size_name

_POINTS = 8
"""Held-out losses along the peer's run."""


@dataclass(frozen=True)
class PeerPlan:
    """What is tried of both sides."""

    rates: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0)
    """Our peak rates, as multiples of the recipe's."""
    peer_rates: tuple[float, ...] = (3e-4, 1e-3, 3e-3, 1e-2)
    """Peak rates of the peer."""
    widen: int = 2
    """Rates that each side gets more, as long as the best of one is at its grid's edge."""
    seeds: int = 3
    """Runs of each side at its best rate."""
    lengths: tuple[float, ...] = (0.3, 0.45, 0.6, 0.8, 1.0)
    """Lengths of our runs, as shares of the peer's tokens."""
    rounds: int = 7
    """Of the measurement of time."""

    def checked(self, recipe: Recipe) -> list[int]:
        """Return the lengths in tokens. Raises `XmodelError` naming the option or key that is wrong."""
        if recipe.train.schedule != "wsd" or not recipe.decay_steps:
            raise XmodelError(
                "recipe: the comparison branches decays from one stable stage; it needs train.schedule = 'wsd' and"
                " stages.decay.tokens above 0"
            )
        for option, values in (("rates", self.rates), ("peer-rates", self.peer_rates), ("lengths", self.lengths)):
            if not values or not all(value > 0 and math.isfinite(value) for value in values):
                raise XmodelError(f"--{option}: give numbers above 0")
        if len(set(self.rates)) != len(set(self.peer_rates)):
            raise XmodelError(
                f"--rates has {len(set(self.rates))} rates and --peer-rates {len(set(self.peer_rates))}; give equally many,"
                " so that both sides have the same effort"
            )
        for option, value, least in (("seeds", self.seeds, 1), ("widen", self.widen, 0), ("rounds", self.rounds, 5)):
            if value < least:
                raise XmodelError(f"--{option} {value}: give at least {least}")
        whole = recipe.total_steps * recipe.train.batch_tokens
        lengths = []
        for share in sorted({*self.lengths, 1.0}):
            try:
                shortened = at_length(recipe, round(share * whole))
            except XmodelError:
                raise XmodelError(
                    f"--lengths {share:g}: leaves no stable stage after the {recipe.train.warmup_steps} steps of the warm-up"
                    f" (train.warmup_steps), of {round(share * recipe.total_steps)} in all; give longer ones"
                ) from None
            lengths.append(shortened.total_steps * recipe.train.batch_tokens)
        return lengths


def run_peer(recipe: Recipe, plan: PeerPlan, out: Path, say: Say = print) -> dict[str, Any]:
    """Make what ``out`` lacks of the comparison, and return the contents of peer.json.

    Raises `XmodelError` before anything is trained if a setting is wrong, accelerate is missing, or ``out`` began with another
    recipe or other data; KeyboardInterrupt if a signal stopped it.
    """
    check_installed()
    plan.checked(recipe)
    with alone_in(out):
        recipe = same_setting(recipe, out)
        lengths, seeds = plan.checked(recipe), range(recipe.seed, recipe.seed + plan.seeds)
        trials, kept = len(plan.rates) + len(plan.peer_rates) + 1, plan.seeds * (len(lengths) + 1)
        runs = PeerRuns(
            recipe, out, trials + kept - 2, say
        )  # the best of each side's trials are runs of the first seed
        points = {recipe.total_steps * n // _POINTS for n in range(1, _POINTS + 1)}
        default = runs.peer(DEFAULT_RATE, recipe.seed, points)["loss"]
        ours_tried, peer_tried = tune_both(
            (runs.tuned, plan.rates),
            (lambda rate: runs.peer(rate, recipe.seed, points)["loss"] or math.nan, plan.peer_rates),
            plan.widen,
        )
        peer = {seed: runs.peer(best_rate(peer_tried), seed, points) for seed in seeds}
        ours = {seed: runs.ours(best_rate(ours_tried), seed, lengths) for seed in seeds}
        speed = runs.speed(plan.rounds)
        found = {
            **_setting(recipe, list(seeds)),
            "ours": _ours(recipe, ours_tried, ours),
            "peer": _peer(recipe, peer_tried, peer, default),
            "effort": {"trials_each": len(peer_tried), "widened": len(peer_tried) - len(set(plan.peer_rates))},
            **compare(
                ours,
                {seed: line["loss"] for seed, line in peer.items()},
                runs.tokens,
                speed,
                Tuned(not at_edge(ours_tried), not at_edge(peer_tried)),
            ),
            "speed": {name: speed[name] for name in speed if name not in ("run", *PEERS)},
            "plan": {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(plan).items()},
        }
        write_json_atomic(out / PEER_FILE, found)
        write_text_atomic(out / "figures" / "peer.svg", loss_by_tokens(found))
    return found


def _setting(recipe: Recipe, seeds: list[int]) -> dict[str, Any]:
    decay = recipe.stages.decay
    return {
        "recipe": recipe.name,
        "size": size_name(recipe.model),
        "parameters": {
            "without embeddings": block_parameter_count(recipe.model),
            "with embeddings": parameter_count(recipe.model),
        },
        "tokens": recipe.total_steps * recipe.train.batch_tokens,
        "sft_share_of_decay": decay.sft_share if decay.sft_mixture else 0.0,
        "seeds": seeds,
    }


def _ours(recipe: Recipe, tried: Tried, losses: Mapping[int, Mapping[int, float]]) -> dict[str, Any]:
    lengths = sorted({tokens for found in losses.values() for tokens in found})
    return {
        "rates": _tried(tried),
        "rate": best_rate(tried),
        "at_edge": at_edge(tried),
        "learning_rate": recipe.train.learning_rate * best_rate(tried),
        "documents": "kept apart" if recipe.data.mask_documents else "seen together",
        "lengths": [
            {"tokens": tokens, "losses": {str(seed): _number(found[tokens]) for seed, found in losses.items()}}
            for tokens in lengths
        ],
    }


def _peer(recipe: Recipe, tried: Tried, lines: Mapping[int, dict[str, Any]], default: float | None) -> dict[str, Any]:
    curves = [dict(map(tuple, line["curve"])) for line in lines.values()]
    return {
        "name": "transformers Trainer, LlamaForCausalLM",
        "version": transformers.__version__,
        "rates": _tried(tried),
        "rate": best_rate(tried),
        "at_edge": at_edge(tried),
        "documents": "seen together",
        "losses": {str(seed): line["loss"] for seed, line in lines.items()},
        "losses_documents_apart": {str(seed): line["loss_masked"] for seed, line in lines.items()},
        "curve": [{"tokens": t, "losses": [curve[t] for curve in curves]} for t in sorted(curves[0])],
        "default_rate": DEFAULT_RATE,
        "default_rate_loss": default,
    }


def _tried(tried: Tried) -> list[dict[str, Any]]:
    return [{"rate": rate, "loss": _number(tried[rate])} for rate in sorted(tried)]


def _number(loss: float) -> float | None:
    return loss if math.isfinite(loss) else None
