"""What the report's folders hold for its claims, read when a claim asks for it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from xmodel2.eval.result_files import RESULTS_FILE
from xmodel2.files import read_json
from xmodel2.model.count import block_parameter_count
from xmodel2.recipe import Recipe, load_recipe
from xmodel2.release.results import run_results, step_folders
from xmodel2.train.metrics import METRICS_FILE
from xmodel2.train.run_dir import RECIPE_FILE


class Evidence:
    """What the folders hold, read when a claim asks for it: a damaged file costs the claims that rest on it, and no other."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = folders
        self.path = folders[0]
        """What was read last."""

    @cached_property
    def runs(self) -> list["RunFound"]:
        """The run directories among the folders."""
        found = [path for path in self._folders if (path / METRICS_FILE).exists() and (path / RECIPE_FILE).exists()]
        return [RunFound(self, path, load_recipe(path / RECIPE_FILE)) for path in found]

    def read(self, path: Path) -> Any:
        """Return the value in a JSON file, None if there is no file."""
        self.path = path
        return read_json(path)

    def study(self, name: str) -> dict[str, Any]:
        """Return a file of results, of the first folder that has it; empty if none has."""
        return next((found for folder in self._folders if (found := self.read(folder / name)) is not None), {})


@dataclass(frozen=True)
class RunFound:
    """What was measured of one run."""

    evidence: Evidence
    folder: Path
    recipe: Recipe

    @property
    def scale(self) -> str:
        """Size and length of the run."""
        tokens = self.recipe.total_steps * self.recipe.train.batch_tokens
        return f"{short(block_parameter_count(self.recipe.model))} parameters in blocks, {short(tokens)} tokens"

    @property
    def results(self) -> dict[str, Any]:
        """Held-out losses and questions by stage."""
        self.evidence.path = self.folder / RESULTS_FILE
        return run_results(self.folder)

    def newest(self, kind: str, name: str, key: str = "") -> Any:
        """Return the last step's file of a name below RUN/``kind``, or its part ``key``; None if no step has it."""
        for folder in reversed(step_folders(self.folder, kind)):
            found = self.evidence.read(folder / name)
            if found is not None and (found := found.get(key) if key else found):
                return found
        return None


def short(number: float) -> str:
    """Return a count in three digits.

    >>> short(1_251_755_520)
    '1.25B'
    """
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.0f}"


def counted(number: int, what: str) -> str:
    """Return a number of things.

    >>> counted(1, "seed"), counted(3, "seed")
    ('1 seed', '3 seeds')
    """
    return f"{number} {what}{'s'[: number != 1]}"
