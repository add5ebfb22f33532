"""The ledger: every claim has a row, and a verdict follows from what was measured."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from xmodel2.files import write_json_atomic
from xmodel2.release.reporting.claims import CLAIMS, claims_section, ledger
from xmodel2.search.law import _compared
from xmodel2.search.law_points import read_rows

KEPT = Path(__file__).parents[3] / "docs" / "wind-tunnel"


def row(beginning: str, *folders: Path) -> list[str]:
    [found] = [cells for cells in ledger(folders) if cells[0].startswith(beginning)]
    return found


def ratio(folder: Path, **changes: Any) -> Path:
    found = {"recipe": "r", "seeds": [1, 2, 3], "shares": {}, "mixtures": [], "schedules": [], **changes}
    write_json_atomic(folder / "ratio.json", found)
    return folder


def curve(fitted: list[float], **changes: Any) -> dict[str, Any]:
    shares = [0.0, 0.64, 1.0]
    ends = {"low": [y - 0.01 for y in fitted], "high": [y + 0.01 for y in fitted]}
    found = {"shares": shares, "fitted": fitted, **ends, "optimum": 0.64, "interval": [0.5, 0.8], "verdict": "inside"}
    return {"accuracy": {**found, "optimum_is": "0.64", **changes}}


def test_without_evidence_every_claim_is_there_and_not_measured(tmp_path: Path) -> None:
    rows = ledger([tmp_path])
    assert [cells[0] for cells in rows] == [claim.text for claim in CLAIMS]
    assert {cells[1] for cells in rows} == {"not measured"}
    assert claims_section([tmp_path]).body.count("<tr>") == len(CLAIMS) + 1


def test_tensor_programs(tmp_path: Path) -> None:
    shutil.copy(KEPT / "coordinate.json", tmp_path / "coordinate.json")
    assert row("Tensor programs", tmp_path)[1:4] == [
        "held",
        "steepest slope of a change over width 0.024; 5 of 5 rules, left out, break it",
        "widths 64 to 2,048, 6 seeds",
    ]
    found = json.loads((KEPT / "coordinate.json").read_text())
    found["cases"]["all rules"]["held"] = False
    write_json_atomic(tmp_path / "coordinate.json", found)
    assert row("Tensor programs", tmp_path)[1] == "not held"


@pytest.mark.parametrize(
    ("difference", "error", "verdict"),
    [
        (-0.1, 0.02, "held"),
        (-0.06, 0.02, "not told"),  # of three seeds, two standard errors are no interval of 95%
        (0.1, 0.02, "not held"),
        (0.01, 0.02, "not told"),
        (-0.1, None, "not told"),
    ],
)
def test_wsd_against_cosine(difference: float, error: float | None, verdict: str, tmp_path: Path) -> None:
    schedule = {"tokens": 81920, "wsd": 6.2, "cosine": 6.3, "difference": difference, "error": error}
    assert row("WSD", ratio(tmp_path, schedules=[schedule]))[1] == verdict
    even = {**schedule, "tokens": 163840, "difference": 0.0}
    both = {"held": "not told"}.get(verdict, verdict)  # at one length it is worse, at least as good, or nobody knows
    assert row("WSD", ratio(tmp_path, schedules=[{**schedule, "difference": 2 * difference}, even]))[1] == both


def test_wsd_is_judged_at_the_best_rate_of_each(tmp_path: Path) -> None:
    """A rate at which it is worse, and that nobody would use, decides nothing."""
    worse = {"tokens": 81920, "rate": 4, "wsd": 7.0, "cosine": 6.5, "difference": 0.5, "error": 0.01, "seeds": 3}
    better = {**worse, "rate": 1, "difference": -0.1}
    best = {**better, "wsd_rate": 1, "cosine_rate": 2}
    said = row("WSD", ratio(tmp_path, seeds=[1, 2, 3, 4], schedules=[better, worse], schedules_at_best=[best]))[1:3]
    assert said == [
        "held",
        "WSD less cosine -0.100 to -0.100 nats a token at 1 length, from one stable run a seed (3 seeds), each at the best of"
        " 2 rates",
    ]


def test_what_survives_of_a_comparison_is_not_judged(tmp_path: Path) -> None:
    lost = {"diverged": [2, 4]}
    schedule = {"tokens": 81920, "rate": 1, "difference": -0.1, "error": 0.01, "seeds": 3}
    shares = curve([0.0, 0.5, 0.4], interval=[0.61, 0.68], points=[(seed, 0.0, 0.0) for seed in (1, 3)], **lost)
    own = {"value": "own", "seeds": 3, "accuracy": {"mean": 0.25}, "answers": {}, **lost}
    exact = {"mean": 0.2, "difference": -0.05, "error": 0.01, "seeds": 3}
    other = {"value": "general for chain-of-thought", "seeds": 3, "accuracy": exact}
    ratio(tmp_path, schedules_at_best=[schedule | lost], shares=shares, mixtures=[own, other])
    for claim in ("WSD", "Instruction data", "Its best share", "Chain"):
        assert row(claim, tmp_path)[1] == "not told"
        assert row(claim, tmp_path)[2].endswith("; a run diverged with seed 2, 4")
    assert row("Its best share", tmp_path)[3] == "recipe r, 2 seeds"


def test_instruction_data(tmp_path: Path) -> None:
    lifts = row("Instruction data", ratio(tmp_path, shares=curve([0.0, 0.5, 0.4])))
    assert lifts[1:3] == ["held", "questions answered exactly: 0.0% without, 50.0% at a share of 64%"]
    assert row("Instruction data", ratio(tmp_path, shares=curve([0.1, 0.11, 0.1])))[1] == "not told"
    assert row("Instruction data", ratio(tmp_path, shares=curve([0.5, 0.1, 0.4])))[1] == "not held"
    few = {"shares": [0.0, 0.2, 0.4]}  # the report's share was not tried
    assert "at a share of 40%" in row("Instruction data", ratio(tmp_path, shares=curve([0.0, 0.5, 0.4], **few)))[2]
    some = {"shares": [0.2, 0.64, 1.0]}  # nor was none
    assert row("Instruction data", ratio(tmp_path, shares=curve([0.0, 0.5, 0.4], **some)))[1] == "not measured"


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({"interval": [0.61, 0.68]}, "held"),
        ({"interval": [0.5, 0.8]}, "not told"),  # shares within and outside
        ({"interval": [0.1, 0.3]}, "not held"),
        ({"interval": [0.9, 1.0], "verdict": "edge"}, "not held"),
        ({"interval": [0.9, 1.0], "verdict": "flat"}, "not told"),
        ({"interval": [0.4, 0.5], "shares": [0.0, 0.25, 0.5]}, "not told"),  # the report's were not tried
        ({"fitted": [0.0, 0.01, 0.0]}, "not testable at this scale"),
    ],
)
def test_the_best_share(changes: dict[str, Any], verdict: str, tmp_path: Path) -> None:
    assert row("Its best share", ratio(tmp_path, shares=curve(**{"fitted": [0.0, 0.5, 0.4], **changes})))[1] == verdict


def test_chain_of_thought_is_judged_with_others_in_its_place(tmp_path: Path) -> None:
    def said(exact: tuple[float, float, float | None], loss: tuple[float, float] = (0.0, 0.1)) -> list[str]:
        mean, difference, error = exact
        own = {"value": "own", "seeds": 3, "accuracy": {"mean": mean - difference}, "answers": {}}
        cells = {"accuracy": {"mean": mean, "difference": difference, "error": error}}
        cells["answers"] = {"difference": loss[0], "error": loss[1]}
        other = {"value": "general for chain-of-thought", "seeds": 3, **cells}
        return row("Chain", ratio(tmp_path, mixtures=[own, other]))[1:3]

    assert said((0.20, -0.05, None))[0] == "not told"
    assert said((0.20, -0.05, 0.01)) == [
        "held",
        "answered exactly 25.0% with it, 20.0% with general for chain-of-thought (-9.3% to -0.7%)",
    ]
    assert said((0.20, -0.04, 0.01))[0] == "not told"
    assert said((0.20, 0.05, 0.01))[0] == "not held"
    # Where hardly any question is answered exactly, the loss on their answers decides.
    assert said((0.01, 0.0, 0.001), (0.2, 0.01))[0] == "held"
    assert said((0.01, 0.0, 0.001), (-0.2, 0.01))[0] == "not held"
    assert said((0.01, 0.0, 0.001), (0.2, 0.1))[0] == "not told"


def test_chain_of_thought_left_out_tells_nothing(tmp_path: Path) -> None:
    """Its part goes to the questions' own kind too, which lifts them for another reason."""
    cell = {"difference": 0.05, "error": 0.001}
    rows = [{"value": "without chain-of-thought", "accuracy": cell, "seeds": 3}]
    assert row("Chain", ratio(tmp_path, mixtures=rows))[1] == "not told"


