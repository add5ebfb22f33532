"""What a trial ends with. A loss that is not a number is a result, not a crash."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from xmodel2.errors import XmodelError
from xmodel2.recipe import Recipe

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


def mean_text_loss(heldout: dict[str, dict[str, Any]]) -> float:
    """Return the mean loss over text sources, or over all if none is text; NaN if there is none."""
    losses = [row["loss"] for row in heldout.values() if "bits_per_byte" in row] or [
        row["loss"] for row in heldout.values()
    ]
    return sum(losses) / len(losses) if losses else math.nan


def last_heldout(lines: Iterable[dict[str, Any]], recipe: Recipe) -> dict[str, dict[str, Any]]:
    """Return the last held-out losses by source of a run's metrics. Raises `XmodelError` if its data has none."""
    measured = [line["heldout"] for line in lines if line.get("kind") == "heldout"]
    if not measured or not measured[-1]:
        raise no_heldout(recipe)
    last: dict[str, dict[str, Any]] = measured[-1]
    return last


def no_heldout(recipe: Recipe) -> XmodelError:
    """Return the error for data that nothing can be judged by."""
    return XmodelError(
        f"{recipe.data.dir}: no source has held-out text, which trials are judged by; prepare it with some"
    )
