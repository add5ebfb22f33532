"""Carried-over values against a direct search: what is compared with what, on which seeds, gone on with, refused, said."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from xmodel2.cli import main
from xmodel2.errors import XmodelError
from xmodel2.files import having
from xmodel2.recipe import Recipe, recipe_to_toml, replace
from xmodel2.search import direct, study
from xmodel2.search.direct import compare, overall, run_direct, trials_of
from xmodel2.search.direct_figure import direct_figure
from xmodel2.search.direct_runs import Runs
from xmodel2.search.study import run_search
from xmodel2.search.trials import TrialResult, Watch, train_trials

GOOD = {"model.scale_emb": 9, "model.dim_model_base": 128, "model.scale_depth": 2.0, "train.learning_rate": 0.01}


@pytest.fixture(autouse=True)
def without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take a second, and have tests of their own."""
    monkeypatch.setattr(study, "write_figures", lambda *_: None)
    monkeypatch.setattr(direct, "direct_figure", lambda _: "<svg/>")


@pytest.fixture
def recipe(small_recipe: Recipe) -> Recipe:
    own = {"name": "s", "search.top_trials": 2, "search.top_seeds": 2, "search.startup_trials": 4}
    return replace(small_recipe, {**own, **GOOD})


def loss_of(recipe: Recipe) -> float:
    """A bowl around GOOD, to which each seed adds its own."""
    model = recipe.model
    loss = 5 + abs(math.log2(model.dim_model_base / 128)) + abs(model.scale_emb - 9) / 9 + abs(model.scale_depth - 2)
    return loss + abs(math.log(recipe.train.learning_rate / 0.01)) + recipe.seed % 7 / 100


class Trainings:
    """Stands for `train_trials`, and keeps what it was given."""

    def __init__(self, loss: Callable[[Recipe], float] = loss_of, stop_at: int | None = None) -> None:
        self.loss, self.stop_at, self.seen = loss, stop_at, list[Recipe]()

    def __call__(self, recipes: Sequence[Recipe], out: Path, watch: Watch | None = None) -> list[TrialResult]:
        if len(self.seen) == self.stop_at:
            raise KeyboardInterrupt
        self.seen += recipes
        return [TrialResult(self.loss(recipe), {}, 20, 0.1) for recipe in recipes]

    @property
    def names(self) -> list[str]:
        return [recipe.name for recipe in self.seen]


def test_good_values_carry_over_and_bad_ones_do_not(recipe: Recipe, tmp_path: Path) -> None:
    held = run_direct(recipe, [32, 64], 6, 3, tmp_path / "good", train=Trainings())
    assert held["verdict"] == "held"
    assert [(size["width"], size["verdict"]) for size in held["sizes"]] == [(32, "held"), (64, "held")]
    for size in held["sizes"]:
        assert size["carried"]["values"] == GOOD
        assert size["difference"] == pytest.approx(size["carried"]["mean"] - size["direct"]["mean"])
        assert size["percent"] == pytest.approx(100 * size["difference"] / size["direct"]["mean"])
        assert size["percent"] <= 0
        assert size["direct"]["trials"] == 6
        assert size["direct"]["repeats"] == 2
        assert len(size["direct"]["points"]) == size["direct"]["complete"]
    assert held["sizes"][1]["parameters"] > held["sizes"][0]["parameters"]
    assert json.loads((tmp_path / "good" / "direct.json").read_text()) == held
    assert (tmp_path / "good" / "figures" / "direct.svg").read_text().startswith("<svg")
    bad = run_direct(replace(recipe, {"train.learning_rate": 0.09}), [32], 12, 3, tmp_path / "bad", train=Trainings())
    assert bad["sizes"][0]["percent"] > 0.5
    assert bad["verdict"] == "not held at width 32"


