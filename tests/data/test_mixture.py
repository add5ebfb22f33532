"""Mixtures and permutations: exact, without gaps, for runs of any length."""

import numpy as np
import pytest

from xmodel2.data.mixture import MAX_ROWS, Mixture, counts
from xmodel2.data.permutation import epoch_keys, permuted
from xmodel2.errors import XmodelError


@pytest.mark.parametrize(
    "weights", [{"a": 0.6388, "b": 0.2, "c": 0.1, "d": 0.0612}, {"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}, {"a": 1.0}]
)
def test_proportions_are_exact_after_a_million_tokens(weights: dict[str, float]) -> None:
    rows = 1_000_000 // 256
    realised = counts(weights, rows)
    assert sum(realised.values()) == rows
    for name, weight in weights.items():
        assert abs(100 * realised[name] / rows - 100 * weight) < 0.1


@pytest.mark.parametrize("rows", [1, 7, 100, 4096, 10**7])
def test_every_source_is_within_about_a_row_of_its_share(rows: int) -> None:
    weights = {f"s{n}": (n + 1) / 55 for n in range(10)}
    for name, count in counts(weights, rows).items():
        assert abs(count - rows * weights[name]) < 2


@pytest.mark.parametrize("start", [0, 10**9, MAX_ROWS - 1000])
def test_assignment_agrees_with_counts_and_numbers_rows_without_gaps(start: int) -> None:
    mixture = Mixture({"a": 0.5, "b": 0.3, "c": 0.2})
    source, number = mixture.assign(start, start + 1000)
    before, after = mixture.counts(start), mixture.counts(start + 1000)
    for index, name in enumerate(mixture.names):
        assert list(number[source == index]) == list(range(before[name], after[name]))
    late_source, late_number = mixture.assign(start + 900, start + 1000)
    assert np.array_equal(late_source, source[900:])
    assert np.array_equal(late_number, number[900:])


def test_the_order_of_the_shares_does_not_matter() -> None:
    first, other = Mixture({"a": 0.5, "b": 0.3, "c": 0.2}), Mixture({"c": 0.2, "a": 0.5, "b": 0.3})
    assert first.names == other.names
    assert all(np.array_equal(x, y) for x, y in zip(first.assign(0, 500), other.assign(0, 500), strict=True))


@pytest.mark.parametrize(
    ("weights", "words"), [({"a": 0.5}, "sum to 0.5"), ({"a": 1.5, "b": -0.5}, "share of b is -0.5")]
)
def test_bad_weights(weights: dict[str, float], words: str) -> None:
    with pytest.raises(XmodelError, match=words):
        Mixture(weights)


def test_a_run_beyond_64_bits_is_refused() -> None:
    with pytest.raises(XmodelError, match="use longer ones"):
        counts({"a": 0.5, "b": 0.5}, MAX_ROWS + 1)


def test_a_source_with_almost_no_share() -> None:
    assert counts({"a": 1 - 1e-9, "z": 1e-9}, 1000) == {"a": 1000, "z": 0}


def permutation(size: int, key: int) -> np.ndarray:
    """Return the whole permutation of range(size)."""
    return permuted(np.arange(size), np.full(size, size), np.full(size, key, dtype=np.uint64))


@pytest.mark.parametrize("size", [*range(1, 70), 255, 256, 257, 4095, 4096, 4097, 99_991])
def test_permutation_is_a_bijection(size: int) -> None:
    assert np.array_equal(np.sort(permutation(size, 12345)), np.arange(size))


def test_permutations_of_other_keys_and_epochs_differ() -> None:
    assert len({tuple(permutation(30, key).tolist()) for key in range(50)}) == 50
    assert len({epoch_keys(seed, name, epoch) for seed in (1, 2) for name in ("a", "b") for epoch in range(3)}) == 12


def test_permutation_scatters_neighbours_evenly() -> None:
    size = 10_000
    order = permutation(size, 7)
    counts, _ = np.histogram(order[:1000], bins=10, range=(0, size))
    assert counts.min() > 60
    assert counts.max() < 140
    assert abs(np.corrcoef(order[1:], order[:-1])[0, 1]) < 0.05


def test_permutation_of_more_than_memory_holds() -> None:
    index = np.arange(10**12, 10**12 + 1000)
    found = permuted(index, np.full(1000, 3 * 10**14), np.full(1000, 5, dtype=np.uint64))
    assert len(set(found.tolist())) == 1000
    assert found.min() >= 0
    assert found.max() < 3 * 10**14
