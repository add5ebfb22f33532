"""Figures of a study: history, importance of each key, loss along each key (slices) and over each pair (contours).

Only trials that came to their end are drawn by loss: one that was pruned has no loss that compares. The loss axis stops at
CROWD: above it lie trials that nobody looks at, and that would flatten the rest.
"""

import itertools
import math
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.contour import ContourSet
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator
from numpy.typing import NDArray
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from scipy.interpolate import griddata

from xmodel2.files import write_text_atomic
from xmodel2.plots import BLUE, GREY, ORANGE, svg

LEAST_TRIALS = 4
"""Complete trials below which nothing is drawn of importance, slices and contours."""
CROWD = 0.9
"""Share of the complete trials that the loss axis has room for, at least."""
MOST_KEYS = 5
"""Keys whose pairs are drawn, the most important ones."""


def write_figures(study: Study, folder: Path) -> None:
    """Write history.svg, and with enough complete trials importance.svg, slices.svg and contours.svg."""
    write_text_atomic(folder / "history.svg", history(study))
    trials = _complete(study)
    keys = [key for key in trials[0].params if len({trial.params[key] for trial in trials}) > 1] if trials else []
    if len(trials) < LEAST_TRIALS or not keys:
        return
    weights = importance(study, keys)
    ranked = sorted(keys, key=lambda key: -weights[key])
    write_text_atomic(folder / "importance.svg", importance_figure(weights))
    write_text_atomic(folder / "slices.svg", slices(trials, ranked))
    if len(ranked) > 1:
        write_text_atomic(folder / "contours.svg", contours(trials, ranked[:MOST_KEYS]))