def test_what_is_compared_chose_nothing(recipe: Recipe, tmp_path: Path) -> None:
    small, trainings = Trainings(), Trainings()
    run_search(recipe, 4, tmp_path / "small", train=small)
    result = run_direct(recipe, [32, 64], 4, 3, tmp_path / "out", train=trainings)
    compared = [one for one in trainings.seen if "-carried-" in one.name or "-trial-" in one.name]
    searched = [one for one in trainings.seen if one not in compared]
    fresh = {one.seed for one in compared}
    assert sorted(fresh) == result["seeds"]
    assert not fresh & {one.seed for one in (*small.seen, *searched)}
    # The searches are independent of the small one and of each other: no point is drawn twice.
    parts = [small.seen, *([one for one in searched if one.model.hidden_size == width] for width in (32, 64))]
    drawn = [{(one.train.learning_rate, one.model.scale_emb, one.model.scale_depth) for one in part} for part in parts]
    assert [len(points) for points in drawn] == [4, 4, 4]
    assert len(set.union(*drawn)) == 12
    for width in (32, 64):
        for kind in ("carried", "trial"):
            seeds = [one.seed for one in compared if one.model.hidden_size == width and f"x1-{kind}" in one.name]
            assert seeds == result["seeds"]
    assert all(one.model.head_dim == recipe.model.head_dim for one in compared)


def test_it_goes_on_where_it_was_stopped(recipe: Recipe, tmp_path: Path) -> None:
    whole = Trainings()
    expected = run_direct(recipe, [32, 64], 3, 2, tmp_path / "whole", train=whole)
    made: list[Recipe] = []
    for stop_at in (2, 5, 4, None):  # in a search, in the comparison, in the other search, nowhere
        part = Trainings(stop_at=stop_at)
        if stop_at is None:
            result = run_direct(recipe, [64, 32], 3, 2, tmp_path / "parts", train=part)
        else:
            with pytest.raises(KeyboardInterrupt):
                run_direct(recipe, [32, 64], 3, 2, tmp_path / "parts", train=part)
        made += part.seen
    # But for their names: a trial that is made again has another number.
    assert [replace(one, {"name": "s"}) for one in made] == [replace(one, {"name": "s"}) for one in whole.seen]
    assert [size["percent"] for size in result["sizes"]] == [size["percent"] for size in expected["sizes"]]
    again = Trainings()
    assert run_direct(recipe, [32, 64], 3, 2, tmp_path / "parts", train=again) == result
    assert not again.seen
    run_direct(recipe, [32], 3, 3, tmp_path / "parts", train=again)
    assert len(again.seen) == 2  # one more seed of each side
    [size] = run_direct(recipe, [32], 4, 3, tmp_path / "parts", train=again)["sizes"]
    assert size["direct"]["trials"] == 4
    assert again.seen[2].seed not in result["seeds"]  # one more trial of the search


def test_several_processes_share_the_runs(recipe: Recipe, tmp_path: Path) -> None:
    told: list[tuple[str, int]] = []
    recipe = replace(recipe, {"search.top_seeds": 1})
    alone = run_direct(recipe, [32], 1, 2, tmp_path / "alone", train=train_trials)
    shared = run_direct(
        recipe, [32], 1, 2, tmp_path / "shared", workers=2, say=lambda what, run: told.append((what, run.seed))
    )
    assert shared["sizes"][0]["carried"] == alone["sizes"][0]["carried"]
    assert shared["sizes"][0]["direct"]["losses"] == alone["sizes"][0]["direct"]["losses"]
    assert sorted(told) == [("carried", 2), ("carried", 3), ("trial-0", 2), ("trial-0", 3)]
    assert len((tmp_path / "shared" / "direct" / "results.jsonl").read_text().splitlines()) == 4
    logs = tmp_path / "shared" / "direct" / "workers"
    assert sorted(log.name for log in logs.iterdir()) == ["worker-0.log", "worker-1.log"]


