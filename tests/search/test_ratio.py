"""Comparisons of decays: which are made, that they resume, what is refused, and what is said of them."""

import dataclasses
import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from xmodel2.errors import XmodelError
from xmodel2.recipe import Recipe, load_recipe, replace
from xmodel2.search.decay import Decay, base_decay, part_of
from xmodel2.search.ratio import COMPARISONS, Comparison, RatioSettings
from xmodel2.search.ratio_summary import Summary
from xmodel2.train import train

SHARES = (0.0, 0.4, 0.7, 1.0)


def fake_score(run_dir: Path) -> dict[str, Any]:
    """Answers are best at a share of 0.7."""
    share = load_recipe(run_dir / "recipe.toml").stages.decay.sft_share
    return {"answers": 2 + (share - 0.7) ** 2, "accuracy": 0.5 - (share - 0.7) ** 2}


def run(recipe: Recipe, out: Path, drawn: bool = False, **settings: Any) -> dict[str, Any]:
    """Compare; figures take a second or two each time, and are drawn for the tests that look at them."""
    with pytest.MonkeyPatch.context() as patch:
        if not drawn:
            patch.setattr("xmodel2.search.ratio.figures", lambda *_: {})
        return Comparison(recipe, RatioSettings(**{"shares": SHARES, **settings})).run(out, fake_score)


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines() if line.endswith("}")]


