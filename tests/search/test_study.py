"""Search: finds better than chance, goes on after anything, refuses what would not compare, answers by the best mean."""

import json
import math
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Sequence
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from xmodel2.data.synthetic import write_random_shards
from xmodel2.errors import BusyError, XmodelError
from xmodel2.recipe import Recipe, load_recipe, replace
from xmodel2.search import claims, study
from xmodel2.search.study import run_search
from xmodel2.search.trials import TrialResult, Watch


@pytest.fixture(autouse=True)
def without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take a second, and have tests of their own."""
    monkeypatch.setattr(study, "write_figures", lambda *_: None)


@pytest.fixture
def recipe(small_recipe: Recipe) -> Recipe:
    return replace(small_recipe, {"name": "s", "search.top_trials": 0})


def loss_of(recipe: Recipe) -> float:
    model = recipe.model
    loss = abs(math.log2(model.dim_model_base / 128)) + abs(model.scale_emb - 9) / 9 + abs(model.scale_depth - 2)
    return loss + abs(math.log(recipe.train.learning_rate / 0.01))


def trainer(loss: Callable[[Recipe], float], seen: list[Recipe] | None = None) -> Any:
    """Return what stands for `train_trials`: each recipe's loss is a function of it."""

    def train(recipes: Sequence[Recipe], out: Path, watch: Watch | None = None) -> list[TrialResult]:
        if seen is not None:
            seen.extend(recipes)
        return [TrialResult(loss(recipe), {"text": loss(recipe)}, 20, 0.1) for recipe in recipes]

    return train


bowl = trainer(loss_of)


def rows(out: Path) -> list[dict[str, Any]]:
    trials: list[dict[str, Any]] = json.loads((out / "study.json").read_text())["trials"]
    return trials


def journal_study(out: Path, name: str = "s") -> optuna.Study:
    storage = JournalStorage(JournalFileBackend(str(out / "journal.log")))
    return optuna.load_study(study_name=name, storage=storage)


@pytest.mark.parametrize("at_once", [1, 4])
def test_it_finds_better_than_chance_within_table_5(recipe: Recipe, tmp_path: Path, at_once: int) -> None:
    answer = run_search(recipe, 40, tmp_path, at_once=at_once, train=bowl)
    trials = rows(tmp_path)
    assert answer["loss"] == min(trial["loss"] for trial in trials)
    assert answer["loss"] < sorted(trial["loss"] for trial in trials[:10])[0]
    for trial in trials:
        values = trial["values"]
        assert 2 <= values["model.scale_emb"] <= 20
        assert values["model.dim_model_base"] in (32, 64, 128, 256, 512, 1024)
        assert 1 <= values["model.scale_depth"] <= 5
        assert 0.001 <= values["train.learning_rate"] <= 0.1
    best = load_recipe(tmp_path / "best.toml")
    assert loss_of(best) == pytest.approx(answer["loss"])
    assert best.search == recipe.search


def test_trials_is_the_number_that_the_study_is_to_have(recipe: Recipe, tmp_path: Path) -> None:
    for trials in (3, 3, 5):
        run_search(recipe, trials, tmp_path, train=bowl)
    assert [trial["number"] for trial in rows(tmp_path)] == [0, 1, 2, 3, 4]
    assert len({tuple(trial["values"].values()) for trial in rows(tmp_path)}) == 5


def test_in_pieces_it_draws_what_it_draws_in_one_go(recipe: Recipe, tmp_path: Path) -> None:
    run_search(recipe, 13, tmp_path / "one", train=bowl)
    for trials in (5, 13):
        run_search(recipe, trials, tmp_path / "pieces", train=bowl)
    assert [t["values"] for t in rows(tmp_path / "pieces")] == [t["values"] for t in rows(tmp_path / "one")]


def test_an_interrupted_batch_is_made_first_in_its_own_run_directories(recipe: Recipe, tmp_path: Path) -> None:
    asked: list[Recipe] = []

    def stopped(recipes: Sequence[Recipe], out: Path, watch: Watch | None = None) -> list[TrialResult]:
        asked.extend(recipes)
        raise KeyboardInterrupt

    for _ in range(claims.MOST_TIMES + 1):  # stopping is no fault of the trial
        with pytest.raises(KeyboardInterrupt):
            run_search(recipe, 3, tmp_path, at_once=2, train=stopped)
    run_search(recipe, 3, tmp_path, at_once=2, train=trainer(loss_of, asked))
    for later in range(2, len(asked) - 1):
        assert asked[later] == asked[later % 2]
    assert len({candidate.name for candidate in asked}) == 3