def test_what_a_lost_process_leaves_is_made_and_it_is_told(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xmodel2.search.direct_runs.share_work", lambda *_: ["worker 0 was killed (signal 9)"])
    monkeypatch.setattr("xmodel2.search.study.run_workers", lambda job, count: [])
    trainings = Trainings()
    run_direct(recipe, [32], 2, 2, tmp_path, train=trainings)
    result = run_direct(recipe, [32], 2, 4, tmp_path, workers=2, train=trainings)
    assert result["lost_workers"] == ["worker 0 was killed (signal 9)"]
    assert [*result["sizes"][0]["carried"]["losses"]] == ["3", "4", "5", "6"]


def test_a_run_that_another_process_holds_is_left_to_it(recipe: Recipe, tmp_path: Path) -> None:
    trainings, sides = Trainings(), {"carried": dict(GOOD), "trial-7": {**GOOD, "model.scale_emb": 4}}
    runs = Runs(recipe, tmp_path, 2, trainings)
    with having(tmp_path / "locks" / "32-carried-3.lock"):
        runs.make(32, sides, [3, 4, 5], wait=False)
    assert trainings.names == ["s-32x1-carried-5", "s-32x1-trial-7-3", "s-32x1-trial-7-4", "s-32x1-trial-7-5"]
    ours, theirs = runs.losses(32, sides, [3, 4, 5])
    assert trainings.names[4:] == ["s-32x1-carried-3", "s-32x1-carried-4"]
    assert [*ours] == [*theirs] == [3, 4, 5]


def test_values_that_both_have_are_trained_once(recipe: Recipe, tmp_path: Path) -> None:
    space = {"search.space": {key: {"choices": [value]} for key, value in GOOD.items()}}
    trainings = Trainings()
    [size] = run_direct(replace(recipe, space), [32], 1, 2, tmp_path, at_once=2, train=trainings)["sizes"]
    assert trainings.names[-2:] == ["s-32x1-carried-3", "s-32x1-carried-4"]
    assert (size["percent"], size["percent_interval"], size["verdict"]) == (0.0, [0.0, 0.0], "held")


@pytest.mark.parametrize(
    ("carried", "best", "words"),
    [
        ({1: 4.0, 2: 4.0, 3: 4.004}, {1: 4.0, 2: 4.004, 3: 4.0}, "held"),
        ({1: 4.1, 2: 4.1, 3: 4.11}, {1: 4.0, 2: 4.0, 3: 4.0}, "not held"),
        ({1: 4.0, 2: 4.1, 3: 4.0}, {1: 4.0, 2: 4.0, 3: 4.0}, "not told: the interval has both"),
        ({1: 4.0}, {1: 4.0}, "not told: fewer than two seeds have both losses"),
        ({1: 4.0, 2: None}, {1: 4.0, 2: 4.0}, "not held: the carried-over values diverge with seed 2"),
        ({1: 4.0, 2: 4.0}, {1: 4.0, 2: None}, "not told: fewer than two seeds have both losses"),
        ({1: None, 2: None}, {1: None, 2: None}, "not told: fewer than two seeds have both losses"),
    ],
)
def test_verdicts(carried: dict[int, float | None], best: dict[int, float | None], words: str) -> None:
    found = compare(carried, best)
    assert found["verdict"] == words
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_the_interval_is_students(recipe: Recipe) -> None:
    found = compare({1: 4.1, 2: 4.2, 3: 4.3}, {1: 4.0, 2: 4.0, 3: 4.0})
    half = 4.302652729911275 * 0.1 / math.sqrt(3)  # tables: t of 2 degrees of freedom at 97.5%
    assert found["interval"] == pytest.approx([0.2 - half, 0.2 + half])
    assert found["percent_interval"] == pytest.approx([100 * (0.2 - half) / 4, 100 * (0.2 + half) / 4])


def test_what_would_fail_at_any_size_is_judged_at_all_together() -> None:
    carried, best = {1: 4.1, 2: 4.105, 3: 4.11}, {1: 4.05, 2: 4.05, 3: 4.05}
    assert compare(carried, best)["verdict"] == "not held"
    assert compare(carried, best, sizes=9)["verdict"] == "not told: the interval has both"


def test_the_verdict_over_sizes() -> None:
    words = {96: "held", 128: "not told: the interval has both", 192: "not held"}
    sizes = [{"width": width, "verdict": verdict, "direct": {"trials": 5}} for width, verdict in words.items()]
    assert overall(sizes[:1]) == "held"
    assert overall(sizes[:2]) == "not told at width 128"
    assert overall(sizes) == "not held at width 192"
    assert overall(sizes[:1], small_trials=5) == "held"
    few = "not told: held, but against 5 trials, and 6 found the carried values"
    assert overall(sizes[:1], small_trials=6) == few


def test_values_that_diverge_are_told(recipe: Recipe, tmp_path: Path) -> None:
    wild = replace(recipe, {"train.learning_rate": 0.1})
    trainings = Trainings(lambda one: math.nan if one.train.learning_rate > 0.06 else loss_of(one))
    [size] = run_direct(wild, [32], 5, 2, tmp_path, train=trainings)["sizes"]
    assert size["carried"]["mean"] is None
    assert size["verdict"].startswith("not held: the carried-over values diverge with seed 3, 4")
    assert size["direct"]["trials"] == 5


def test_the_figure_shows_both_sides(recipe: Recipe, tmp_path: Path) -> None:
    result = run_direct(recipe, [32, 64], 4, 2, tmp_path, train=Trainings())
    text = direct_figure(result)
    assert text == direct_figure(json.loads(json.dumps(result)))
    for words in ("32 wide", "64 wide", "carried over unchanged", "its best values", "learning rate"):
        assert words in text


def test_what_does_not_fit_is_refused_before_the_first_trial(recipe: Recipe, tmp_path: Path) -> None:
    trainings = Trainings()
    for change, widths, words in (
        ({}, [40], "--widths 40: is not a multiple"),
        ({}, [], "--direct-trials: give --widths"),
        ({"search.space": {"model.num_hidden_layers": {"low": 1, "high": 2}}}, [32], "sets the model's size"),
        ({"search.space": {"train.learning_rat": {"low": 1, "high": 2}}}, [32], "'train.learning_rat' is not a key"),
    ):
        with pytest.raises(XmodelError, match=words):
            run_direct(replace(recipe, change), widths, 3, 2, tmp_path / "out", train=trainings)
    assert not trainings.seen
    assert not (tmp_path / "out").exists()
    run_direct(recipe, [32], 2, 2, tmp_path / "out", train=trainings)
    with pytest.raises(XmodelError, match=r"another recipe \(train.learning_rate was 0.01, is 0.02"):
        run_direct(replace(recipe, {"train.learning_rate": 0.02}), [32], 2, 2, tmp_path / "out", train=trainings)
    with open(tmp_path / "out" / "direct" / "results.jsonl", "a") as file:
        file.write('{"width": 32}\n')
    with pytest.raises(XmodelError, match=r"results\.jsonl: a line is not a finished run"):
        run_direct(recipe, [32], 2, 2, tmp_path / "out", train=trainings)


def test_the_budget_of_the_small_search_is_known(recipe: Recipe, tmp_path: Path) -> None:
    run_search(recipe, 3, tmp_path, train=Trainings())
    assert trials_of(tmp_path / "best.toml") == 3
    assert trials_of(tmp_path / "recipe.toml") is None


def command(*arguments: str) -> Any:
    with pytest.raises(SystemExit) as stopped:
        main(["transfer", *arguments])
    return stopped.value.code


def test_from_the_command_line(recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = tmp_path / "recipe.toml", tmp_path / "out"
    file.write_text(recipe_to_toml(replace(recipe, {"search.top_trials": 0})))
    arguments = [str(file), "--direct-trials", "2", "--widths", "48", "--direct-seeds", "2", "--out", str(out)]
    assert command(*arguments, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert list(result) == ["direct"]  # no sweep, and no coordinate check
    assert json.loads((out / "direct.json").read_text()) == result["direct"]
    lines = (out / "direct" / "results.jsonl").read_text()
    assert not list((out / "direct" / "trials").glob("*"))
    assert command(*arguments) == 0
    said = capsys.readouterr().out
    assert "bound 0.5%" in said
    assert "Means of seeds 3, 4, of which no search knew; 2 trials at each width" in said
    assert (out / "direct" / "results.jsonl").read_text() == lines


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--direct-trials", "-1"], "--direct-trials -1: must be at least 1"),
        (["--direct-trials", "1", "--direct-seeds", "0"], "--direct-seeds 0: must be at least 1"),
        (["--direct-trials", "1", "--workers", "0"], "--workers 0: must be at least 1"),
        (["--direct-trials", "1", "--widths", ""], "--direct-trials: give --widths"),
    ],
)
def test_mistakes_are_named(
    recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    file = tmp_path / "recipe.toml"
    file.write_text(recipe_to_toml(recipe))
    assert command(str(file), "--out", str(tmp_path / "out"), *arguments) == 1
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
