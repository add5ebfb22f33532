"""The 5-gram baseline is a probability distribution, smooths as published, and beats lower orders."""

import numpy as np
import pytest

from xmodel2.eval.ngram import KneserNey, unigram_entropy


@pytest.fixture(scope="module")
def text() -> np.ndarray:
    """A Markov chain over 12 pieces, which a bigram can learn."""
    random = np.random.default_rng(0)
    table = random.dirichlet(np.full(12, 0.3), size=12)
    tokens = [0]
    for _ in range(20_000):
        tokens.append(int(random.choice(12, p=table[tokens[-1]])))
    return np.array(tokens)


def test_probabilities_of_all_continuations_sum_to_one(text: np.ndarray) -> None:
    model = KneserNey(12).fit(text[:5000])
    for context in (text[9000:9004], np.array([3, 3, 3, 3]), np.array([0, 11, 0, 11])):
        rows = [np.concatenate([context, [token]]) for token in range(12)]
        assert sum(model.probabilities(row)[-1] for row in rows) == pytest.approx(1.0, abs=1e-9)


def test_it_learns_what_is_there_and_no_more(text: np.ndarray) -> None:
    train, held = text[:16_000], text[16_000:]
    counts = np.zeros((12, 12))
    np.add.at(counts, (train[:-1], train[1:]), 1)
    table = counts / counts.sum(1, keepdims=True)
    true = -np.log(np.maximum(table[held[:-1], held[1:]], 1e-9)).mean()
    assert KneserNey(12, order=2).fit(train).score(held) == pytest.approx(true, abs=0.01)
    assert true < KneserNey(12).fit(train).score(held) < true + 0.2
    assert unigram_entropy(train, held, 12) > true + 0.3


def test_unseen_pieces_keep_some_probability(text: np.ndarray) -> None:
    model = KneserNey(20).fit(text[:1000])
    assert 0 < model.probabilities(np.array([1, 2, 19]))[-1] < 0.01


def test_bigram_by_hand() -> None:
    """Interpolated Kneser-Ney by the formula, discounts of 0.5 since no count-of-counts supports another."""
    tokens = np.array([0, 1, 0, 1, 0, 1, 0, 1])
    model = KneserNey(2, order=2).fit(tokens)
    # Bigrams: (0,1) four times, (1,0) three times; a token's continuation count is 1 each, so the lower order is
    # (1 - 0.5) / 2 + 0.5 * 1/2 = 0.5 for both.
    assert model.probabilities(np.array([0, 1]))[1] == pytest.approx((4 - 0.5) / 4 + 0.5 / 4 * 0.5)


def test_score_over_wanted_positions_only(text: np.ndarray) -> None:
    model = KneserNey(12).fit(text[:5000])
    held = text[5000:5100]
    wanted = np.arange(100) % 2 == 0
    both = (model.score(held, wanted) + model.score(held, ~wanted)) / 2
    assert both == pytest.approx(model.score(held))
