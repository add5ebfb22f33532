"""`xmodel2 check`: every check passes here, and a wrong installation would be told."""

import pytest

from xmodel2 import checks
from xmodel2.checks import CHECKS, run_checks
from xmodel2.data.mixture import Mixture
from xmodel2.errors import XmodelError
from xmodel2.model import tensor_program


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


@pytest.mark.parametrize(
    ("rule", "off"),
    [
        ("embedding_multiplier", lambda settings: 1.0),
        ("residual_multiplier", lambda settings: 1.0),
        ("initial_std", lambda name, tensor, settings: 0.1),
        ("learning_rate_scale", lambda name, tensor, settings: 1.0),
        ("logit_multiplier", lambda settings: 1.0),
    ],
)
def test_the_coordinate_check_tells_when_a_rule_is_off(rule: str, off: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensor_program, rule, off)
    assert not run_checks(["coordinate"])[0]["passed"]


def test_unknown_check() -> None:
    with pytest.raises(XmodelError, match="Did you mean 'params'"):
        run_checks(["param"])
