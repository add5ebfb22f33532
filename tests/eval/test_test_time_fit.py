"""The fit by token index: planted constants lie in the intervals, and what is not determined is said, not printed."""

import numpy as np
import pytest

from xmodel2.eval.test_time_curve import Array, Ints, add_up, bin_edges, sampling_units, window_starts
from xmodel2.eval.test_time_fit import (
    FORMS,
    CurveFit,
    Sums,
    compare_forms,
    fit_curve,
    fit_logarithm,
    fit_power_law,
    interval,
    logarithm,
    power_law,
)

CONTEXT, TOKENS, DOCUMENTS = 256, 20_000, 50


def text(seed: int) -> tuple[np.random.Generator, Ints, Array]:
    """Return a generator, the document of each token, and how hard each token is: by document, and by itself."""
    random = np.random.default_rng(seed)
    ends = np.sort(random.choice(TOKENS, DOCUMENTS - 1, replace=False))
    document = np.searchsorted(ends, np.arange(TOKENS), side="right")
    hard = random.normal(0, 0.2, DOCUMENTS)[document] + random.normal(0, 1.4, TOKENS)
    return random, document, hard - hard.mean()


def measured(seed: int, curve: Array, hard_by: float = 1.0) -> Sums:
    """Return the sums of windows whose expected loss at each index is ``curve`` [CONTEXT]."""
    random, document, hard = text(seed)
    starts = window_starts(TOKENS, 4 * TOKENS // CONTEXT)
    place = (starts[:, None] + np.arange(CONTEXT)) % TOKENS
    losses = curve + hard_by * hard[place] + random.normal(0, 1.4, place.shape)
    return add_up(losses.astype(np.float32), starts, sampling_units(document, starts)[1])


def planted(a: float, b: float, c: float) -> Array:
    return np.asarray(a + b * np.arange(1, CONTEXT + 1.0) ** -c)


def fitted(seed: int, curve: Array) -> CurveFit:
    return fit_curve(measured(seed, curve), draws=120, seed=seed)


def test_an_exact_curve_gives_its_constants_back() -> None:
    t, noise = np.unique(np.geomspace(1, 4096, 40).round()), np.ones(1)
    for constants in ([2.5, 4.0, 0.5], [0.0, 6.0, 0.1], [3.0, 1.0, 1.7], [1.0, 5.0, 0.15]):
        found = fit_power_law(t, power_law(np.array([constants]), t), noise)[0]
        assert found == pytest.approx(constants, rel=0.01, abs=0.01)
    assert fit_logarithm(t, logarithm(np.array([[5.0, 0.3]]), t), noise)[0] == pytest.approx([5.0, 0.3])


@pytest.mark.parametrize("constants", [(2.0, 3.0, 0.5), (3.0, 2.0, 0.3)])
def test_planted_constants_lie_in_the_intervals(constants: tuple[float, float, float]) -> None:
    hits = []
    for seed in range(12):
        fit = fitted(seed, planted(*constants))
        low, high = interval(fit.drawn)
        hits.append((low <= constants) & (constants <= high))
        assert fit.complaint == ""
    assert np.mean(hits) >= 0.9
    assert fit.constants == pytest.approx(constants, rel=0.25)


def test_the_loss_at_twice_the_context_is_predicted() -> None:
    hits = 0
    for seed in range(10):
        _, low, high = fitted(seed, planted(2.0, 3.0, 0.5)).band(np.array([2.0 * CONTEXT]))
        hits += bool(low[0] <= 2.0 + 3.0 * (2 * CONTEXT) ** -0.5 <= high[0])
    assert hits >= 9


def test_hard_tokens_at_an_index_are_no_bump_of_the_curve() -> None:
    off = {True: 0.0, False: 0.0}
    for seed in range(5):
        sums = measured(seed, planted(2.0, 3.0, 0.5), hard_by=2.0)
        expected = planted(2.0, 3.0, 0.5)[:4]
        for adjusted in off:
            off[adjusted] += float(((sums.curve(adjusted=adjusted)[:4] - expected) ** 2).sum())
    assert off[True] < 0.5 * off[False]  # tokens' own difficulty is 4/5 of the variance, and known with an error


def test_a_flat_and_a_rising_loss_have_no_law() -> None:
    assert "flat" in fitted(0, planted(4.0, 0.0, 1.0)).complaint
    assert "rises" in fitted(0, planted(6.0, -2.0, 0.3)).complaint


def test_an_exponent_that_anything_fits_is_not_given() -> None:
    assert "the exponent is not determined" in fitted(0, planted(3.0, 0.35, 0.5)).complaint


def test_a_pure_power_law_has_no_floor() -> None:
    fit = fitted(1, planted(0.0, 6.0, 0.12))
    assert fit.complaint or any("a is not told from 0" in remark for remark in fit.remarks)


def test_a_law_of_the_first_tokens_and_a_misfit_are_remarked() -> None:
    remarks = fitted(0, planted(3.0, 5.0, 2.5)).remarks
    assert any("nine tenths of the fall are over by t = 2.5" in remark for remark in remarks)
    bent = planted(3.0, 3.0, 0.5)
    bent[CONTEXT // 2 :] += 0.5
    assert any("more than noise does" in remark for remark in fitted(0, bent).remarks)


def test_a_loss_that_rises_again_is_said() -> None:
    index = np.arange(1, CONTEXT + 1.0)
    assert (
        "the loss is least at t = " in fitted(0, planted(3.0, 3.0, 1.0) + np.maximum(0, index - 100) / 200).remarks[0]
    )
    complaint = fitted(0, planted(3.0, 0.6, 0.6) + 0.6 * np.log(np.maximum(1, index / 30))).complaint
    assert "does not follow the law" in complaint or "rises" in complaint
    assert fitted(0, planted(3.0, 3.0, 0.5)).rise == ""


def test_one_wild_bin_moves_the_fit_little() -> None:
    t, noise = np.unique(np.geomspace(1, 512, 30).round()), np.ones(1) * 0.01
    y = power_law(np.array([[2.0, 3.0, 0.5]]), t)
    y += np.random.default_rng(0).normal(0, 0.01, y.shape)
    y[0, 12] += 0.5
    assert fit_power_law(t, y, noise)[0] == pytest.approx([2.0, 3.0, 0.5], abs=0.04)


def test_the_form_that_was_planted_predicts_best() -> None:
    curves = {
        "a + b t^-c": planted(2.0, 3.0, 0.6),
        "a - b log t": 8.0 - 0.5 * np.log(np.arange(1, CONTEXT + 1.0)),
    }
    assert FORMS.keys() >= curves.keys()
    for name, curve in curves.items():
        sums = measured(0, curve)
        errors = compare_forms(sums, fit_curve(sums, draws=100))
        for where in ("on documents left out", "on later indices"):
            best = min(errors[form][where] for form in FORMS)
            assert errors[name][where] <= best * 1.15
        assert errors["b t^-c"]["on later indices"] > 1.5 * errors[name]["on later indices"]


def test_bins_cover_every_index_once() -> None:
    for context in (16, 100, 4096):
        edges = bin_edges(context)
        assert (edges[0], edges[-1]) == (1, context + 1)
        assert (np.diff(edges) > 0).all()
        assert edges[:6].tolist() == [1, 2, 3, 4, 5, 6]


def test_windows_are_spread_over_the_whole_ring() -> None:
    starts = window_starts(10_000, 160)
    assert (np.abs(starts - (np.arange(160) + 0.5) * 62.5) <= 32.25).all()  # one in each equal part
    seen = np.bincount(((starts[:, None] + np.arange(250)) % 10_000).ravel(), minlength=10_000)
    assert seen.min() >= 2
    assert seen.max() <= 6


def test_units_are_documents_unless_they_are_few_or_begin_no_window_or_one_is_most_of_the_text() -> None:
    every = np.arange(0, 300, 3)
    assert sampling_units(np.repeat(np.arange(30), 10), every)[0] == "documents"
    assert sampling_units(np.repeat(np.arange(5), 60), every)[0] == "pieces"
    lopsided = np.repeat(np.arange(30), [400, *[10] * 29])
    unit, units = sampling_units(lopsided, np.arange(0, 690, 3))
    assert (unit, len(np.unique(units))) == ("pieces", 40)
    short = np.repeat(np.arange(40), [*[290] * 10, *[10] * 30])
    assert sampling_units(short, np.arange(0, 3200, 10))[0] == "documents"
    assert sampling_units(short, np.arange(0, 3200, 200))[0] == "pieces"


def test_units_without_a_token_in_a_bin_do_not_make_it_a_loss_of_nothing() -> None:
    generator, sizes = np.random.default_rng(0), np.array([3000] * 5 + [10] * 30)
    document = np.repeat(np.arange(35), generator.permutation(sizes))
    starts = window_starts(len(document), 64)
    losses = np.repeat(planted(2.0, 4.0, 0.5)[None], 64, axis=0) + generator.normal(0, 0.1, (64, CONTEXT))
    sums = add_up(losses.astype(np.float32), starts, document)
    assert sums.draws(400, seed=0)[:, 0].min() > 5.5
    for seed in range(8):
        apart = {
            name: found["on documents left out"] for name, found in compare_forms(sums, fit_curve(sums), seed).items()
        }
        assert apart["a + b t^-c"] < 0.1
        assert min(apart, key=lambda name: apart[name]) == "a + b t^-c"