def test_a_law_is_judged_by_the_size_that_it_predicted(tmp_path: Path) -> None:
    rows = [found for found in read_rows(KEPT / "law.jsonl") if found.size == "128x4"]
    prediction = _compared(json.loads((KEPT / "law-prediction-128x4.json").read_text()), rows)
    write_json_atomic(tmp_path / "law.json", {"laws": {}, "prediction": prediction})
    assert row("Loss follows", tmp_path)[1:3] == [
        "held",
        "the next size predicted within 0.8%, 4 of 4 inside their intervals",
    ]
    for outside, verdict in ((1, "not told"), (2, "not held")):
        for entry in prediction["lengths"][:outside]:
            entry["without embeddings"]["covered"] = False
        write_json_atomic(tmp_path / "law.json", {"laws": {}, "prediction": prediction})
        assert row("Loss follows", tmp_path)[1] == verdict


def judged_law(folder: Path, *lengths: dict[str, Any]) -> list[str]:
    """Return verdict and words of predictions within 1%, changed."""
    entries = []
    for tokens, changes in enumerate(lengths, 1):
        said = {"loss": 5.05, "low": 4.95, "high": 5.15, "measured": 5.0, "percent": 1.0, "covered": True}
        smaller = {"largest_fitted": changes.pop("largest_fitted", None)}
        kept = {key: value for key, value in (said | changes).items() if value is not None}
        entries.append({"tokens": 1000 * tokens, **smaller, "without embeddings": kept})
    prediction = {"size": "64x1", "from": {"points": 9}, "lengths": entries}
    write_json_atomic(folder / "law.json", {"laws": {}, "prediction": prediction})
    return row("Loss follows", folder)[1:3]


