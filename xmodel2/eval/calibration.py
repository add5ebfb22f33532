"""Whether a model is as often right as it says (Figure 4): the probability it gives its chosen option, against accuracy.

Confidence is softmax over the options' log-likelihoods, at the option chosen; ten equal bins. Intervals are 95%.
"""

from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import norm

from xmodel2.errors import XmodelError
from xmodel2.eval.choices import Choices, read_choices
from xmodel2.eval.intervals import wilson
from xmodel2.eval.result_files import read_results
from xmodel2.eval.temperature import FEWEST, cross_fit, fit_temperature

BINS = 10
_QUANTILES = (0.025, 0.975)


def calibrate_evaluation(folder: Path, task: str, draws: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Return `calibrate` of a task of an evaluation's folder, with ``task``, ``model``, ``settings`` and items in all ``of``.

    Raises `XmodelError` if the evaluation did not finish that task, or it is not multiple choice.
    """
    results = read_results(folder)
    if task not in results["tasks"]:
        there = ", ".join(results["tasks"]) or "no task"
        raise XmodelError(f"{folder}: has {there}, and not {task}; evaluate it there first, or give another --task")
    told = {
        "task": task,
        "model": results["model"],
        "settings": results["settings"],
        "of": results["tasks"][task].get("of"),
    }
    return told | calibrate(read_choices(folder, task), draws, seed)


def calibrate(choices: Choices, draws: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Return `measures` of all items, of each subject (``parts``), and temperature scaling before and after.

    Temperature scaling is judged on items that it was not fitted on: each half at the temperature of the other.
    """
    found = measures(choices, draws=draws, seed=seed)
    by_part = {}
    named = sorted(set(choices.parts))
    for part in named if len(named) > 1 else ():
        own = choices.subset(np.array([name == part for name in choices.parts]))
        by_part[part] = _summary(measures(own, draws=200, seed=seed))
    options = choices.counts
    return {
        "items": len(choices.targets),
        "options": sorted({int(count) for count in options}),
        "guess": {
            "accuracy": float((1 / options).mean()),
            "brier": float((1 - 1 / options).mean()),
            "nll": float(np.log(options).mean()),
        },
        **found,
        "parts": by_part,
        "temperature": _scaled(choices, draws, seed) if len(options) > 1 else None,
    }


def measures(
    choices: Choices, temperature: float | np.ndarray = 1.0, draws: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """Return what can be said of the options' probabilities at a temperature: one for all items, or one for each [N].

    ``ece``: expected calibration error, the mean distance of accuracy from confidence over bins, weighted by items; of it
    ``over_confidence`` lies in bins less often right than they say, ``under_confidence`` in the others. ``ece_by_chance``:
    what a calibrated model with these confidences would show. ``ece_debiased``: less the error that chance adds (Kumar,
    Liang, Ma, "Verified uncertainty calibration", 2019). ``ece_adaptive``: bins with equal numbers of items (Nixon et al.,
    2019). ``mce``: the largest distance of a bin. ``brier``: squared error summed over the options. ``nll``: nats of the
    right option. ``gap``: mean confidence less accuracy. Intervals are None for fewer than `FEWEST` items, and for such as
    are all alike.
    """
    probabilities, targets = choices.probabilities(temperature), choices.targets
    confidence = probabilities.max(1)
    correct = (probabilities.argmax(1) == targets).astype(float)
    right = np.zeros_like(probabilities)
    right[np.arange(len(targets)), targets] = 1.0
    brier = ((probabilities - right) ** 2).sum(1)
    nll = choices.nats(temperature)
    bins = _bins(confidence, np.arange(1, BINS) / BINS)
    gaps = _gaps(bins, confidence - correct)
    rows = _rows(bins, confidence, correct)
    worst = max((row for row in rows if row["items"]), key=lambda row: abs(row["confidence"] - row["accuracy"]))
    adaptive = _bins(confidence, np.quantile(confidence, np.arange(1, BINS) / BINS))
    ece = float(np.abs(gaps).sum())
    chance = _by_chance(bins, confidence, draws, seed)
    means = {"brier": brier, "nll": nll, "gap": confidence - correct}
    drawn = _bootstrap(bins, np.stack(list(means.values()), 1), confidence - correct, draws, seed)
    low, high = wilson(int(correct.sum()), len(correct))
    return {
        "accuracy": _interval(correct.mean(), low, high),
        "confidence": float(confidence.mean()),
        **{
            name: _drawn_interval(float(values.mean()), drawn[:, 1 + column], len(correct))
            for column, (name, values) in enumerate(means.items())
        },
        "ece": _ece_interval(ece, drawn[:, 0], chance, len(correct)),
        "ece_by_chance": {"mean": float(chance.mean()), "high": float(np.quantile(chance, _QUANTILES[1]))},
        "ece_debiased": _debiased(rows),
        "ece_adaptive": float(np.abs(_gaps(adaptive, confidence - correct)).sum()),
        "over_confidence": float(gaps[gaps > 0].sum()),
        "under_confidence": float(np.abs(gaps[gaps < 0]).sum()),
        "mce": {"value": abs(worst["confidence"] - worst["accuracy"]), "bin": worst["bin"], "items": worst["items"]},
        "bins": rows,
    }


def _bins(confidence: np.ndarray, inner_edges: np.ndarray) -> np.ndarray:
    """Return the bin of each item [N]; a bin has its upper edge, not its lower."""
    return np.searchsorted(inner_edges, confidence, side="left")


def _gaps(bins: np.ndarray, over: np.ndarray) -> np.ndarray:
    """Return each bin's sum of confidence less correctness [N] over all items: its part of the signed error [BINS]."""
    return np.bincount(bins, over, minlength=BINS) / len(bins)


def _rows(bins: np.ndarray, confidence: np.ndarray, correct: np.ndarray) -> list[dict[str, Any]]:
    rows = []
    for number in range(BINS):
        inside = bins == number
        row: dict[str, Any] = {"bin": [number / BINS, (number + 1) / BINS], "items": int(inside.sum())}
        if row["items"]:
            low, high = wilson(int(correct[inside].sum()), row["items"])
            row |= {"confidence": float(confidence[inside].mean()), "accuracy": float(correct[inside].mean())}
            row["interval"] = [low, high]
        rows.append(row)
    return rows


def _by_chance(bins: np.ndarray, confidence: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """Return the error in draws where each item is right as often as its confidence says [draws] (Bröcker, Smith, 2007)."""
    rng = np.random.default_rng(seed)
    errors = [np.abs(_gaps(bins, confidence - (rng.random(len(bins)) < confidence))).sum() for _ in range(draws)]
    return np.array(errors)


def _bootstrap(bins: np.ndarray, means: np.ndarray, over: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """Return the calibration error and the means of ``means`` [N, M] over items drawn with replacement [draws, 1 + M]."""
    rng = np.random.default_rng(seed + 1)
    count = len(bins)
    by_bin = np.zeros((count, BINS))
    by_bin[np.arange(count), bins] = over
    columns = np.hstack([by_bin, means]) / count
    drawn = []
    for _ in range(draws):
        times = np.bincount(rng.integers(0, count, count), minlength=count)
        sums = times @ columns
        drawn.append(np.concatenate([[np.abs(sums[:BINS]).sum()], sums[BINS:]]))
    return np.array(drawn)


def _drawn_interval(value: float, drawn: np.ndarray, items: int) -> dict[str, float | None]:
    """Return a mean with the percentiles of what the bootstrap drew."""
    if items < FEWEST or np.ptp(drawn) < 1e-12:
        return _interval(value, None, None)
    return _interval(value, *np.quantile(drawn, _QUANTILES))


def _ece_interval(ece: float, drawn: np.ndarray, chance: np.ndarray, items: int) -> dict[str, float | None]:
    """Return the error with an interval: down to 0 unless a calibrated model would show less, up to the bootstrap's end.

    Drawing items again adds to the error what chance has added before, so above what chance explains the lower end is the
    bootstrap's turned round. Of true values 92 to 98% lie inside for 30 to 3,000 items, calibrated or not; inside the
    bootstrap's own percentiles lie none if the model is calibrated.
    """
    high = _drawn_interval(ece, drawn, items)["high"]
    if high is None:
        return _interval(ece, None, None)
    calibrated = ece <= np.quantile(chance, _QUANTILES[1])
    return _interval(ece, 0.0 if calibrated else max(0.0, 2 * ece - high), high)


def _debiased(rows: list[dict[str, Any]]) -> float:
    """Return 2 error - E[error], where a bin's accuracy is drawn from the normal distribution about the one seen.

    In closed form, by the mean of a folded normal distribution; not below 0.
    """
    seen = [row for row in rows if row["items"]]
    items = np.array([row["items"] for row in seen])
    accuracy = np.array([row["accuracy"] for row in seen])
    gap = np.abs(np.array([row["confidence"] for row in seen]) - accuracy)
    error = np.maximum(np.sqrt(accuracy * (1 - accuracy) / items), 1e-12)
    expected = error * np.sqrt(2 / np.pi) * np.exp(-((gap / error) ** 2) / 2) + gap * (1 - 2 * norm.cdf(-gap / error))
    return max(0.0, float((items * (2 * gap - expected)).sum() / items.sum()))


def _interval(value: float, low: float | None, high: float | None) -> dict[str, float | None]:
    return {
        "value": float(value),
        "low": None if low is None else float(low),
        "high": None if high is None else float(high),
    }


def _summary(found: dict[str, Any]) -> dict[str, Any]:
    """Return what a subject, with few items, can bear."""
    kept = ("accuracy", "confidence", "gap", "ece", "ece_by_chance", "brier", "nll")
    return {"items": sum(row["items"] for row in found["bins"])} | {key: found[key] for key in kept}


def _scaled(choices: Choices, draws: int, seed: int) -> dict[str, Any]:
    whole = fit_temperature(choices)
    temperature_N, used = cross_fit(choices, seed)
    return {
        **_interval(whole.value, whole.low, whole.high),
        "at_bound": whole.at_bound,
        "determined": whole.determined,
        "halves": [half.value for half in used],
        "after": measures(choices, temperature_N, draws, seed),
    }
