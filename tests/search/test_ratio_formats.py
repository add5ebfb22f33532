"""Chats against the same documents as text: which decays, what data it needs, that scoring resumes, and the table."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.search.test_ratio import SHARES, fake_score, lines
from xmodel2.data.synthetic import write_random_shards, write_shards
from xmodel2.errors import XmodelError
from xmodel2.files import read_json, write_json_atomic
from xmodel2.recipe import Recipe, load_recipe, replace
from xmodel2.search.ratio import COMPARISONS, Comparison, RatioSettings
from xmodel2.search.ratio_formats import ARMS, MEASURES
from xmodel2.search.ratio_summary import compared, format_table


@pytest.fixture(scope="module")
def with_text(small_recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """The small recipe on data that also have the instruction source as text."""
    data = tmp_path_factory.mktemp("with-text")
    write_random_shards(data, vocab_size=60, seed=0)
    before = read_json(data / "index.json")
    texts = [([1, *range(4, 40), 2], None)] * 20
    write_shards(data, 60, {"sft-as-text": ("text", {"train": texts, "heldout": []})})
    before["sources"] |= read_json(data / "index.json")["sources"]
    write_json_atomic(data / "index.json", before)
    return replace(small_recipe, {"data.dir": str(data)})


def scores(run_dir: Path) -> dict[str, Any]:
    """The chats' decay is better in its own format, by 1 and a hundredth of the seed."""
    recipe = load_recipe(run_dir / "recipe.toml")
    trained_on = "text" if "sft-as-text" in recipe.stages.decay.sft_mixture else "chat"
    loss = {form: 3.0 - (form == trained_on) for form in ("chat", "text")}
    loss["chat"] -= (1 + recipe.seed / 100) * (trained_on == "chat")
    return {
        form: {"documents": loss[form], "later_tokens": 1.0, "questions": None, "accuracy": None, "counts": {}}
        for form in loss
    }


def scored_by(names: list[str]) -> Callable[[Path], dict[str, Any]]:
    """Return `scores`, noting whose."""

    def noted(run_dir: Path) -> dict[str, Any]:
        names.append(run_dir.name)
        return scores(run_dir)

    return noted


def test_two_decays_a_seed_scored_once_and_compared(
    with_text: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored: list[str] = []
    score = scored_by(scored)

    def killed(run_dir: Path) -> dict[str, Any]:
        if scored:
            raise KeyboardInterrupt
        return score(run_dir)

    comparison = Comparison(with_text, RatioSettings(compare=("format", "mixtures"), seeds=2))
    with pytest.raises(KeyboardInterrupt):
        comparison.run(tmp_path, fake_score, in_formats=killed)
    found = comparison.run(tmp_path, fake_score, in_formats=score)
    rows = lines(tmp_path)
    assert scored == [row["name"] for row in rows]  # each once, in spite of the kill
    assert [row["name"] for row in rows] == [
        "seed1_12+8_exponential_sft0.64",
        "seed1_12+8_exponential_sft0.64_as-text",
        "seed2_12+8_exponential_sft0.64",
        "seed2_12+8_exponential_sft0.64_as-text",
    ]
    assert len({row["origin"] for row in rows}) == 2
    decay = load_recipe(tmp_path / "decays" / rows[1]["name"] / "recipe.toml").stages.decay
    assert decay.sft_mixture == {"sft-as-text": 1.0}
    assert found["mixtures"] == []
    assert found["format"]["measure"] == "documents"
    assert found["format"]["chat"] == pytest.approx({"own": 2 - 1.015, "other": 3.0})
    assert found["format"]["text"] == {"own": 2.0, "other": 3.0}
    assert found["format"]["difference"] == pytest.approx(-1.015)
    assert found["format"]["error"] == pytest.approx(0.005)
    assert found["format"]["interval"] == pytest.approx([-1.015 - 12.706 * 0.005, -1.015 + 12.706 * 0.005], abs=1e-5)
    assert found["format"]["measures"].keys() == {"documents", "later_tokens"}
    assert (tmp_path / "figures" / "format.svg").exists()
    monkeypatch.setattr("xmodel2.search.ratio.figures", lambda *_: {})
    assert (
        Comparison(with_text, RatioSettings(compare=("mixtures",))).run(tmp_path, fake_score)["format"]
        == found["format"]
    )
    scored.clear()
    comparison.run(tmp_path, fake_score, in_formats=score, questions=9)
    assert len(scored) == 4  # with other questions all again, so that none is compared with others


def test_data_without_the_texts(with_text: Recipe, small_recipe: Recipe) -> None:
    with pytest.raises(XmodelError, match=r"does not have sft as text; put `as_text = true` under \[sources\.sft\]"):
        Comparison(small_recipe, RatioSettings(compare=("format",)))
    with pytest.raises(XmodelError, match=r"stages\.decay\.sft_share is 0"):
        Comparison(replace(with_text, {"stages.decay.sft_share": 0.0}), RatioSettings(compare=("format",)))
    without = [name for name in COMPARISONS if name != "format"]
    assert list(Comparison(small_recipe, RatioSettings(compare=("all",))).settings.compare) == without
    assert Comparison(with_text, RatioSettings(compare=("all",))).settings.compare == COMPARISONS
    assert len(Comparison(with_text, RatioSettings(compare=("format", "shares"), shares=SHARES)).decays()) == 6


def test_seeds_of_which_one_of_both_diverged_are_named() -> None:
    scores = {form: {"documents": 1.0, "counts": {}} for form in ("chat", "text")}
    rows: list[dict[str, Any]] = [
        {
            "seed": seed,
            "mixture": mixture,
            "ended": "",
            "formats": {form: {**dict.fromkeys(MEASURES), **scores[form]} for form in scores},
        }
        for mixture in ARMS.values()
        for seed in (1, 2)
    ]
    rows[-1] |= {"ended": "diverged", "formats": None}
    found = format_table(rows)
    assert (found["seeds"], found["diverged"]) == ([1], [2])


def test_one_seed_has_no_interval_and_a_missing_score_no_row() -> None:
    chat = {form: {"documents": loss, "accuracy": None} for form, loss in (("chat", 1.0), ("text", 4.0))}
    text = {form: {"documents": loss, "accuracy": None} for form, loss in (("chat", 3.0), ("text", 2.0))}
    found = compared("documents", {"chat": [chat], "text": [text]})
    assert (found["difference"], found["error"], found["interval"]) == (-1.0, None, None)
    assert (found["chat"], found["text"]) == ({"own": 1.0, "other": 4.0}, {"own": 2.0, "other": 3.0})
    assert compared("accuracy", {"chat": [chat], "text": [text]}) == {}
    assert compared("documents", {"chat": [], "text": []}) == {}