def test_a_law_holds_by_predictions_that_could_have_failed(tmp_path: Path) -> None:
    assert judged_law(tmp_path, {}, {})[0] == "held"  # of an earlier version
    assert judged_law(tmp_path, {}, {"low": 4.5, "high": 5.6}) == [
        "not told",
        "the next size predicted within 1.0%, 2 of 2 inside their intervals, which are up to 22% of the loss wide",
    ]
    assert judged_law(tmp_path, {"largest_fitted": 5.2}, {"largest_fitted": 5.04})[0] == "held"
    assert judged_law(tmp_path, {"largest_fitted": 5.14}, {"largest_fitted": 5.12}) == [
        "not told",
        "the next size predicted within 1.0%, 2 of 2 inside their intervals; so are all losses of the largest fitted size,"
        " and nothing need have changed",
    ]
    assert judged_law(tmp_path, {"largest_fitted": 5.03}, {"largest_fitted": 5.04}) == [
        "not told",
        "the next size predicted within 1.0%, 2 of 2 inside their intervals; the losses of the largest fitted size are as near",
    ]


def test_a_predicted_size_that_diverged_leaves_the_law_open(tmp_path: Path) -> None:
    diverged = {"measured": None, "percent": None, "covered": None}
    assert judged_law(tmp_path, {}, dict(diverged)) == [
        "not told",
        "1 of 2 runs of the next size have no loss: diverged, or not made",
    ]
    assert judged_law(tmp_path, dict(diverged))[0] == "not told"


