"""An ablation's runs: equal effort for all arms, that they resume and share a folder, and what is said of them."""

import json
import math
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from xmodel2.errors import XmodelError
from xmodel2.recipe import Recipe, replace
from xmodel2.search.ablation import AblationSettings
from xmodel2.search.ablation_runs import run_ablation
from xmodel2.search.trial import TrialResult

WORSE = {"train.weight_decay": 0.5}
ARMS = {"worse": "train.weight_decay=0.5", "steep": "train.weight_decay=0.9"}


def fake_loss(recipe: Recipe, own: Recipe) -> float:
    """Best at the recipe's rate, at half of it for the arm `steep`; 0.1 more for `worse`, with some luck of the seed."""
    rate = math.log2(recipe.train.learning_rate / own.train.learning_rate)
    best = {0.1: 0.0, 0.5: 0.0, 0.9: -1.0}[recipe.train.weight_decay]
    luck = 0.01 * recipe.seed * (recipe.train.weight_decay == 0.5)
    return 3 + (rate - best) ** 2 + 0.1 * (recipe.train.weight_decay == 0.5) + luck + recipe.seed


def replace_loss(result: TrialResult, more: float) -> TrialResult:
    loss = result.loss + more
    return TrialResult(loss, {**result.heldout, "text": loss}, result.step, result.seconds)


class Trainer:
    """Stands for `train_trials`: notes what is trained, and which diverge."""

    def __init__(self, own: Recipe, diverging: Sequence[str] = ()) -> None:
        self.own, self.diverging = own, diverging
        self.calls: list[list[str]] = []

    def __call__(self, recipes: Sequence[Recipe], out: Path) -> list[TrialResult]:
        self.calls.append([recipe.name for recipe in recipes])
        return [
            TrialResult(math.nan, ended="diverged: step 3")
            if any(recipe.name.startswith(name) for name in self.diverging)
            else TrialResult(loss := fake_loss(recipe, self.own), {"text": loss, "sft": 9.0}, 20, 1.0)
            for recipe in recipes
        ]

    @property
    def names(self) -> list[str]:
        return [name for call in self.calls for name in call]