@pytest.fixture(scope="module")
def whole(small_recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything compared, with two seeds; do not write into it."""
    out = tmp_path_factory.mktemp("ratio")
    run(small_recipe, out, drawn=True, compare=("all",), seeds=2, checkpoints=2, lengths=(0.5, 1.0))
    return out


def test_every_decay_is_made_once_and_scored(whole: Path) -> None:
    rows = lines(whole)
    names = [row["name"] for row in rows]
    assert len(set(names)) == len(names)
    assert {path.name for path in (whole / "decays").iterdir()} == set(names)
    assert {path.name for path in (whole / "stable").iterdir()} == {"seed1", "seed2"}
    assert all(row["text"] > 0 and row["sft"] > 0 and row["heldout"].keys() == {"text", "sft"} for row in rows)
    branches = [row for row in rows if row["schedule"] == "wsd"]
    assert all((whole / "decays" / row["name"] / "branch.json").exists() for row in branches)
    assert all(row["origin"] for row in branches)
    assert not any(row["origin"] for row in rows if row["schedule"] == "cosine")


def test_what_is_written_at_the_end(whole: Path) -> None:
    found = json.loads((whole / "ratio.json").read_text())
    assert found["seeds"] == [1, 2]
    assert found["weights"] == {"text": 0.5, "answers": 0.5}
    assert found["shares"]["answers"]["optimum"] == pytest.approx(0.7, abs=0.03)
    assert found["shares"]["accuracy"]["optimum"] == pytest.approx(0.7, abs=0.03)
    assert {row["value"] for row in found["shape"]} == {"exponential", "linear", "cosine", "1-sqrt"}
    assert [row["value"] for row in found["length"]] == [4 * 64, 8 * 64]
    assert [row["value"] for row in found["equal_tokens"]] == [8 * 64, 14 * 64]
    assert [row["tokens"] for row in found["schedules"]] == [(6 + 4) * 64, (12 + 8) * 64]
    assert all(row["wsd"] and row["cosine"] and row["error"] is not None for row in found["schedules"])
    assert {path.stem for path in (whole / "figures").iterdir()} == {
        "shares",
        "sources",
        "shape",
        "length",
        "schedules",
    }
    points = [json.loads(line) for line in (whole / "law.jsonl").read_text().splitlines()]
    assert len(points) == 4
    assert points[0].keys() >= {"parameters", "tokens", "loss", "seed"}


def test_a_difference_is_taken_within_a_seed(whole: Path) -> None:
    found = json.loads((whole / "ratio.json").read_text())
    rows = {
        (row["seed"], row["shape"]): row["text"]
        for row in lines(whole)
        if row["name"].endswith("sft0.64") and "12+8" in row["name"]
    }
    apart = [rows[seed, "linear"] - rows[seed, "exponential"] for seed in (1, 2)]
    [linear] = [row["text"] for row in found["shape"] if row["value"] == "linear"]
    assert linear["difference"] == pytest.approx(sum(apart) / 2)
    assert linear["error"] == pytest.approx(abs(apart[0] - apart[1]) / 2)


def test_what_is_finished_is_not_made_again_and_more_can_be_asked_for(
    small_recipe: Recipe, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = Path(shutil.copytree(whole, tmp_path / "out"))
    before = (out / "results.jsonl").read_text()
    made: list[str] = []

    def noted(recipe: Recipe, *args: Any, **kwargs: Any) -> Any:
        made.append(recipe.name)
        return train(recipe, *args, **kwargs)

    monkeypatch.setattr("xmodel2.search.decay_runs.train", noted)
    run(small_recipe, out)
    assert made == []
    run(small_recipe, out, shares=(*SHARES, 0.9))
    assert made == ["seed1_12+8_exponential_sft0.9"]
    assert (out / "results.jsonl").read_text().startswith(before)


def test_another_peak_rate_is_muons_too(small_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rates: dict[str, tuple[float, float]] = {}

    def noted(recipe: Recipe, *args: Any, **kwargs: Any) -> Any:
        rates[recipe.name] = (recipe.train.learning_rate, recipe.train.muon_learning_rate)
        return train(recipe, *args, **kwargs)

    monkeypatch.setattr("xmodel2.search.decay_runs.train", noted)
    muon = replace(
        small_recipe, {"train.optimizer": "muon", "train.learning_rate": 0.01, "train.muon_learning_rate": 0.02}
    )
    run(muon, tmp_path, compare=("cosine",), checkpoints=1, rates=(0.5,))
    assert rates.keys() == {
        "seed1_rate0.5",
        "seed1_12+8_exponential_sft0_rate0.5",
        "seed1_12+8_one-cosine_sft0_rate0.5",
    }
    assert set(rates.values()) == {(0.005, 0.01)}


def test_a_kill_loses_only_the_decay_in_progress(
    small_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def killed(recipe: Recipe, *args: Any, **kwargs: Any) -> Any:
        calls.append(recipe.name)
        if len(calls) == 4:
            train(recipe, *args, **{**kwargs, "stop_after": 14})
            raise KeyboardInterrupt
        return train(recipe, *args, **kwargs)

    monkeypatch.setattr("xmodel2.search.decay_runs.train", killed)
    with pytest.raises(KeyboardInterrupt):
        run(small_recipe, tmp_path / "out")
    assert len(lines(tmp_path / "out")) == 2
    with open(tmp_path / "out" / "results.jsonl", "a") as file:
        file.write('{"name": "torn')
    monkeypatch.setattr("xmodel2.search.decay_runs.train", train)
    run(small_recipe, tmp_path / "out")
    run(small_recipe, tmp_path / "straight")
    a, b = ({row["name"]: row["text"] for row in lines(tmp_path / name)} for name in ("out", "straight"))
    assert a == b
    assert len(a) == 5  # the recipe's own share is among them


def test_what_another_process_makes_is_left_to_it(small_recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "locks").mkdir()
    busy = FileLock(tmp_path / "locks" / "seed1_12+8_exponential_sft0.4.lock", thread_local=False)
    busy.acquire()

    def freed_at_the_end(text: str) -> None:  # as the system does when that process is killed
        if "sft1:" in text:
            busy.release()

    Comparison(small_recipe, RatioSettings(shares=SHARES)).run(tmp_path, fake_score, freed_at_the_end)
    assert [row["share"] for row in lines(tmp_path)] == [0.0, 0.64, 0.7, 1.0, 0.4]


def test_a_changed_checkpoint_is_refused(small_recipe: Recipe, whole: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(whole, tmp_path / "out"))
    manifest = out / "stable" / "seed1" / "checkpoints" / "step-12" / "manifest.json"
    manifest.write_text(manifest.read_text() + "\n")
    with pytest.raises(XmodelError, match=r"step-12: is not the checkpoint that the decays"):
        run(small_recipe, out)
    shutil.rmtree(manifest.parent)
    with pytest.raises(XmodelError, match=r"changed or removed"):
        run(small_recipe, out)


def test_another_recipe_is_refused(small_recipe: Recipe, whole: Path) -> None:
    with pytest.raises(XmodelError, match=r"began with another recipe \(train.learning_rate was"):
        run(replace(small_recipe, {"train.learning_rate": 0.02}), whole)


def test_decays_of_a_run_that_is_there(small_recipe: Recipe, whole: Path, tmp_path: Path) -> None:
    origin = whole / "stable" / "seed2"
    comparison = Comparison(small_recipe, RatioSettings(shares=SHARES), [f"{origin}@stable"])
    comparison.run(tmp_path / "out", fake_score)
    assert not (tmp_path / "out" / "stable").exists()
    ours = {row["name"]: row["text"] for row in lines(tmp_path / "out")}
    theirs = {row["name"]: row["text"] for row in lines(whole)}
    assert all(name.startswith("seed2") and theirs[name] == text for name, text in ours.items())
    with pytest.raises(XmodelError, match=r"give --from once for each"):
        Comparison(small_recipe, RatioSettings(seeds=2), [f"{origin}@stable"])
    with pytest.raises(XmodelError, match=r"step 7 has no checkpoint"):
        Comparison(small_recipe, RatioSettings(), [f"{origin}@7"])
    with pytest.raises(XmodelError, match=r"is not a run directory"):
        Comparison(small_recipe, RatioSettings(), [f"{tmp_path}/nowhere@stable"])


def test_a_diverged_decay_is_a_result(small_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from xmodel2.train.guard import DivergedError

    def diverging(recipe: Recipe, *args: Any, **kwargs: Any) -> Any:
        if recipe.name.endswith("sft1"):
            raise DivergedError("step 14: bad again")
        return train(recipe, *args, **kwargs)

    monkeypatch.setattr("xmodel2.search.decay_runs.train", diverging)
    found = run(small_recipe, tmp_path, shares=(*SHARES, 0.2))
    assert found["diverged"] == {"seed1_12+8_exponential_sft1": "diverged: step 14: bad again"}
    assert 1.0 not in [share for _, share, _ in found["shares"]["text"]["points"]]
    assert found["shares"]["text"]["diverged"] == [1]


def rows_of(recipe: Recipe, losses: dict[Decay, float | None]) -> list[dict[str, Any]]:
    return [
        {
            "name": decay.name,
            **asdict(decay),
            "tokens": (decay.step + decay.steps) * recipe.train.batch_tokens,
            "ended": "diverged" if loss is None else "",
            **({} if loss is None else {"text": loss, "sft": loss, "heldout": {"text": loss}}),
        }
        for decay, loss in losses.items()
    ]


def test_what_diverged_is_named_with_its_value(small_recipe: Recipe) -> None:
    base = [base_decay(small_recipe, seed) for seed in (1, 2, 3)]
    linear = [dataclasses.replace(decay, shape="linear") for decay in base]
    losses = dict(zip([*base, *linear], (5.0, 5.1, 5.2, 4.9, None, 5.0), strict=True))
    own, other = Summary(small_recipe, {}, rows_of(small_recipe, losses)).to_dict()["shape"]
    assert (own["value"], own["seeds"], own["diverged"]) == ("exponential", 3, [])
    assert (other["value"], other["seeds"], other["diverged"]) == ("linear", 2, [2])
    assert other["text"]["seeds"] == 2
    assert other["text"]["difference"] == pytest.approx(-0.15)


def test_each_schedule_is_compared_at_its_own_best_rate(small_recipe: Recipe) -> None:
    by_rate = {
        ("wsd", 1.0): (5.0, 5.1),
        ("wsd", 2.0): (4.8, 4.7),
        ("wsd", 4.0): (4.0, None),  # the best of those that survive
        ("cosine", 1.0): (4.9, 5.1),
        ("cosine", 2.0): (5.5, 5.6),
    }
    losses = {
        dataclasses.replace(base_decay(small_recipe, seed), share=0.0, rate=rate, schedule=schedule): loss
        for (schedule, rate), pair in by_rate.items()
        for seed, loss in enumerate(pair, 1)
    }
    found = Summary(small_recipe, {}, rows_of(small_recipe, losses)).to_dict()
    assert [(row["rate"], row["difference"], row["diverged"]) for row in found["schedules"]] == [
        (1.0, pytest.approx(0.05), []),
        (2.0, pytest.approx(-0.8), []),
        (4.0, None, [2]),
    ]
    [best] = found["schedules_at_best"]
    assert (best["wsd_rate"], best["cosine_rate"], best["seeds"], best["diverged"]) == (2.0, 1.0, 2, [])
    assert best["difference"] == pytest.approx((4.8 - 4.9 + 4.7 - 5.1) / 2)
    alone = {decay: loss for decay, loss in losses.items() if decay.rate == 4 or decay.schedule == "cosine"}
    [best] = Summary(small_recipe, {}, rows_of(small_recipe, alone)).to_dict()["schedules_at_best"]
    assert (best["wsd_rate"], best["seeds"], best["diverged"]) == (4.0, 1, [2])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shares": (0.0, 0.5, 1.2)}, r"--shares 1\.2: a share lies between 0 and 1"),
        ({"shares": (0.0, 0.5, -0.1)}, r"--shares -0\.1"),
        ({"shares": (0.0, 0.5, 1.0)}, "at least 4 different shares"),
        ({"compare": ("share",)}, r"--compare 'share': .* Did you mean 'shares'"),
        ({"seeds": 0}, "--seeds 0"),
        ({"lengths": (0.0,)}, "--lengths: give numbers above 0"),
        ({"weights": {"accuracy": 1.0}}, "--weigh accuracy=1"),
        ({"weights": {"text": 0.0}}, "at least one weight"),
        ({"weights": {"text": float("nan")}}, "--weigh text=nan"),
        ({"weights": {"text": float("inf")}}, "--weigh text=inf"),
    ],
)
def test_settings_that_are_refused(small_recipe: Recipe, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(XmodelError, match=message):
        Comparison(small_recipe, RatioSettings(**settings))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"stages.decay.sft_mixture": {}}, r"stages\.decay\.sft_mixture is empty"),
        ({"stages.decay.tokens": 0}, r"stages\.decay\.tokens is 0"),
        ({"train.schedule": "cosine"}, r"decays need 'wsd'"),
    ],
)
def test_recipes_that_are_refused(small_recipe: Recipe, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(XmodelError, match=message):
        Comparison(replace(small_recipe, keys), RatioSettings())


def test_what_a_share_can_be_made_of(small_recipe: Recipe) -> None:
    three = replace(small_recipe, {"stages.decay.sft_mixture": {"a": 0.5, "b": 0.25, "c": 0.25}})
    names = Comparison(three, RatioSettings(compare=("mixtures",))).mixtures()
    assert names == ["own", "only a", "only b", "only c", "without a", "without b", "without c"]
    assert part_of({"a": 0.5, "b": 0.25, "c": 0.25}, "without b") == pytest.approx({"a": 2 / 3, "c": 1 / 3})
    assert part_of({"a": 0.5, "b": 0.5}, "only b") == {"b": 1.0}


def test_one_source_in_the_place_of_another(small_recipe: Recipe) -> None:
    settings = RatioSettings(compare=("mixtures",), swaps={"sft": "answers"})
    decay = Comparison(small_recipe, settings).decays()[-1]
    assert decay.mixture == "answers for sft"
    assert decay.recipe(small_recipe).stages.decay.sft_mixture == {"answers": 1.0}
    with pytest.raises(XmodelError, match=r"--swap sfd.*Did you mean 'sft'"):
        Comparison(small_recipe, RatioSettings(swaps={"sfd": "answers"}))


def test_comparisons_share_their_decays(small_recipe: Recipe) -> None:
    def count(*compare: str) -> int:
        return len(Comparison(small_recipe, RatioSettings(compare=compare, shares=SHARES, checkpoints=3)).decays())

    assert count("checkpoints") == 3
    assert count("cosine") == count("cosine", "checkpoints") == 6
    possible = [name for name in COMPARISONS if name != "format"]  # which needs other data (test_ratio_formats.py)
    assert count(*possible) < sum(count(name) for name in possible)


def test_checkpoints_that_were_not_kept_are_missed_before_anything_is_made(
    small_recipe: Recipe, tmp_path: Path
) -> None:
    run(small_recipe, tmp_path, compare=("shape",), checkpoints=1)
    before = lines(tmp_path)
    with pytest.raises(XmodelError, match=r"kept checkpoints at steps .*give --checkpoints as the first time"):
        run(small_recipe, tmp_path, compare=("checkpoints",), checkpoints=4)
    assert lines(tmp_path) == before