def test_a_run_tells_of_its_own_decay(road: Path) -> None:
    found = row("Instruction data", road / "run")
    assert found[1] == "not told"  # what the decay did alone, nobody measured
    assert "before the decay" in found[2]
    assert "parameters in blocks" in found[3]


def test_calibration_and_place_in_the_context(road: Path, tmp_path: Path) -> None:
    shutil.copytree(road / "run", tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints", "evaluation"))
    calibration = {
        "task": "mmlu",
        "confidence": 0.5,
        "accuracy": {"value": 0.3, "low": 0.2, "high": 0.4},
        "ece": {"value": 0.2},
        "ece_by_chance": {"high": 0.05},
        "gap": {"low": 0.1, "high": 0.3},
    }
    write_json_atomic(tmp_path / "run" / "evaluation" / "step-20" / "calibration.json", calibration)
    forms = {"a + b t^-c": 0.03, "b t^-c": 0.4}
    fit = {
        "determined": True,
        "forms": {name: {"on documents left out": error} for name, error in forms.items()},
        "constants": {"c": {"value": 0.5}},
        "goodness": {"r2": 0.99},
    }
    write_json_atomic(
        tmp_path / "run" / "scaling" / "step-20" / "scaling.json",
        {"fit": fit, "settings": {"context": 64, "tokens": 9000}},
    )
    assert row("The model is calibrated", tmp_path / "run")[1] == "not held"
    assert "over-confident" in row("The model is calibrated", tmp_path / "run")[2]
    assert row("Loss falls", tmp_path / "run")[1:3] == [
        "held",
        "a + b t^-c with c = 0.50, R² 0.990; best form: a + b t^-c",
    ]
    few = {**calibration, "ece_by_chance": {"high": 0.3}}  # a handful of items
    write_json_atomic(tmp_path / "run" / "evaluation" / "step-20" / "calibration.json", few)
    assert row("The model is calibrated", tmp_path / "run")[1] == "not told"
    for logarithm, verdict in ((0.031, "not told"), (0.02, "not held")):
        fit["forms"] = {
            "a + b t^-c": {"on documents left out": 0.03},
            "a - b log t": {"on documents left out": logarithm},
        }
        found = {"fit": fit, "settings": {"context": 64, "tokens": 9000}}
        write_json_atomic(tmp_path / "run" / "scaling" / "step-20" / "scaling.json", found)
        assert row("Loss falls", tmp_path / "run")[1] == verdict


def test_a_damaged_file_costs_its_own_claims(tmp_path: Path) -> None:
    shutil.copy(KEPT / "coordinate.json", tmp_path / "coordinate.json")
    (tmp_path / "law.json").write_text("{")
    write_json_atomic(tmp_path / "transfer.json", {"sweeps": [{"sweep": "learning_rate-width"}]})
    ratio(tmp_path, shares=[], mixtures=[{"value": "without chain-of-thought", "accuracy": {}, "seeds": 3}])
    rows = {cells[0].split()[0]: cells[1:3] for cells in ledger([tmp_path])}
    assert rows["Tensor"][0] == "held"
    for claim, words in {
        "Loss": "law.json: not valid JSON",
        "Hyperparameters": f"{tmp_path / 'transfer.json'}: has no 'parametrization'; it is damaged, or of another version",
        "Chain-of-thought": f"{tmp_path / 'ratio.json'}: has no 'difference'",
        "Its": f"{tmp_path / 'ratio.json'}: cannot be shown",
    }.items():
        verdict, said = rows[claim] if claim != "Loss" else row("Loss follows", tmp_path)[1:3]
        assert verdict == "cannot be read"
        assert words in said
    assert rows["WSD"][0] == "not measured"
