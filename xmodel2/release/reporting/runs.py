"""The runs that a report tells of, opened once and read on from there."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from xmodel2.page import printable
from xmodel2.recipe import Recipe, load_recipe
from xmodel2.release.reporting.recorded import Recorded
from xmodel2.train.run_dir import RECIPE_FILE


@dataclass(frozen=True)
class ReportedRun:
    """A run directory."""

    path: Path
    label: str
    """What it is called in the report: another name for each run."""
    recipe: Recipe
    recorded: Recorded

    @property
    def ended(self) -> bool:
        """Whether the last step was made."""
        return self.recorded.last_step >= self.recipe.total_steps


def open_runs(folders: Sequence[Path]) -> list[ReportedRun]:
    """Open run directories. Raises `XmodelError` if a recipe cannot be read."""
    recipes = [load_recipe(folder / RECIPE_FILE) for folder in folders]
    labels = run_labels(folders, [recipe.name for recipe in recipes])
    return [
        ReportedRun(folder, label, recipe, Recorded(folder))
        for folder, label, recipe in zip(folders, labels, recipes, strict=True)
    ]


def run_labels(folders: Sequence[Path], names: Sequence[str]) -> list[str]:
    """Return a label for each run: its name; where several have it, the folder too; where that is the same, its path.

    >>> run_labels([Path("runs/a"), Path("runs/b")], ["nano", "nano"])
    ['nano (a)', 'nano (b)']
    """
    labels = list(names)
    for more in (lambda folder: folder.resolve().name, str):
        count = Counter(labels)
        labels = [
            f"{name} ({more(folder)})" if count[label] > 1 else label
            for folder, name, label in zip(folders, names, labels, strict=True)
        ]
    return [printable(label) for label in labels]
