"""Optimum and drift: what is known is found again, within its interval."""

import math
import random
from dataclasses import replace

import pytest

from xmodel2.search.optimum import drift
from xmodel2.search.sweep import Cell
from xmodel2.search.transfer import verdict
from xmodel2.search.transfer_figure import sweep_figure


def cells(per_doubling: float, noise: float = 0.0, seeds: int = 3, edge: bool = False) -> list[Cell]:
    """Parabolas whose lowest point moves by ``per_doubling`` octaves a doubling of width."""
    drawn = random.Random(0)
    found = []
    for index, size in enumerate((64, 128, 256, 512)):
        best = 0.3 + per_doubling * index
        added = [drawn.gauss(0, 0.1) for _ in range(seeds)]
        for octave in range(-1 if edge else -4, 6):
            for seed in range(seeds if abs(octave - best) <= 1.5 else 1):
                loss = 3 + 0.05 * (octave - best) ** 2 + added[seed] + drawn.gauss(0, noise)
                found.append(Cell("s", "tensor_program", size, octave, 2.0**octave, seed, loss))
    return found


@pytest.mark.parametrize("per_doubling", [0.0, -0.5, 0.9])
def test_a_known_drift_is_found_and_covered(per_doubling: float) -> None:
    moved = drift(cells(per_doubling, noise=0.004))
    assert moved.slope == pytest.approx(per_doubling, abs=0.1)
    assert moved.interval is not None
    assert moved.interval[0] <= 3 * per_doubling <= moved.interval[1]
    assert moved.octaves == pytest.approx(3 * per_doubling, abs=0.25)
    assert moved.noise == pytest.approx(0.004, rel=0.5)
    assert not any(optimum.at_edge for optimum in moved.optima)


def test_what_a_seed_adds_to_all_values_moves_nothing() -> None:
    exact = drift(cells(0.0, noise=1e-9))
    assert exact.octaves == pytest.approx(0, abs=1e-3)
    assert exact.optima[0].octave == pytest.approx(0.3, abs=1e-3)


def test_without_seeds_there_is_no_interval() -> None:
    moved = drift(cells(0.0, seeds=1))
    assert moved.interval is None
    assert moved.noise is None
    assert verdict(moved) == "not told: one seed has no interval"
    assert verdict(drift(cells(0.9, seeds=1))) == "not told: one seed has no interval"


def test_verdicts() -> None:
    assert verdict(drift(cells(0.0, noise=0.001))) == "held"
    assert verdict(drift(cells(0.9, noise=0.001))) == "not held"
    assert verdict(drift(cells(-0.9, edge=True))).startswith("not told")


def test_a_loss_that_is_not_a_number_counts_as_the_worst() -> None:
    known = cells(0.0)
    known.append(Cell("s", "tensor_program", 64, 4.0, 16.0, 0, math.nan))
    assert drift(known).optima[0].octave == pytest.approx(0.3, abs=0.05)


def test_a_size_that_diverged_at_all_values_has_no_optimum() -> None:
    known = [replace(cell, loss=math.nan) if cell.size == 512 else cell for cell in cells(0.0)]
    moved = drift(known)
    assert moved.optima[-1].octave is None
    assert moved.octaves == pytest.approx(0, abs=1e-3)
    assert sweep_figure(known, "train.learning_rate", "width").startswith("<svg")
    nothing = drift([replace(cell, loss=math.nan) for cell in known])
    assert nothing.octaves is None
    assert verdict(nothing).startswith("not told")
    assert sweep_figure([replace(cell, loss=math.nan) for cell in known], "train.learning_rate", "width")


def grid(far_noise: float, seeds: int) -> list[Cell]:
    """All values with all seeds, the same optimum at each size; losses of the two highest values are noisier."""
    drawn = random.Random(1)
    found = []
    for size in (64, 128, 256, 512):
        for octave in range(-3, 4):
            for seed in range(seeds):
                noise = far_noise if octave > 1 else 0.002
                loss = 3 + 0.05 * (octave + 0.4) ** 2 + drawn.gauss(0, noise)
                found.append(Cell("s", "tensor_program", size, octave, 2.0**octave, seed, loss))
    return found


def test_with_enough_seeds_noise_far_from_the_optimum_does_not_widen_the_interval() -> None:
    quiet, noisy = drift(grid(0.002, 6)), drift(grid(0.08, 6))
    assert quiet.interval is not None
    assert noisy.interval is not None
    assert noisy.interval == pytest.approx(quiet.interval, abs=1e-6)
    assert noisy.interval[0] <= 0 <= noisy.interval[1]
    few = drift(grid(0.08, 3)).interval
    assert few is not None
    assert few[1] - few[0] > 3 * (noisy.interval[1] - noisy.interval[0])


def test_redrawn_seeds_vary_as_a_mean_does() -> None:
    noise, halves = 0.02, []
    for trial in range(40):
        drawn = random.Random(trial)
        known = [
            Cell("s", "tensor_program", 64, octave, 2.0**octave, seed, 3 + 0.5 * octave**2 + drawn.gauss(0, noise))
            for octave in (-1.0, 0.0, 1.0)
            for seed in range(6)
        ]
        low, high = drift(known).optima[0].interval or (0.0, 0.0)
        halves.append((high - low) / 2)
    # The vertex is (y[-1] - y[1]) / (4 * 0.5) octaves.
    assert sum(halves) / len(halves) == pytest.approx(1.96 * noise / math.sqrt(6) * math.sqrt(2) / 2, rel=0.15)


def test_a_best_value_beside_one_that_diverged_is_at_an_edge() -> None:
    known = [replace(cell, loss=math.nan) if cell.octave == 1 else cell for cell in cells(0.0, seeds=1)]
    moved = drift(known)
    assert all(optimum.at_edge for optimum in moved.optima)
    assert verdict(moved).startswith("not told")


def test_regret_is_what_the_recipes_own_value_loses() -> None:
    optimum = drift(cells(0.0, seeds=1)).optima[0]
    assert optimum.regret == pytest.approx(0, abs=1e-9)
    far = drift([c for c in cells(0.9, seeds=1) if c.size == 512]).optima[0]
    assert far.regret == pytest.approx(0.05 * 3**2 / 3.0, rel=0.15)
