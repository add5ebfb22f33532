"""`xmodel2 check`: every check passes here, and a wrong installation would be told."""

import pytest

from xmodel2 import checks
from xmodel2.checks import CHECKS, run_checks
from xmodel2.data.mixture import Mixture
from xmodel2.errors import XmodelError


@pytest.mark.parametrize("name", CHECKS)
def test_check_passes(name: str) -> None:
    [row] = run_checks([name])
    assert row["passed"], row
    assert set(row) == {"name", "passed", "figure", "bound"}


@pytest.mark.parametrize(
    ("name", "attribute", "wrong"),
    [
        ("params", "parameter_count", lambda settings: 1),
        ("schedule", "wsd", lambda *args: 0.01),
        ("mixture-exact", "Mixture", lambda weights: Mixture(dict.fromkeys(weights, 1 / len(weights)))),
    ],
)
def test_a_check_can_fail(name: str, attribute: str, wrong: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, attribute, wrong)
    assert not run_checks([name])[0]["passed"]


def test_unknown_check() -> None:
    with pytest.raises(XmodelError, match="Did you mean 'params'"):
        run_checks(["param"])
