"""WSD against its formula (MiniCPM, arXiv 2404.06395)."""

from itertools import pairwise

import pytest

from xmodel2.train.schedule import wsd


def test_three_pieces() -> None:
    rates = [wsd(s, 0.01, warmup_steps=10, stable_steps=100, half_life_steps=20) for s in range(1, 161)]
    assert rates[:10] == pytest.approx([0.001 * s for s in range(1, 11)])
    assert set(rates[9:100]) == {0.01}
    assert rates[119] == pytest.approx(0.005)
    assert rates[159] == pytest.approx(0.00125)
    assert all(a > b for a, b in pairwise(rates[99:]))


def test_no_warmup_and_no_decay() -> None:
    assert [wsd(s, 1.0, 0, 5, 1) for s in range(1, 6)] == [1.0] * 5