def test_a_trial_whose_worker_lives_after_all_is_made_later(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Recipe] = []

    def held(recipes: Sequence[Recipe], out: Path, watch: Watch | None = None) -> list[TrialResult]:
        asked.extend(recipes)
        if len(asked) <= claims.MOST_TIMES + 1:
            raise BusyError(f"{out}: another `xmodel2` works in it")
        return bowl(recipes, out)  # type: ignore[no-any-return]

    monkeypatch.setattr("xmodel2.search.study_trials.BUSY_SECONDS", 0.0)
    run_search(recipe, 2, tmp_path, train=held)
    assert all(candidate == asked[0] for candidate in asked[: claims.MOST_TIMES + 2])
    assert sum(trial["state"] == "complete" for trial in rows(tmp_path)) == 2


def test_a_trial_that_always_fails_is_given_up(recipe: Recipe, tmp_path: Path) -> None:
    asked: list[Recipe] = []

    def failing(recipes: Sequence[Recipe], out: Path, watch: Watch | None = None) -> list[TrialResult]:
        asked.append(recipes[0])
        if recipes[0].name == "s-0000":
            raise XmodelError("no memory")
        return [TrialResult(1.0)]

    for _ in range(claims.MOST_TIMES):
        with pytest.raises(XmodelError, match="no memory"):
            run_search(recipe, 2, tmp_path, train=failing)
    run_search(recipe, 2, tmp_path, train=failing)
    assert len({candidate.name for candidate in asked}) == 3
    assert len({candidate.train.learning_rate for candidate in asked}) == 3
    assert sum(trial["state"] == "complete" for trial in rows(tmp_path)) == 2


def _stuck_search(recipe: Recipe, out: Path, begun: Event) -> None:
    def stuck(recipes: Sequence[Recipe], out: Path, watch: Watch | None = None) -> list[TrialResult]:
        (out.parent / "asked.txt").write_text(recipes[0].name)
        begun.set()
        time.sleep(60)
        return []

    run_search(recipe, 3, out, train=stuck)


