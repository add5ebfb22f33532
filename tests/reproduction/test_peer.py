"""The comparison with a plain Trainer: equally many trials, what is made once, and what is read off the losses."""

import json
from pathlib import Path
from typing import Any

import pytest

from xmodel2.cli import main
from xmodel2.errors import XmodelError
from xmodel2.recipe import Recipe, recipe_to_toml, replace
from xmodel2.reproduction.peer import PeerPlan, run_peer
from xmodel2.reproduction.peer_compare import Tuned, compare
from xmodel2.reproduction.peer_rates import tune_both
from xmodel2.reproduction.peer_trainer import PeerRun, check_installed
from xmodel2.search.law_points import Row
from xmodel2.search.law_runs import Job

SPEED: dict[str, Any] = {
    "rounds": 5,
    "eager": {"factor": 0.5, "low": 0.4, "high": 0.6, "by_round": [0.5]},
    "compiled": {"factor": 1.0, "low": 0.9, "high": 1.1, "by_round": [1.0]},
}
PLAN = PeerPlan(rates=(0.5, 1.0, 2.0), peer_rates=(1e-3, 3e-3, 1e-2), seeds=2, lengths=(0.5, 0.75), rounds=5)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Losses by formula in place of training: ours is best at the recipe's rate, the Trainer at 3e-3. Names what is made."""
    names: list[str] = []

    def ours(job: Job, runs: Path) -> Row:
        names.append(f"ours {job.recipe.train.learning_rate:g} {job.recipe.seed} {job.tokens}")
        off = abs(job.recipe.train.learning_rate / 0.01 - 1)
        return job.row(4.0 + off + job.recipe.seed / 100 + (1280 - job.tokens) / 1280)

    def peer(recipe: Recipe, rate: float, out: Path, measured_at: Any = ()) -> PeerRun:
        names.append(f"peer {rate:g} {recipe.seed}")
        loss = 4.2 + 100 * abs(rate - 3e-3) + recipe.seed / 100
        return PeerRun(loss, loss - 0.01, {step: loss + 1 / step for step in measured_at})

    monkeypatch.setattr("xmodel2.reproduction.peer_runs.run_job", ours)
    monkeypatch.setattr("xmodel2.reproduction.peer_runs.train_peer", peer)
    monkeypatch.setattr("xmodel2.reproduction.peer_runs.measure_speed", lambda *_: SPEED)
    return names


