"""Intervals equal published examples, cover as often as they claim, and repeat with their seed."""

import math

import numpy as np
import pytest

from xmodel2.eval.intervals import average_interval, bootstrap_average, bootstrap_ratio, mean_interval, wilson


@pytest.mark.parametrize(
    ("correct", "items", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_as_published(correct: int, items: int, low: float, high: float) -> None:
    """Newcombe, Statistics in Medicine 17, 1998, Table I, method 3."""
    assert wilson(correct, items) == pytest.approx((low, high), abs=5e-5)
    assert wilson(items - correct, items) == pytest.approx((1 - high, 1 - low), abs=5e-5)


def test_wilson_at_its_edges() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
    for items in (1, 7, 500, 10_042):
        for correct in (0, items):
            low, high = wilson(correct, items)
            assert 0 <= low <= correct / items <= high <= 1
            assert high - low > 0
    assert wilson(30, 100, level=0.99)[0] < wilson(30, 100)[0] < wilson(30, 100, level=0.5)[0]


def covers(interval: tuple[float, float], truth: float) -> bool:
    return interval[0] <= truth <= interval[1]


@pytest.mark.parametrize(("share", "items"), [(0.02, 40), (0.25, 25), (0.5, 60), (0.93, 100)])
def test_wilson_covers(share: float, items: int) -> None:
    """By the exact binomial probability of every outcome."""
    chance = [math.comb(items, k) * share**k * (1 - share) ** (items - k) for k in range(items + 1)]
    coverage = sum(p for k, p in enumerate(chance) if covers(wilson(k, items), share))
    assert 0.92 < coverage < 0.985


def test_average_of_tasks_covers_with_few_items_and_hard_tasks() -> None:
    """Eight tasks, one of them almost never answered: where p (1 - p) / n collapses."""
    random = np.random.default_rng(0)
    items = np.array([30, 30, 50, 20, 40, 25, 60, 30])
    shares = np.array([0.3, 0.6, 0.75, 0.45, 0.02, 0.99, 0.9, 0.6])
    inside = 0
    for correct in random.binomial(items, shares, size=(3000, 8)):
        intervals = [wilson(k, n) for k, n in zip(correct, items, strict=True)]
        inside += covers(average_interval(list(correct / items), intervals), float(shares.mean()))
    assert 0.935 < inside / 3000 < 0.975


def test_bootstrap_of_tasks_agrees_with_the_closed_form() -> None:
    random = np.random.default_rng(1)
    tasks = [(random.random(n) < p).astype(float) for n, p in ((1172, 0.39), (2376, 0.71), (500, 0.3), (1838, 0.75))]
    scores = [float(task.mean()) for task in tasks]
    closed = average_interval(scores, [wilson(task.sum(), len(task)) for task in tasks])
    assert bootstrap_average(tasks, draws=20_000) == pytest.approx(closed, abs=0.001)


def test_bootstrap_weighs_tasks_alike_whatever_their_size() -> None:
    low, high = bootstrap_average([np.ones(10), np.zeros(100_000)])
    assert (low, high) == (0.5, 0.5)


def test_bootstrap_of_graded_scores_covers() -> None:
    random = np.random.default_rng(2)
    inside = 0
    for seed in range(250):
        tasks = [random.beta(2, 5, size=80), random.choice([0.0, 0.5, 1.0], p=[0.2, 0.3, 0.5], size=60)]
        inside += covers(bootstrap_average(tasks, draws=400, seed=seed), (2 / 7 + 0.65) / 2)
    assert 0.91 < inside / 250 < 0.98


def test_bootstrap_of_a_ratio_covers() -> None:
    """Documents of very different length, the long ones easier: documents are redrawn whole, with their tokens."""
    random = np.random.default_rng(3)
    inside = 0
    for seed in range(250):
        tokens = random.lognormal(6, 0.5, size=62)  # mean of a lognormal: exp(mu + sigma^2 / 2)
        nats = tokens**0.9 * random.uniform(3.0, 5.0, size=62)
        truth = 4 * math.exp(0.9 * 6 + 0.405 * 0.25) / math.exp(6 + 0.125)
        inside += covers(bootstrap_ratio(nats, tokens, draws=400, seed=seed), truth)
    assert 0.90 < inside / 250 < 0.98


def test_bootstrap_in_parts_is_the_same_kind_of_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    nats, tokens = np.arange(1.0, 201.0), np.full(200, 10.0)
    whole = bootstrap_ratio(nats, tokens, draws=3000)
    monkeypatch.setattr("xmodel2.eval.intervals._CELLS", 5000)
    assert bootstrap_ratio(nats, tokens, draws=3000) == whole


def test_mean_interval_picks_by_the_scores() -> None:
    assert mean_interval([1, 0, 0, 1]) == wilson(2, 4)
    assert mean_interval(np.array([True, False, True])) == wilson(2, 3)
    low, high = mean_interval([0.0, 0.5, 1.0, 0.5] * 50)
    assert 0.4 < low < 0.5 < high < 0.6
    assert mean_interval([0.2, 0.9], seed=1) == mean_interval([0.2, 0.9], seed=1)