def test_the_trial_of_a_killed_worker_is_made_again_with_the_same_values(recipe: Recipe, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    begun = context.Event()
    process = context.Process(target=_stuck_search, args=(recipe, tmp_path, begun))
    process.start()
    assert begun.wait(60)
    assert process.pid is not None
    # While it lives its trial is left alone: a second worker makes the others, and waits for it to the end.
    helper = context.Process(target=run_search, args=(recipe, 3, tmp_path), kwargs={"train": bowl})
    helper.start()
    deadline = time.monotonic() + 60
    while sum(t.state.is_finished() for t in journal_study(tmp_path).trials) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert journal_study(tmp_path).trials[0].state == optuna.trial.TrialState.RUNNING
    os.kill(process.pid, signal.SIGKILL)
    helper.join(60)
    process.join()
    assert helper.exitcode == 0
    killed, again = (next(t for t in rows(tmp_path) if t["number"] == number) for number in (0, 3))
    assert killed["state"] == "cut short"
    assert again["state"] == "complete"
    assert again["again_of"] == 0
    assert again["values"] == killed["values"]


def test_a_worker_elsewhere_counts_as_dead_once_its_heart_stops(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_search(recipe, 1, tmp_path, train=bowl)
    kept = journal_study(tmp_path)
    elsewhere = kept.ask(kept.trials[0].distributions)
    elsewhere.set_user_attr("worker", "another.host-17-abcd")
    elsewhere.set_user_attr("beat", 4)
    monkeypatch.setattr(claims, "GRACE_SECONDS", 0.5)
    run_search(recipe, 3, tmp_path, train=bowl)
    assert [(t["state"], t.get("again_of")) for t in rows(tmp_path)] == [
        ("complete", None),
        ("cut short", None),
        ("complete", None),
        ("complete", 1),
    ]


def test_a_result_that_comes_after_all_is_passed_over(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that slept wakes up: another took it for dead meanwhile."""
    ended: list[bool] = []

    def slept(recipes: Sequence[Recipe], out: Path, watch: Watch | None = None) -> list[TrialResult]:
        if not ended:
            journal_study(tmp_path).tell(0, state=optuna.trial.TrialState.FAIL)
            assert watch is not None
            ended.append(watch(0, 5, 1.0))
        return [TrialResult(1.0)]

    run_search(recipe, 2, tmp_path, train=slept)
    assert ended == [True]
    assert [trial["state"] for trial in rows(tmp_path)] == ["cut short", "complete", "complete"]


def test_two_workers_that_join_one_study_share_its_trials(small_recipe: Recipe, tmp_path: Path) -> None:
    """The real thing: two processes, real trainings, a database; and the best again with another seed."""
    recipe = replace(small_recipe, {"name": "w", "search.top_trials": 1, "search.top_seeds": 2})
    answer = run_search(recipe, 3, tmp_path, storage=f"sqlite:///{tmp_path}/study.db", workers=2)
    trials = rows(tmp_path)
    assert [trial["state"] for trial in trials if trial["state"] != "cut short"] == ["complete"] * 3
    assert set(answer["losses"]) == {"1", "2"}
    assert (tmp_path / "trials" / f"w-{answer['trial']:04d}-seed-2" / "metrics.jsonl").exists()
    assert not list((tmp_path / "workers").glob("*.lock"))


def test_a_changed_recipe_or_space_is_refused_naming_the_keys(recipe: Recipe, tmp_path: Path) -> None:
    run_search(recipe, 1, tmp_path, train=bowl)
    other = replace(recipe, {"seed": 2, "search.space": {"model.scale_emb": {"low": 2, "high": 30, "step": 1}}})
    with pytest.raises(XmodelError, match=r"search.space.model.scale_emb.high was 20, is 30; seed was 1, is 2"):
        run_search(other, 2, tmp_path, train=bowl)
    elsewhere = tmp_path / "other machine"
    with pytest.raises(XmodelError, match=r"study 's': began with another recipe.*seed was 1, is 2"):
        run_search(other, 2, elsewhere, storage=str(tmp_path / "journal.log"), train=bowl)
    run_search(replace(recipe, {"search.pruner": "none", "search.top_trials": 1}), 1, tmp_path, train=bowl)


def test_other_data_are_refused_naming_both(recipe: Recipe, tmp_path: Path) -> None:
    run_search(recipe, 1, tmp_path / "a", train=bowl)
    write_random_shards(tmp_path / "data", vocab_size=60, seed=1)
    other = replace(recipe, {"data.dir": str(tmp_path / "data")})
    with pytest.raises(XmodelError, match=r"judged on data [0-9a-f]{12}, and data.dir here holds [0-9a-f]{12}"):
        run_search(other, 2, tmp_path / "b", storage=str(tmp_path / "a" / "journal.log"), train=bowl)


def test_other_code_is_refused_naming_both_unless_accepted(recipe: Recipe, tmp_path: Path) -> None:
    run_search(recipe, 1, tmp_path, train=bowl)
    kept = journal_study(tmp_path)
    kept.set_user_attr("xmodel2", kept.user_attrs["xmodel2"] | {"code": "0.0.1 (cafe)"})
    with pytest.raises(XmodelError, match=r"its code is 0.0.1 \(cafe\), and the code here is 0.*accept-code"):
        run_search(recipe, 2, tmp_path, train=bowl)
    run_search(recipe, 2, tmp_path, accept_code=True, train=bowl)
    assert len(rows(tmp_path)) == 2


def test_a_worker_is_refused_as_soon_as_the_study_is_another(recipe: Recipe, tmp_path: Path) -> None:
    def meanwhile(recipes: Sequence[Recipe], out: Path, watch: Watch | None = None) -> list[TrialResult]:
        kept = journal_study(tmp_path)
        kept.set_user_attr("xmodel2", kept.user_attrs["xmodel2"] | {"code": "0.2 (newer)"})
        return [TrialResult(1.0)]

    with pytest.raises(XmodelError, match="newer"):
        run_search(recipe, 2, tmp_path, train=meanwhile)
    assert [trial.value for trial in journal_study(tmp_path).trials] == [1.0]


def test_diverged_trials_are_results_but_no_answer(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(XmodelError, match="no trial ended with a finite loss"):
        run_search(recipe, 2, tmp_path, train=trainer(lambda _: math.nan))
    assert [(trial["state"], trial["loss"]) for trial in rows(tmp_path)] == [("diverged", None)] * 2
    assert math.isfinite(run_search(recipe, 5, tmp_path, train=bowl)["loss"])


def test_a_loss_that_is_not_finite_on_the_way_has_diverged(recipe: Recipe, tmp_path: Path) -> None:
    def ended_on_the_way(recipes: Sequence[Recipe], out: Path, watch: Watch | None = None) -> list[TrialResult]:
        assert watch is not None
        assert watch(0, 10, math.nan)
        return [TrialResult(math.nan, {"text": math.nan}, 10, ended="pruned")]  # as `train_trials` does

    with pytest.raises(XmodelError, match="no trial ended with a finite loss"):
        run_search(recipe, 1, tmp_path, train=ended_on_the_way)
    assert [(trial["state"], trial["loss"]) for trial in rows(tmp_path)] == [("diverged", None)]


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ({"trials": 0}, "--trials 0: must be at least 1"),
        ({"workers": 0}, "--workers 0: must be at least 1"),
        ({"at_once": 0}, "--trials-at-once 0: must be at least 1"),
    ],
)
def test_numbers_that_make_no_trial_are_refused(
    recipe: Recipe, tmp_path: Path, numbers: dict[str, int], words: str
) -> None:
    with pytest.raises(XmodelError, match=words):
        run_search(**{"recipe": recipe, "trials": 1, "out": tmp_path / "out", "train": bowl, **numbers})
    assert not (tmp_path / "out").exists()


def test_a_combination_that_the_recipe_refuses_is_a_result_with_its_reason(recipe: Recipe, tmp_path: Path) -> None:
    heads = {"model.hidden_size": {"choices": [32, 36]}, "model.num_attention_heads": {"choices": [2, 3]}}
    run_search(replace(recipe, {"search.space": heads}), 12, tmp_path, at_once=4, train=bowl)
    refused = [trial for trial in rows(tmp_path) if trial["state"] == "refused"]
    assert refused
    for trial in refused:
        assert (trial["values"]["model.hidden_size"], trial["values"]["model.num_attention_heads"]) == (32, 3)
        assert "must be a multiple of num_attention_heads" in trial["ended"]
    assert sum(trial["state"] == "complete" for trial in rows(tmp_path)) == 12 - len(refused)


def test_high_rates_that_diverge_are_left_alone(recipe: Recipe, tmp_path: Path) -> None:
    def cliff(recipe: Recipe) -> float:
        rate = recipe.train.learning_rate
        return math.nan if rate > 0.05 else abs(math.log(rate / 0.04))

    run_search(recipe, 32, tmp_path, train=trainer(cliff))
    trials = rows(tmp_path)
    early, late = ([t["state"] == "diverged" for t in part] for part in (trials[:10], trials[-16:]))
    assert sum(late) / 16 < sum(early) / 10 / 2


def test_a_bad_trial_is_pruned_on_the_way(recipe: Recipe, tmp_path: Path) -> None:
    def watched(recipes: Sequence[Recipe], out: Path, watch: Watch | None = None) -> list[TrialResult]:
        assert watch is not None
        loss = loss_of(recipes[0])
        ended = next((step for step in (5, 10, 15, 20) if watch(0, step, loss)), None)
        return [TrialResult(loss, step=ended or 20, ended="pruned" if ended else "")]

    recipe = replace(recipe, {"search.startup_trials": 4})
    run_search(recipe, 12, tmp_path, train=watched)
    trials = rows(tmp_path)
    pruned = [trial for trial in trials if trial["state"] == "pruned"]
    assert pruned
    assert all(trial["loss"] is None and max(map(int, trial["curve"])) < 20 * 64 for trial in pruned)
    assert all(trial["state"] == "complete" for trial in trials[:4])
    run_search(replace(recipe, {"search.pruner": "none"}), 6, tmp_path / "none", train=watched)
    assert {trial["state"] for trial in rows(tmp_path / "none")} == {"complete"}
    run_search(replace(recipe, {"search.pruner": "hyperband"}), 12, tmp_path / "hyperband", train=watched)
    assert "pruned" in {trial["state"] for trial in rows(tmp_path / "hyperband")}


@pytest.mark.parametrize("pruner", ["median", "hyperband"])
def test_a_repeat_is_not_pruned_for_its_seed(recipe: Recipe, tmp_path: Path, pruner: str) -> None:
    def watched(recipes: Sequence[Recipe], out: Path, watch: Watch | None = None) -> list[TrialResult]:
        assert watch is not None
        loss = loss_of(recipes[0]) + 100 * (recipes[0].seed - recipe.seed)
        if recipes[0].seed > recipe.seed:
            assert not any(watch(0, step, loss) for step in (5, 10, 15, 20))
            assert watch(0, 5, math.nan)
        return [TrialResult(loss, step=20)]

    own = {"search.startup_trials": 1, "search.top_trials": 3, "search.top_seeds": 5, "search.pruner": pruner}
    answer = run_search(replace(recipe, own), 4, tmp_path, train=watched)
    assert (answer["repeats"], answer["diverged_seeds"], len(answer["losses"])) == (12, 0, 5)


def test_the_answer_is_the_best_mean_over_seeds(recipe: Recipe, tmp_path: Path) -> None:
    seeds: list[Recipe] = []

    def lucky(recipe: Recipe) -> float:
        """The first seed flatters large embeddings."""
        large = recipe.model.scale_emb > 10
        return {(True, 1): 1.0, (False, 1): 1.1}.get((large, recipe.seed), 3.0 if large else 1.2 + recipe.seed / 10)

    recipe = replace(recipe, {"search.top_trials": 8, "search.top_seeds": 3})
    answer = run_search(recipe, 8, tmp_path, at_once=3, train=trainer(lucky, seeds))
    assert answer["losses"] == {"1": 1.1, "2": pytest.approx(1.4), "3": pytest.approx(1.5)}
    assert answer["loss"] == pytest.approx((1.1 + 1.4 + 1.5) / 3)
    assert answer["spread"] == pytest.approx(0.2081665999)
    assert answer["repeats"] == 16
    assert len({candidate.name for candidate in seeds}) == 24
    before = len(seeds)
    run_search(recipe, 8, tmp_path, train=trainer(lucky, seeds))
    assert len(seeds) == before


def test_a_repeat_that_was_stopped_is_made_once_more(recipe: Recipe, tmp_path: Path) -> None:
    stops = iter([False, False, True, False])
    made: list[str] = []

    def stopped(recipes: Sequence[Recipe], out: Path, watch: Watch | None = None) -> list[TrialResult]:
        if next(stops):
            raise KeyboardInterrupt
        made.append(recipes[0].name)
        return [TrialResult(1.0)]

    recipe = replace(recipe, {"search.top_trials": 1, "search.top_seeds": 2})
    with pytest.raises(KeyboardInterrupt):
        run_search(recipe, 2, tmp_path, train=stopped)
    assert run_search(recipe, 2, tmp_path, train=stopped)["repeats"] == 1
    assert made == ["s-0000", "s-0001", "s-0000-seed-2"]


def test_a_finalist_that_diverges_with_another_seed_is_not_the_answer(recipe: Recipe, tmp_path: Path) -> None:
    def fragile(recipe: Recipe) -> float:
        large = recipe.model.scale_emb > 10
        return math.nan if large and recipe.seed == 2 else 1.0 if large else 2.0

    recipe = replace(recipe, {"search.top_trials": 10, "search.top_seeds": 2})
    answer = run_search(recipe, 10, tmp_path, train=trainer(fragile))
    assert answer["loss"] == 2.0
    finalists = json.loads((tmp_path / "study.json").read_text())["finalists"]
    assert finalists[-1]["losses"] == {"1": 1.0, "2": None}


def test_a_journal_cut_off_in_the_middle_of_a_line_goes_on(recipe: Recipe, tmp_path: Path) -> None:
    run_search(recipe, 2, tmp_path, train=bowl)
    with open(tmp_path / "journal.log", "ab") as journal:
        journal.write(b'{"op_code":4,"worker')
    run_search(recipe, 3, tmp_path, train=bowl)
    assert len(rows(tmp_path)) == 3


def test_a_database_that_cannot_be_opened_is_one_message(recipe: Recipe, tmp_path: Path) -> None:
    for url in ("sqlite:////no/such/folder/x.db", "nonsense://x"):
        with pytest.raises(XmodelError, match="--storage: cannot be opened"):
            run_search(recipe, 1, tmp_path, storage=url, train=bowl)
