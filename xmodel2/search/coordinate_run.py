"""The whole coordinate check: Table 6's rules, the standard parametrisation, and each rule switched off, over width and depth.

    cases x sizes x seeds -> coordinate.jsonl, a line a model -> coordinate.json, figures/coordinate-{width,depth,rules}.svg

A model that has its line is not trained again, so a check that was interrupted goes on.
"""

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from xmodel2.errors import XmodelError
from xmodel2.files import append_json_line, read_json_lines, write_text_atomic
from xmodel2.recipe import Recipe
from xmodel2.search import coordinate, coordinate_figure
from xmodel2.search.coordinate import Series, Squares, findings, measure, probe_recipe, series
from xmodel2.search.coordinate_figure import Case
from xmodel2.search.sizes import at_size

WIDTHS = (64, 128, 256, 512, 1024, 2048)
DEPTHS = (2, 4, 8, 16, 32)
RULES = ("embedding", "residual", "initialisation", "learning_rate", "head")
OURS, STANDARD = "all rules", "standard"
CASES: dict[str, dict[str, Any]] = {
    OURS: {"model.parametrization": "tensor_program", "model.rules_off": []},
    STANDARD: {"model.parametrization": "standard", "model.rules_off": []},
    **{f"no {rule}": {"model.parametrization": "tensor_program", "model.rules_off": [rule]} for rule in RULES},
}
RESULTS_FILE, SUMMARY_FILE = "coordinate.jsonl", "coordinate.json"

Progress = Callable[[str, int, int], None]
"""Called with what is measured next, how many models are done, and of how many."""


@dataclass(frozen=True)
class _Model:
    """One model of the check."""

    case: str
    axis: str
    size: int
    seed: int
    recipe: Recipe
    steps: int

    @property
    def key(self) -> str:
        """What its measurement depends on."""
        parts = (asdict(self.recipe.model), asdict(self.recipe.train), self.seed, self.steps)  # type: ignore[call-overload]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def run_coordinate_check(
    recipe: Recipe,
    out: Path,
    widths: Sequence[int] = WIDTHS,
    depths: Sequence[int] = DEPTHS,
    seeds: int = 8,
    steps: int = 8,
    cases: Sequence[str] = tuple(CASES),
    progress: Progress = lambda what, done, total: None,
) -> dict[str, Any]:
    """Measure what is missing, write results and figures below ``out``, and return what coordinate.json says.

    Models of all depths have the second of the widths. Raises `XmodelError` for widths that don't divide into heads, and for
    fewer than two widths or depths, since a slope needs two.
    """
    check_sizes(widths, depths)
    widths, depths = sorted(set(widths)), sorted(set(depths))
    models = _models(recipe, widths, depths, seeds, steps, cases)
    squares = _measured(models, Path(out) / RESULTS_FILE, progress)
    found = {case: Case(*(_series(models, squares, case, axis) for axis in ("width", "depth"))) for case in cases}
    summary = _summary(recipe, found, seeds, steps, widths[1])
    write_text_atomic(Path(out) / SUMMARY_FILE, json.dumps(summary) + "\n")
    for name, svg in coordinate_figure.figures(found).items():
        write_text_atomic(Path(out) / "figures" / f"{name}.svg", svg)
    return summary


def check_sizes(widths: Sequence[int], depths: Sequence[int]) -> None:
    """Raise `XmodelError` for fewer than two widths or depths."""
    for flag, sizes in (("--widths", widths), ("--depths", depths)):
        if len(set(sizes)) < 2:
            raise XmodelError(f"{flag} {' '.join(map(str, sizes))}: a slope needs at least two different sizes")


def _models(
    recipe: Recipe, widths: Sequence[int], depths: Sequence[int], seeds: int, steps: int, cases: Sequence[str]
) -> list[_Model]:
    models = []
    for case in cases:
        base = at_size(probe_recipe(recipe, CASES[case]), "width", widths[1])
        for axis, sizes in (("width", widths), ("depth", depths)):
            for size in sizes:
                sized = at_size(base, axis, size)
                models += [_Model(case, axis, size, seed, sized, steps) for seed in range(seeds)]
    return models


def _measured(models: Sequence[_Model], path: Path, progress: Progress) -> dict[str, Squares]:
    """Return the measurements by key, those of earlier calls included; each is a line of the file as soon as it is made."""
    known: dict[str, Squares] = {row["key"]: row["squares"] for row in read_json_lines(path)}
    for done, model in enumerate(models):
        if model.key in known:
            continue
        progress(f"{model.case}, {model.axis} {model.size}, seed {model.seed}", done, len(models))
        known[model.key] = measure(model.recipe, model.seed, model.steps)
        append_json_line(path, {"key": model.key, "squares": known[model.key]})
    return known


def _series(models: Sequence[_Model], squares: dict[str, Squares], case: str, axis: str) -> Series:
    measured: dict[int, list[Squares]] = {}
    for model in models:
        if (model.case, model.axis) == (case, axis):
            measured.setdefault(model.size, []).append(squares[model.key])
    return series(tuple(measured), measured)


def _summary(recipe: Recipe, cases: dict[str, Case], seeds: int, steps: int, depth_width: int) -> dict[str, Any]:
    model, train = recipe.model, recipe.train
    return {
        "name": "coordinate",
        "settings": {
            **{
                key: getattr(model, key)
                for key in ("scale_emb", "dim_model_base", "scale_depth", "init_std", "head_dim")
            },
            "attention_scale": model.attention_scale,
            "optimizer": train.optimizer,
            "learning_rate": coordinate.RATE_SHARE * train.learning_rate,
            "seeds": seeds,
            "steps": steps,
            "tokens": coordinate.ROWS * coordinate.LENGTH,
            "vocab_size": coordinate.VOCAB_SIZE,
            "layers_over_width": coordinate.LAYERS,
            "width_over_depth": depth_width,
        },
        "cases": {name: _case_summary(case) for name, case in cases.items()},
    }


def _case_summary(case: Case) -> dict[str, Any]:
    found = findings(case.width, case.depth)
    return {
        "held": all(finding.held for finding in found),
        "violated": [_rounded(asdict(finding)) for finding in found if not finding.held],
        "findings": [_rounded(asdict(finding)) for finding in found],
        "width": _axis_summary(case.width),
        "depth": _axis_summary(case.depth),
    }


def _axis_summary(series: Series) -> dict[str, Any]:
    """Return sizes, RMS [at the start, of the change after each step] a size, and the slope of each of them."""
    steps = range(len(next(iter(series.rms.values()))[0]))
    slopes = {name: [series.slope(name, step) for step in steps] for name in series.rms}
    return {"sizes": list(series.sizes), "rms": _rounded(series.rms), "slopes": _rounded(slopes)}


def _rounded(value: Any) -> Any:
    """Return nested values with floats of four digits; what is not finite becomes None, as JSON has it."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.4g}") if math.isfinite(value) else None
    return value
