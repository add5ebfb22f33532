"""A scaling law from runs: predicted before trained, resumable, refused when it would not compare."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from xmodel2.cli import main
from xmodel2.commands.law import law
from xmodel2.errors import XmodelError
from xmodel2.recipe import Recipe, load_recipe, recipe_to_toml, replace
from xmodel2.search.law import LawPlan, fit_points, run_law
from xmodel2.search.law_fit import BOTH, Law
from xmodel2.search.law_points import Row, append_row, read_rows
from xmodel2.search.law_runs import Job, at_length, jobs_of, run_job
from xmodel2.train import read_metrics
from xmodel2.train.checkpoint import checkpoint_steps

TRUE = Law(BOTH, 1.5, (20.0, 30.0), (0.4, 0.4))
PLAN = LawPlan(widths=(16, 32, 48), tokens=(10 * 64, 20 * 64, 40 * 64), then=64)


def by_law(job: Job, runs: Path) -> Row:
    """Return what the law says, in place of training."""
    (runs / f"{job.size}-seed-{job.recipe.seed}").mkdir(parents=True, exist_ok=True)
    row = job.row()
    return job.row(TRUE.loss(parameters=row.parameters, tokens=row.tokens), seconds=1.0)


def call(
    recipe: Recipe,
    out: Path,
    plan: LawPlan = PLAN,
    run: Callable[[Job, Path], Row] = by_law,
    drawn: bool = False,
) -> dict[str, Any]:
    """Measure and fit; figures take a second each time, and are drawn for the test that looks at them."""
    with pytest.MonkeyPatch.context() as patch:
        if not drawn:
            patch.setattr("xmodel2.search.law.law_figures", lambda *_: {})
        return run_law(recipe, plan, out, draws=20, say=lambda line: None, run=run)


def test_the_prediction_is_on_disk_before_the_size_is_trained(small_recipe: Recipe, tmp_path: Path) -> None:
    seen: list[bool] = []

    def watched(job: Job, runs: Path) -> Row:
        seen.append((tmp_path / "prediction-64x1.json").exists())
        return by_law(job, runs)

    found = call(small_recipe, tmp_path, run=watched, drawn=True)
    assert seen == [False] * 9 + [True] * 3
    said = json.loads((tmp_path / "prediction-64x1.json").read_text())
    assert said["from"] == {"sizes": ["16x1", "32x1", "48x1"], "points": 9}
    for before, after in zip(said["lengths"], found["prediction"]["lengths"], strict=True):
        assert before["without embeddings"].items() <= after["without embeddings"].items()
        assert after["without embeddings"]["percent"] == pytest.approx(0, abs=0.01)
        assert before["largest_fitted"] == after["largest_fitted"] > after["without embeddings"]["measured"]
    assert (tmp_path / "law.json").exists()
    assert len(list((tmp_path / "figures").glob("*.svg"))) == 4
    assert found["cost"]["tokens_trained"] == 3 * (24 + 4 + 8 + 16) * 64
    assert found["cost"]["tokens_from_the_beginning"] == 3 * 70 * 64


def test_a_prediction_stays_as_it_was_written(small_recipe: Recipe, tmp_path: Path) -> None:
    call(small_recipe, tmp_path)
    before = (tmp_path / "prediction-64x1.json").read_bytes()
    call(small_recipe, tmp_path, LawPlan(PLAN.widths, PLAN.tokens, PLAN.then, seeds=2))
    assert (tmp_path / "prediction-64x1.json").read_bytes() == before
    (tmp_path / "prediction-64x1.json").unlink()
    with pytest.raises(XmodelError, match=r"size 64x1 is trained already and prediction-64x1\.json is not there"):
        call(small_recipe, tmp_path)


def test_what_is_finished_is_not_made_again(small_recipe: Recipe, tmp_path: Path) -> None:
    made: list[tuple[str, int, int]] = []

    def stopped(job: Job, runs: Path) -> Row:
        if len(made) == 4:
            raise KeyboardInterrupt
        made.append(job.key)
        return by_law(job, runs)

    with pytest.raises(KeyboardInterrupt):
        call(small_recipe, tmp_path, run=stopped)
    with open(tmp_path / "results.jsonl", "a") as file:
        file.write('{"parameters": 12')  # a kill in the midst of a line

    def going_on(job: Job, runs: Path) -> Row:
        made.append(job.key)
        return by_law(job, runs)

    call(small_recipe, tmp_path, run=going_on)
    assert len(made) == len(set(made)) == 12
    assert len(read_rows(tmp_path / "results.jsonl")) == 12
    call(small_recipe, tmp_path, run=lambda job, runs: pytest.fail("made again"))


def test_another_recipe_or_other_data_are_refused(
    small_recipe: Recipe, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    call(small_recipe, tmp_path)
    with pytest.raises(XmodelError, match=r"another recipe \(train\.learning_rate was 0\.01, is 0\.02\)"):
        call(replace(small_recipe, {"train.learning_rate": 0.02}), tmp_path)
    with pytest.raises(XmodelError, match=r"train\.heldout_rows was 2, is 3"):
        call(replace(small_recipe, {"train.heldout_rows": 3}), tmp_path)
    (tmp_path / "data.json").write_text('{"fingerprint": "of others"}')
    with pytest.raises(XmodelError, match="is not the data that"):
        call(replace(small_recipe, {"train.checkpoint_every": 2}), tmp_path)


def test_a_plan_that_gives_no_law_is_refused_before_training(small_recipe: Recipe, tmp_path: Path) -> None:
    for plan, message in (
        (LawPlan((16, 32), PLAN.tokens), r"3 different parameters.*add 1 sizes"),
        (LawPlan(PLAN.widths, PLAN.tokens[:2]), r"3 different tokens.*add 1 lengths"),
        (LawPlan(PLAN.widths, PLAN.tokens, then=48), r"--then 48: is not above"),
        (LawPlan((16, 32, 50), PLAN.tokens), r"--widths 50: is not a multiple of the recipe's head width 16"),
        (LawPlan(PLAN.widths, (64, *PLAN.tokens)), r"--tokens 64: are 1 steps, .*the 3 of the warm-up.* at least 3"),
    ):
        with pytest.raises(XmodelError, match=message):
            call(small_recipe, tmp_path, plan)
    with pytest.raises(XmodelError, match=r"train\.schedule = 'wsd'"):
        call(replace(small_recipe, {"train.schedule": "cosine"}), tmp_path)
    assert not list(tmp_path.iterdir())


def test_two_at_once_in_one_folder_are_refused(small_recipe: Recipe, tmp_path: Path) -> None:
    def meanwhile(job: Job, runs: Path) -> Row:
        with pytest.raises(XmodelError, match="another `xmodel2` works in it"):
            call(small_recipe, tmp_path)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        call(small_recipe, tmp_path, run=meanwhile)


def test_a_run_that_diverged_is_a_result(small_recipe: Recipe, tmp_path: Path) -> None:
    def one_diverges(job: Job, runs: Path) -> Row:
        return job.row(ended="diverged: loss is not finite") if job.key == ("48x1", 640, 1) else by_law(job, runs)

    found = call(small_recipe, tmp_path, run=one_diverges)
    assert (found["points"], found["diverged"]) == (8, 1)
    assert sum(math.isnan(row.loss) for row in read_rows(tmp_path / "results.jsonl")) == 1


def test_lengths_keep_the_shape_of_the_recipe(small_recipe: Recipe) -> None:
    longer = at_length(small_recipe, 40 * 64)
    assert (longer.stable_steps, longer.decay_steps, longer.train.decay_half_life_steps) == (24, 16, 4)
    jobs = jobs_of(small_recipe, 16, (40 * 64, 20 * 64, 20 * 64 + 1), seed=7)
    assert [(job.tokens, job.begins, job.longest, job.recipe.seed) for job in jobs] == [
        (20 * 64, 0, 24, 7),
        (40 * 64, 12, 24, 7),
    ]


def test_from_one_end_to_the_other(small_recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = tmp_path / "recipe.toml", tmp_path / "law"
    path.write_text(recipe_to_toml(small_recipe))

    def all_but_the_largest(job: Job, runs: Path) -> Row:
        if job.size == "48x1":
            raise KeyboardInterrupt
        return by_law(job, runs)

    plan = LawPlan((16, 32, 48), (640, 960, 1280))
    with pytest.raises(KeyboardInterrupt):  # the command then trains what is left
        call(load_recipe(path), out, plan, all_but_the_largest)
    arguments = ["law", str(path), "--widths", "16,32,48", "--tokens", "640,960,1280", "--draws", "20", "--json"]
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--out", str(out)])
    assert ended.value.code == 0
    found = json.loads(capsys.readouterr().out)
    assert found["points"] == 9
    assert found == json.loads((out / "law.json").read_text())
    runs = out / "runs" / "48x1-seed-1"
    assert sorted(folder.name for folder in runs.iterdir()) == ["decay-12-8", "decay-6-4", "decay-9-6", "stable-12"]
    assert read_metrics(runs / "decay-9-6")[0]["step"] == 10
    measured = [line["heldout"] for line in read_metrics(runs / "decay-12-8") if line.get("kind") == "heldout"]
    assert read_rows(out / "results.jsonl")[-1].loss == measured[-1]["text"]["loss"]


def test_a_length_between_others_gets_a_stable_stage_of_its_own(small_recipe: Recipe, tmp_path: Path) -> None:
    between, longest = jobs_of(small_recipe, 16, (960, 1280), 1)
    assert run_job(longest, tmp_path).size == "16x1"
    assert run_job(between, tmp_path).tokens == 960
    runs = tmp_path / "16x1-seed-1"
    assert checkpoint_steps(runs / "stable-9") == [4, 8, 9]
    assert json.loads((runs / "decay-9-6" / "branch.json").read_text())["run"] == str(runs / "stable-9")
    stages = [line["stage"] for line in read_metrics(runs / "decay-9-6") if "stage" in line]
    assert stages == ["decay"] * 6


def test_a_malformed_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "points.jsonl"
    good = '{"parameters": 1000, "tokens": 2000, "loss": 3.0, "who": "others"}\n'
    for line, message in (
        ("{", r"points\.jsonl:2: not valid JSON"),
        ("3", r"points\.jsonl:2: is not an object"),
        ('{"parameters": 1, "loss": 2}', r'points\.jsonl:2: "tokens" is missing'),
        (
            '{"parameters": 1, "tokens": -5, "loss": 2}',
            r'points\.jsonl:2: "tokens" is -5, and must be a number above 0',
        ),
        ('{"parameters": 1, "tokens": 5, "loss": "low"}', r'points\.jsonl:2: "loss" is \'low\''),
        ('{"parameters": 1, "tokens": 5, "loss": 2, "seed": "a"}', r'points\.jsonl:2: "seed"'),
    ):
        path.write_text(good + line + "\n")
        with pytest.raises(XmodelError, match=message):
            fit_points(path)
    path.write_text(good)
    with pytest.raises(XmodelError, match=r"points\.jsonl: scaling law: .* there is 1,000; add 2"):
        fit_points(path)
    with pytest.raises(XmodelError, match=r"none\.jsonl: no such file"):
        fit_points(tmp_path / "none.jsonl")
    with pytest.raises(XmodelError, match="cannot be read"):
        fit_points(tmp_path)


def test_points_of_others_are_fitted(tmp_path: Path) -> None:
    path = tmp_path / "points.jsonl"
    for n in (1000, 4000, 16000):
        for d in (10_000, 100_000, 1_000_000):
            append_row(path, Row(n, d, TRUE.loss(parameters=n, tokens=d)))
    append_row(path, Row(64000, 1_000_000, math.nan))
    found = fit_points(path, tmp_path / "out", budgets=(1e12,), draws=20)
    assert found["laws"].keys() == {"without embeddings"}
    law = found["laws"]["without embeddings"]
    assert law["huber"]["E"]["value"] == pytest.approx(1.5, rel=1e-3)
    assert [best["flops"] for best in law["optimum"]] == [1e12]
    assert found["cost"] is None
    assert (tmp_path / "out" / "figures" / "optimum.svg").read_text().startswith("<svg")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "give a recipe to train, or --points FILE"),
        ({"recipe": Path("a.toml"), "points": Path("b.jsonl")}, "give a recipe to train, or --points FILE"),
        ({"recipe": Path("a.toml")}, "give --out DIR"),
        ({"points": Path("b.jsonl"), "budgets": "1e15;1e16"}, "--budgets '1e15;1e16': give numbers with commas"),
        ({"points": Path("b.jsonl"), "budgets": "-1"}, "must be above 0"),
        ({"points": Path("b.jsonl"), "draws": 3}, "--draws 3 must be 20 or more"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(XmodelError, match=message):
        law(arguments.pop("recipe", None), **arguments)
