"""Trials: recipes trained to be compared. A loss that is not a number is a result, not a crash.

recipes -> train, each in its run directory -> last held-out losses -> TrialResult
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from xmodel2.errors import XmodelError
from xmodel2.recipe import Recipe
from xmodel2.train import read_metrics, train
from xmodel2.train.guard import DivergedError

Watch = Callable[[int, int, float], bool]
"""Called with (index of the trial, step, held-out loss) at each measurement; True ends that trial."""


@dataclass(frozen=True)
class TrialResult:
    """What a trial ended with."""

    loss: float
    """Held-out nats a token, mean over text sources, at the end; NaN if it diverged."""
    heldout: dict[str, float] = field(default_factory=dict)
    """Held-out nats a token by source."""
    step: int = 0
    """Steps made."""
    seconds: float = 0.0
    """Its own time, or its share of the time of the trials that ran with it."""
    ended: str = ""
    """Why it ended before its last step: "diverged: ...", "pruned"; empty if it did not."""

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it; NaN becomes None."""
        return {**asdict(self), "loss": self.loss if math.isfinite(self.loss) else None}


def mean_text_loss(heldout: dict[str, dict[str, Any]]) -> float:
    """Return the mean loss over text sources, or over all if none is text; NaN if there is none."""
    losses = [row["loss"] for row in heldout.values() if "bits_per_byte" in row] or [
        row["loss"] for row in heldout.values()
    ]
    return sum(losses) / len(losses) if losses else math.nan


def train_trials(recipes: Sequence[Recipe], out: Path, watch: Watch | None = None) -> list[TrialResult]:
    """Train recipes, each in ``out/NAME``, and return their results in order; one that was interrupted goes on."""
    results = []
    for number, recipe in enumerate(recipes):
        _forget_other_shapes(recipe)
        results.append(_alone(recipe, Path(out) / recipe.name, number, watch))
    return results


_compiled: list[tuple[object, ...]] = []


def _forget_other_shapes(recipe: Recipe) -> None:
    """Models of one shape share compiled code; that of other shapes must not add up to the compiler's limit."""
    model, rows = recipe.model, recipe.train.micro_batch_size
    sizes = (model.hidden_size, model.intermediate_size, model.num_attention_heads, model.num_key_value_heads)
    shape = (*sizes, model.vocab_size, rows, recipe.data.sequence_length, recipe.train.precision)
    if _compiled and shape != _compiled[-1]:
        torch._dynamo.reset()
    _compiled[:] = [shape]


def _alone(recipe: Recipe, run_dir: Path, number: int, watch: Watch | None) -> TrialResult:
    begin = time.perf_counter()

    def watched(step: int, heldout: dict[str, dict[str, Any]]) -> bool:
        return watch is not None and watch(number, step, mean_text_loss(heldout))

    try:
        result = train(recipe, run_dir, resume=True, watch=watched, progress=False)
    except DivergedError as error:
        return TrialResult(math.nan, seconds=time.perf_counter() - begin, ended=f"diverged: {error}")
    lines = [line for line in read_metrics(run_dir) if line.get("kind") == "heldout"]
    if not lines or not lines[-1]["heldout"]:
        raise XmodelError(
            f"{recipe.data.dir}: no source has held-out text, which trials are judged by; prepare it with some"
        )
    if not result.finished and not result.ended:
        raise KeyboardInterrupt
    heldout = lines[-1]["heldout"]
    return TrialResult(
        mean_text_loss(heldout),
        {name: row["loss"] for name, row in heldout.items()},
        result.step,
        time.perf_counter() - begin,
        "" if result.finished else "pruned",
    )