def _complete(study: Study) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def importance(study: Study, keys: Sequence[str]) -> dict[str, float]:
    """Return each key's share of what sets the best trials apart (PED-ANOVA, Watanabe et al. 2023); shares sum to 1.

    The best are a tenth, or four if that is more: of fewer no density can be told.
    """
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances  # brings scikit-learn: seconds

    share = max(0.1, LEAST_TRIALS / len(_complete(study)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        evaluator = PedAnovaImportanceEvaluator(target_quantile=min(share, 0.5))
        found = get_param_importances(study, evaluator=evaluator, params=list(keys))
    return {key: float(found.get(key, 0.0)) for key in keys}


def history(study: Study) -> str:
    """Draw the loss of each trial in the order of their numbers, and the best so far."""
    figure = Figure(figsize=(7.2, 3.8), layout="constrained")
    axes = figure.subplots()
    complete = _complete(study)
    numbers, losses = [trial.number for trial in complete], [trial.value or 0.0 for trial in complete]
    top = _top(losses)
    axes.scatter(numbers, losses, s=18, color=BLUE, label="complete", zorder=3)
    if losses:
        axes.step(numbers, np.minimum.accumulate(losses), where="post", color=ORANGE, label="best so far")
        axes.set_ylim(min(losses) - 0.05 * (top - min(losses)) - 1e-6, top + 1e-6)
    early = study.get_trials(deepcopy=False, states=(TrialState.PRUNED,))
    edge = {"off the scale": ("^", [trial.number for trial in complete if (trial.value or 0.0) > top])}
    for name, marker in (("diverged", "x"), ("refused", "+"), ("pruned", "|")):
        edge[name] = marker, [t.number for t in early if str(t.user_attrs.get("ended", "pruned")).startswith(name)]
    for name, (marker, at) in edge.items():
        if at:  # along the upper edge: they have no loss, or one that is too large
            place = axes.get_xaxis_transform()
            axes.scatter(at, [0.97] * len(at), s=24, marker=marker, color=GREY, label=name, transform=place)
    axes.set(xlabel="trial", ylabel="held-out loss (nats a token)", title="Search history")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False, fontsize=8)
    return svg(figure)


def importance_figure(weights: dict[str, float]) -> str:
    """Draw each key's importance, the largest on top."""
    figure = Figure(figsize=(6.4, 0.8 + 0.36 * len(weights)), layout="constrained")
    axes = figure.subplots()
    ranked = sorted(weights, key=lambda key: weights[key])
    bars = axes.barh(ranked, [weights[key] for key in ranked], color=BLUE)
    axes.bar_label(bars, [f"{weights[key]:.0%}" for key in ranked], padding=3)
    axes.set(
        xlabel="importance (PED-ANOVA)", title="What sets the best trials apart", xlim=(0, 1.1 * max(weights.values()))
    )
    return svg(figure)


def slices(trials: Sequence[FrozenTrial], keys: Sequence[str]) -> str:
    """Draw the loss along each key; later trials are darker."""
    columns = min(3, len(keys))
    rows = math.ceil(len(keys) / columns)
    figure = Figure(figsize=(3.2 * columns, 2.9 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
    losses = np.array([trial.value for trial in trials], dtype=float)
    best, top = int(losses.argmin()), _top(losses.tolist())
    for axes, key in itertools.zip_longest(grid.flat, keys):
        if key is None:
            axes.remove()
            continue
        at = _positions(trials, key)
        axes.scatter(
            at, losses, s=16, c=[t.number for t in trials], cmap="Blues", vmin=-0.5 * len(trials), linewidths=0
        )
        axes.scatter(at[best], losses[best], s=60, facecolors="none", edgecolors=ORANGE, linewidths=1.6)
        _label(axes.xaxis, trials, key)
        axes.set_ylim(losses.min() - 0.05 * (top - losses.min()) - 1e-6, top + 1e-6)
    for row in grid:
        row[0].set_ylabel("held-out loss")
    figure.suptitle("Loss along each key (later trials are darker, the best is circled)", wrap=True)
    return svg(figure)


def contours(trials: Sequence[FrozenTrial], keys: Sequence[str]) -> str:
    """Draw the loss over each pair of keys, interpolated between the trials, which are the dots."""
    count = len(keys) - 1
    figure = Figure(figsize=(2.6 * count + 1.6, 2.4 * count + 0.6), layout="constrained")
    grid = figure.subplots(count, count, sharex="col", sharey="row", squeeze=False)
    losses = np.array([trial.value for trial in trials], dtype=float)
    best, top = int(losses.argmin()), _top(losses.tolist())
    levels = np.linspace(losses.min() - 1e-6, top + 1e-6, 12)
    surfaces = []
    for row, column in itertools.product(range(count), repeat=2):
        axes = grid[row][column]
        if column > row:
            axes.remove()
            continue
        x, y = _positions(trials, keys[column]), _positions(trials, keys[row + 1])
        surfaces += _surface(axes, x, y, np.minimum(losses, top), levels)
        axes.scatter(x, y, s=8, color=ORANGE, linewidths=0)
        axes.scatter(x[best], y[best], s=60, facecolors="none", edgecolors=ORANGE, linewidths=1.6)
        axes.use_sticky_edges = False  # or trials at an end of a range are cut by the frame
        axes.margins(0.06)
        if row == count - 1:
            _label(axes.xaxis, trials, keys[column])
        if column == 0:
            _label(axes.yaxis, trials, keys[row + 1])
    if surfaces:
        figure.colorbar(surfaces[0], ax=grid[0][0], label="held-out loss", format="%.2f", location="right")
    figure.suptitle("Loss over pairs of keys (best trial circled)")
    return svg(figure)


def _surface(
    axes: Axes, x: NDArray[np.float64], y: NDArray[np.float64], losses: NDArray[np.float64], levels: NDArray[np.float64]
) -> list[ContourSet]:
    """Draw what is interpolated linearly between points; nothing if they lie on one line."""
    points = np.stack([x, y], axis=1)
    size = np.ptp(points, axis=0)
    if (size == 0).any() or np.linalg.matrix_rank((points - points.mean(axis=0)) / size, tol=1e-6) < 2:
        return []
    xs, ys = np.meshgrid(np.linspace(x.min(), x.max(), 60), np.linspace(y.min(), y.max(), 60))
    surface = griddata(points / size, losses, (xs / size[0], ys / size[1]), method="linear")
    return [axes.contourf(xs, ys, surface, levels=levels, cmap="Blues_r")]


def _top(losses: Sequence[float]) -> float:
    """Return where the loss axis ends: a little above the loss below which CROWD of the trials lie."""
    if not losses:
        return 1.0
    low, high = min(losses), float(np.quantile(losses, CROWD))
    return high + 0.15 * max(high - low, 1e-3)


def _positions(trials: Sequence[FrozenTrial], key: str) -> NDArray[np.float64]:
    """Return where each trial lies on the key's axis: choices by their order, logarithmic ranges by their logarithm."""
    distribution = trials[-1].distributions[key]
    values = [trial.params[key] for trial in trials]
    if isinstance(distribution, CategoricalDistribution):
        return np.array([distribution.choices.index(value) for value in values], dtype=float)
    return np.log10(np.array(values, dtype=float)) if _is_log(trials, key) else np.array(values, dtype=float)


def _is_log(trials: Sequence[FrozenTrial], key: str) -> bool:
    distribution = trials[-1].distributions[key]
    return isinstance(distribution, FloatDistribution | IntDistribution) and distribution.log


def _label(axis: Axis, trials: Sequence[FrozenTrial], key: str) -> None:
    """Name an axis and give its ticks the key's own values."""
    axis.set_label_text(key)
    distribution = trials[-1].distributions[key]
    if isinstance(distribution, CategoricalDistribution):
        choices = distribution.choices
        axis.set_major_locator(FixedLocator(list(range(len(choices)))))
        axis.set_major_formatter(FuncFormatter(lambda at, _: str(choices[round(at)]) if 0 <= at < len(choices) else ""))
    elif _is_log(trials, key):
        axis.set_major_formatter(FuncFormatter(lambda at, _: f"{10**at:.2g}"))