@pytest.fixture
def trainer(small_recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> Trainer:
    made = Trainer(small_recipe)
    monkeypatch.setattr("xmodel2.search.ablation_runs.train_trials", made)
    monkeypatch.setattr("xmodel2.search.ablation_runs.ablation_figure", lambda found: "<svg/>")
    return made


def run(recipe: Recipe, out: Path, **settings: Any) -> dict[str, Any]:
    return run_ablation(recipe, AblationSettings(**{"compare": (), "arms": ARMS, **settings}), out)


def by_name(found: dict[str, Any], comparison: str = "keys") -> dict[str, dict[str, Any]]:
    return {arm["name"]: arm for arm in found["comparisons"][comparison]["arms"]}


def test_every_arm_has_the_same_effort(small_recipe: Recipe, tmp_path: Path, trainer: Trainer) -> None:
    found = run(small_recipe, tmp_path)
    assert trainer.calls[:3] == [[f"{arm}_rate{rate}_seed1" for rate in ("0.5", "1", "2")] for arm in ("own", *ARMS)]
    two = {"own": ("1", "0.5"), "worse": ("1", "0.5"), "steep": ("0.5", "1")}
    assert trainer.calls[3:] == [
        [f"{arm}_rate{rate}_seed2", f"{arm}_rate{rate}_seed3"] for arm, rates in two.items() for rate in rates
    ]
    assert found == json.loads((tmp_path / "ablation.json").read_text())
    assert (found["seeds"], found["rates"], found["tokens"]) == ([1, 2, 3], [0.5, 1.0, 2.0], 20 * 64)
    arms = by_name(found)
    assert {name: (arm["rate"], arm["at_edge"], arm["own"]) for name, arm in arms.items()} == {
        "own": (1.0, False, True),
        "worse": (1.0, False, False),
        "steep": (0.5, True, False),
    }
    assert arms["own"]["losses"] == {"1": 4.0, "2": 5.0, "3": 6.0}
    assert arms["own"]["difference"] is None


def test_differences_are_taken_within_a_seed(small_recipe: Recipe, tmp_path: Path, trainer: Trainer) -> None:
    arm = by_name(run(small_recipe, tmp_path))["worse"]
    assert arm["changes"] == WORSE
    assert arm["mean"] == pytest.approx(5.12)
    assert arm["difference"] == pytest.approx(0.12)  # 0.11, 0.12 and 0.13, though losses differ by 2
    assert arm["error"] == pytest.approx(0.01 / math.sqrt(3))
    half = 4.30265 * arm["error"]  # Student's t of two degrees of freedom
    assert arm["interval"] == pytest.approx([0.12 - half, 0.12 + half], rel=1e-4)
    assert arm["percent"] == pytest.approx(100 * 0.12 / 5)


def test_one_seed_has_no_interval(small_recipe: Recipe, tmp_path: Path, trainer: Trainer) -> None:
    arm = by_name(run(small_recipe, tmp_path, seeds=1))["worse"]
    assert arm["difference"] == pytest.approx(0.11)
    assert arm["error"] is None
    assert arm["interval"] is None


def test_one_seed_does_not_choose_the_rate(
    small_recipe: Recipe, tmp_path: Path, trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lucky(recipes: Sequence[Recipe], out: Path) -> list[TrialResult]:
        """Seed 1 is better at twice the rate by chance."""
        chance = [1.5 * (recipe.name == "own_rate2_seed1") for recipe in recipes]
        return [replace_loss(result, -bonus) for result, bonus in zip(trainer(recipes, out), chance, strict=True)]

    monkeypatch.setattr("xmodel2.search.ablation_runs.train_trials", lucky)
    own = by_name(run(small_recipe, tmp_path))["own"]
    assert (own["rate"], own["losses"]) == (1.0, {"1": 4.0, "2": 5.0, "3": 6.0})


def test_more_can_be_asked_for(small_recipe: Recipe, tmp_path: Path, trainer: Trainer) -> None:
    run(small_recipe, tmp_path, seeds=2)
    before = (tmp_path / "results.jsonl").read_text()
    trainer.calls.clear()
    run(small_recipe, tmp_path, seeds=2)
    assert trainer.calls == []
    found = run(small_recipe, tmp_path, seeds=2, rates=(0.25,), arms={"steep": ARMS["steep"]})
    assert trainer.names == ["own_rate0.25_seed1", "steep_rate0.25_seed1"]
    # `worse` was not tried at 0.25, so this rate counts for no arm, and no arm had more tries than another
    assert found["comparisons"]["keys"]["rates"] == [0.5, 1.0, 2.0]
    trainer.calls.clear()
    found = run(small_recipe, tmp_path, seeds=3, rates=(0.25,))
    assert set(trainer.names) == {
        "worse_rate0.25_seed1",
        *(f"{arm}_rate{rate}_seed3" for arm in ("own", "worse", "steep") for rate in ("0.5", "1")),
    }
    assert found["comparisons"]["keys"]["rates"] == [0.25, 0.5, 1.0, 2.0]
    assert not by_name(found)["steep"]["at_edge"]
    assert (tmp_path / "results.jsonl").read_text().startswith(before)


def test_a_kill_loses_what_is_in_progress(
    small_recipe: Recipe, tmp_path: Path, trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(recipes: Sequence[Recipe], out: Path) -> list[TrialResult]:
        if len(trainer.calls) == 2:
            raise KeyboardInterrupt
        return trainer(recipes, out)

    monkeypatch.setattr("xmodel2.search.ablation_runs.train_trials", killed)
    with pytest.raises(KeyboardInterrupt):
        run(small_recipe, tmp_path)
    path = tmp_path / "results.jsonl"
    path.write_bytes(path.read_bytes()[:-5])  # and the last line was being written
    monkeypatch.setattr("xmodel2.search.ablation_runs.train_trials", trainer)
    trainer.calls.clear()
    run(small_recipe, tmp_path)
    assert trainer.calls[:2] == [["worse_rate2_seed1"], [f"steep_rate{rate}_seed1" for rate in ("0.5", "1", "2")]]
    assert len(path.read_text().splitlines()) == 21


def test_another_process_has_an_arm(
    small_recipe: Recipe, tmp_path: Path, trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "locks").mkdir()
    other = FileLock(tmp_path / "locks" / "own.lock", thread_local=False)
    other.acquire()
    order: list[str] = []

    def noted(recipes: Sequence[Recipe], out: Path) -> list[TrialResult]:
        order.append(recipes[0].name)
        if len(order) == 2:  # all other arms are made: the other process ends without having made anything
            threading.Timer(0.1, other.release).start()
        return trainer(recipes, out)

    monkeypatch.setattr("xmodel2.search.ablation_runs.train_trials", noted)
    run(small_recipe, tmp_path, seeds=1)
    assert order == ["worse_rate0.5_seed1", "steep_rate0.5_seed1", "own_rate0.5_seed1"]


def test_diverged_runs_are_results(
    small_recipe: Recipe, tmp_path: Path, trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer.diverging = ["own_rate2", "worse_rate1_seed3", "steep"]
    found = run(small_recipe, tmp_path)
    assert set(found["diverged"]) == {"own_rate2_seed1", "worse_rate1_seed3"} | {
        f"steep_rate{rate}_seed1" for rate in ("0.5", "1", "2")
    }
    arms = by_name(found)
    assert arms["own"]["at_edge"]  # between 1 and 2, which diverges, there may be a better one
    # Of its two best rates the one counts that does not diverge.
    assert (arms["worse"]["rate"], set(arms["worse"]["losses"])) == (0.5, {"1", "2", "3"})
    assert arms["worse"]["difference"] == pytest.approx(1.12)
    assert (arms["steep"]["rate"], arms["steep"]["mean"], arms["steep"]["interval"]) == (None, None, None)
    trainer.calls.clear()
    run(small_recipe, tmp_path)
    assert trainer.calls == []


def test_what_began_otherwise_is_refused(small_recipe: Recipe, tmp_path: Path, trainer: Trainer) -> None:
    run(small_recipe, tmp_path, seeds=1)
    with pytest.raises(XmodelError, match="began with another recipe"):
        run(replace(small_recipe, {"train.warmup_steps": 2}), tmp_path)
    with pytest.raises(XmodelError, match="has runs of an arm 'worse' that differs in other things"):
        run(small_recipe, tmp_path, arms={"worse": "train.weight_decay=0.9"})
    with pytest.raises(XmodelError, match="an arm 'worse'"):
        run(small_recipe, tmp_path, arms={"worse": "train.weight_decay=0.5,train.warmup_steps=2"})


@pytest.mark.parametrize(
    ("keys", "settings", "message"),
    [
        ({}, {"arms": {"a": "model.nothing=1"}}, "unknown key"),
        ({}, {"arms": {}, "data": {"bpe": "nowhere"}}, "nowhere/index.json: not found"),
        ({"stages.stable.mixture": {"txt": 1.0}}, {}, "no source 'txt' there. Did you mean 'text'"),
        ({"model.vocab_size": 50}, {}, "has 60 pieces but model.vocab_size is 50"),
    ],
)
def test_a_mistake_leaves_no_folder(
    small_recipe: Recipe, tmp_path: Path, keys: dict[str, Any], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(XmodelError, match=message):
        run(replace(small_recipe, keys), tmp_path / "out", **settings)
    assert not (tmp_path / "out").exists()
