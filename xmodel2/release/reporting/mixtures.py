"""What a run was fed (Figure 2): the mixture of each stage, asked for and realised."""

from pathlib import Path
from typing import Any

from xmodel2.files import read_json
from xmodel2.page import table
from xmodel2.plots import colors, pie
from xmodel2.recipe import Recipe
from xmodel2.release.reporting.faults import told
from xmodel2.release.reporting.runs import ReportedRun
from xmodel2.release.reporting.section import Section
from xmodel2.release.reporting.static_curves import figure
from xmodel2.train.run_dir import MIXTURE_FILE


def mixture_sections(run: ReportedRun) -> list[Section]:
    """Return the mixtures' pies and table, none if the recipe names no source."""
    recipe, path = run.recipe, run.path / MIXTURE_FILE
    if not recipe.stages.stable.mixture:
        return []
    return [Section("mixtures", "Mixtures", _pies(recipe) + told(lambda: _shares(recipe, path), path))]


def _stages(recipe: Recipe) -> tuple[dict[str, float], dict[str, float]]:
    return recipe.stages.stable.mixture, recipe.decay_mixture if recipe.decay_steps else {}


def _pies(recipe: Recipe) -> str:
    stable, decay = _stages(recipe)
    color_of = colors(list({**stable, **decay}))
    drawings = figure(pie(stable, "stable stage", color_of), "Stable mixture, share of tokens (as Figure 2)")
    if decay:
        drawings += figure(pie(decay, "decay stage", color_of), "Decay mixture, share of tokens (as Figure 2)")
    return f'<div class="row">{drawings}</div>'


def _shares(recipe: Recipe, path: Path) -> str:
    stable, decay = _stages(recipe)
    taken = (read_json(path) or {"stages": []})["stages"]
    realised = [_realised(stage) for stage in [*taken, {}, {}][:2]]
    rows = []
    for name in {**stable, **decay}:
        row = [name]
        for asked, real in zip((stable, decay), realised, strict=True):
            row += (
                [f"{asked[name]:.3%}", f"{real[name]:.3%}" if name in real else "not yet"]
                if name in asked
                else ["", ""]
            )
        rows.append(row)
    head = ["source", "stable, asked", "stable, realised", "decay, asked", "decay, realised"]
    return table(head, rows, "Asked and so far realised shares of tokens")


def _realised(stage: dict[str, Any]) -> dict[str, float]:
    """Return shares of the tokens that a stage has taken, of an entry in mixture.json; empty if it took none."""
    sources = stage.get("sources", {}) if stage.get("rows") else {}
    return {name: row["share_realised"] for name, row in sources.items()}