def test_our_rates_are_those_of_muon_too(
    small_recipe: Recipe, tmp_path: Path, made: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = set()

    def ours(job: Job, runs: Path) -> Row:
        rates.add((job.recipe.train.learning_rate, job.recipe.train.muon_learning_rate))
        return job.row(4.0 + abs(job.recipe.train.learning_rate / 0.01 - 1) + (1280 - job.tokens) / 1280)

    monkeypatch.setattr("xmodel2.reproduction.peer_runs.run_job", ours)
    run_peer(replace(small_recipe, {"train.muon_learning_rate": 0.1}), PLAN, tmp_path, lambda text: None)
    assert rates == {(0.005, 0.05), (0.01, 0.1), (0.02, 0.2)}


def test_both_sides_are_tuned_alike_and_every_run_is_made_once(
    small_recipe: Recipe, tmp_path: Path, made: list[str]
) -> None:
    found = run_peer(small_recipe, PLAN, tmp_path, lambda text: None)
    assert len(set(made)) == len(made)
    assert [name for name in made if name.startswith("peer") and name.endswith(" 1")] == [
        "peer 5e-05 1",
        "peer 0.001 1",
        "peer 0.003 1",
        "peer 0.01 1",
    ]
    assert (found["ours"]["rate"], found["peer"]["rate"]) == (1.0, 3e-3)
    assert len(found["ours"]["rates"]) == len(found["peer"]["rates"]) == found["effort"]["trials_each"] == 3
    assert [row["tokens"] for row in found["ours"]["lengths"]] == [640, 960, 1280]
    assert found["difference"]["mean"] == pytest.approx(-0.2)
    assert json.loads((tmp_path / "peer.json").read_text()) == found
    assert (tmp_path / "figures" / "peer.svg").read_text().startswith("<svg")
    made.clear()
    assert run_peer(small_recipe, PLAN, tmp_path, lambda text: None) == found
    assert made == []


def test_a_kill_loses_the_run_in_progress(
    small_recipe: Recipe, tmp_path: Path, made: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("xmodel2.reproduction.peer_runs.run_job", killed)
        with pytest.raises(KeyboardInterrupt):
            run_peer(small_recipe, PLAN, tmp_path, lambda text: None)
    with open(tmp_path / "results.jsonl", "a") as file:
        file.write('{"run": "torn')
    begun = list(made)
    run_peer(small_recipe, PLAN, tmp_path, lambda text: None)
    assert begun == ["peer 5e-05 1"]
    assert len(set(made)) == len(made)


def test_an_optimum_at_an_edge_gives_both_sides_another_rate() -> None:
    tried = tune_both((lambda r: abs(r - 1), (0.5, 1, 2)), (lambda r: abs(r - 9), (1, 2, 4)), widen=3)
    assert list(tried[0]) == [0.5, 1, 2, 0.707, 0.841]
    assert list(tried[1]) == [1, 2, 4, 8, 16]
    steep = tune_both(
        (lambda r: 5 - r if r < 3 else float("nan"), (1, 2, 4)), (lambda r: abs(r - 2), (1, 2, 4)), widen=1
    )
    assert [list(tried) for tried in steep] == [[1, 2, 4, 2.83], [1, 2, 4, 1.41]]
    with pytest.raises(XmodelError, match="the peer's runs diverged at every rate"):
        tune_both((lambda r: r, (1, 2)), (lambda r: float("nan"), (1, 2)), widen=1)


def test_tokens_time_is_the_product_of_both_factors() -> None:
    ours = {1: {500: 4.5, 1000: 4.0}, 2: {500: 4.5, 1000: 4.0}}
    found = compare(ours, {1: 4.5, 2: 4.25}, 1000, SPEED)
    tokens = found["tokens_factor"]
    assert tokens["by_seed"] == {"1": 0.5, "2": pytest.approx(0.5**0.5)}
    assert tokens["at_most"] == [1]
    assert found["tokens_time"]["eager"]["factor"] == pytest.approx(tokens["mean"] * 0.5)
    assert found["verdict"] == "not told"  # two seeds that far apart
    assert found["equal_time"]["eager"]["tokens"] == 2000
    assert found["equal_time"]["eager"]["measured_at"] == 1000  # ours was not trained for longer
    assert compare(ours, {1: 4.5, 2: 4.5}, 1000, SPEED)["verdict"] == "held"
    slow = compare(ours, {1: 4.1, 2: 4.1}, 1000, SPEED)["tokens_time"]
    assert (slow["eager"]["verdict"], slow["compiled"]["verdict"]) == ("held", "not held")


def test_a_verdict_is_open_where_a_better_rate_could_overturn_it() -> None:
    ours = {1: {500: 4.5, 1000: 4.0}, 2: {500: 4.5, 1000: 4.0}}

    def verdicts(tuned: Tuned) -> list[str]:
        return [row["verdict"] for row in compare(ours, {1: 4.1, 2: 4.1}, 1000, SPEED, tuned)["tokens_time"].values()]

    assert verdicts(Tuned()) == ["held", "not held"]
    assert verdicts(Tuned(peer=False)) == ["not told", "not held"]
    assert verdicts(Tuned(ours=False)) == ["held", "not told"]


def test_what_is_not_reached_or_diverged_is_no_success() -> None:
    ours = {1: {500: 4.5, 1000: 4.0}, 2: {500: 4.5, 1000: 4.0}}
    found = compare(ours, {1: 3.9, 2: 4.4}, 1000, SPEED)
    assert found["tokens_factor"]["not_reached"] == [1]
    assert {row["verdict"] for row in found["tokens_time"].values()} == {"not told"}
    found = compare(ours, {1: 3.9, 2: 3.9}, 1000, SPEED)
    # Longer runs at half the time a token might do it; at the compiled Trainer's speed none can.
    assert {name: row["verdict"] for name, row in found["tokens_time"].items()} == {
        "eager": "not told",
        "compiled": "not held",
    }
    found = compare(ours, {1: None, 2: 4.5}, 1000, SPEED)
    assert (found["diverged"], found["verdict"]) == ([1], "not told")


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (PeerPlan(rates=(1.0,)), r"--rates has 1 rates and --peer-rates 4; give equally many"),
        (PeerPlan(lengths=(0.1,)), r"--lengths 0\.1: leaves no stable stage"),
        (PeerPlan(lengths=(-1.0,)), r"--lengths: give numbers above 0"),
        (PeerPlan(seeds=0), r"--seeds 0: give at least 1"),
        (PeerPlan(rounds=3), r"--rounds 3: give at least 5"),
    ],
)
def test_wrong_options_are_named(small_recipe: Recipe, tmp_path: Path, plan: PeerPlan, message: str) -> None:
    with pytest.raises(XmodelError, match=message):
        run_peer(small_recipe, plan, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_recipes_and_machines_that_cannot_be_compared(small_recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(XmodelError, match=r"needs train\.schedule = 'wsd'"):
        PLAN.checked(replace(small_recipe, {"train.schedule": "cosine"}))
    monkeypatch.setattr("xmodel2.reproduction.peer_trainer.find_spec", lambda name: None)
    with pytest.raises(XmodelError, match=r"pip install 'xmodel2\[peers\]'"):
        check_installed()


def test_the_command_says_both_factors(
    small_recipe: Recipe, tmp_path: Path, made: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(recipe_to_toml(small_recipe))
    arguments = ["peer", str(path), "--out", str(tmp_path / "out"), "--rates", "1", "2", "--peer-rates", "1e-3", "3e-3"]
    with pytest.raises(SystemExit) as stop:
        main([*arguments, "--seeds", "2", "--lengths", "0.5", "--widen", "1"])
    assert not stop.value.code
    said = capsys.readouterr().out
    assert "tokens to the Trainer's loss" in said
    assert "time a token 0.500" in said
    assert "the Trainer's own rate 5e-05" in said
