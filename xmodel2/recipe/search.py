"""What a hyperparameter search may try (Table 5 by default), and how it spends its trials."""

import math
from dataclasses import field
from typing import Literal

from pydantic import model_validator
from pydantic.dataclasses import dataclass

from xmodel2.recipe.bounds import CONFIG, NotNegative, Positive

Value = int | float | str | bool


@dataclass(frozen=True, config=CONFIG, kw_only=True)
class Range:
    """Values of one key: ``choices``, or from ``low`` to ``high``, both included."""

    low: int | float | None = None
    """Smallest value."""
    high: int | float | None = None
    """Largest value."""
    step: int | float | None = None
    """Distance between values; without it, any value between."""
    log: bool = False
    """Draw evenly in the logarithm; not with ``step``."""
    choices: list[Value] | None = None
    """The values themselves."""

    @model_validator(mode="after")
    def _check(self) -> "Range":
        if not all(math.isfinite(value) for value in (self.low, self.high, self.step) if value is not None):
            raise ValueError("low, high and step must be finite")
        if self.choices is not None:
            if not self.choices or (self.low, self.high, self.step) != (None, None, None) or self.log:
                raise ValueError("give choices, at least one, or low and high, not both")
        elif self.low is None or self.high is None or self.low > self.high:
            raise ValueError("give choices, or low and high with low <= high")
        elif self.step is not None and (self.log or self.step <= 0):
            raise ValueError("step must be positive, and goes with log = false")
        elif self.log and self.low <= 0:
            raise ValueError("low must be positive with log = true")
        return self


def table_5() -> dict[str, Range]:
    """Return the report's search space."""
    return {
        "model.scale_emb": Range(low=2, high=20, step=1),
        "model.dim_model_base": Range(choices=[32, 64, 128, 256, 512, 1024]),
        "model.scale_depth": Range(low=1.0, high=5.0, step=0.1),
        "train.learning_rate": Range(low=0.001, high=0.1, step=0.001),
    }


@dataclass(frozen=True, config=CONFIG, kw_only=True)
class SearchSettings:
    """The search of hyperparameters (`xmodel2 search`)."""

    space: dict[str, Range] = field(default_factory=table_5)
    """Key of the recipe to the values it may take (default: Table 5); keys given here are added to Table 5's."""
    pruner: Literal["median", "hyperband", "none"] = "median"
    """Which trials are ended early, by their held-out losses on the way (train.heldout_every)."""
    startup_trials: NotNegative = 10
    """Trials drawn at random before TPE begins and before any is pruned."""
    top_trials: NotNegative = 3
    """Best trials that are made again with other seeds; the best mean of them is the search's answer."""
    top_seeds: Positive = 3
    """Seeds of each of the top trials, the first one included."""

    @model_validator(mode="after")
    def _add_table_5(self) -> "SearchSettings":
        object.__setattr__(self, "space", table_5() | self.space)
        return self
