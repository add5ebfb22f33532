"""`xmodel2 ratio` as a user meets it: a run that is there, its data's questions, and one JSON object."""

import json
from pathlib import Path

import pytest

from xmodel2.cli import main
from xmodel2.data.prepare import prepare
from xmodel2.recipe import Recipe, recipe_to_toml


def ratio(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as stop:
        main(["ratio", *map(str, arguments)])
    return int(stop.value.code or 0)


def test_questions_of_the_data_are_scored(road: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe, run = road / "run" / "recipe.toml", road / "run"
    shares, out = ("--shares", "0", "0.3", "0.6", "1"), tmp_path / "out"
    keys = ("--set", "stages.decay.tokens=1024", "stages.decay.sft_share=0.6")
    few = ("--questions", "6", "--from", f"{run}@stable")
    assert ratio(recipe, "--out", out, *shares, *keys, *few, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads((out / "ratio.json").read_text())
    assert found["shares"].keys() == {"text", "sft", "answers", "accuracy", "combined"}
    rows = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert [row["share"] for row in rows] == [0.0, 0.3, 0.6, 1.0]
    assert all(row["questions"] == 6 and row["answers"] > 0 and 0 <= row["accuracy"] <= 1 for row in rows)
    assert all(row["answers_by_task"].keys() == row["accuracy_by_task"].keys() for row in rows)
    assert ratio(recipe, "--out", out, *shares, *keys, *few, "--compare", "shape") == 0
    printed = capsys.readouterr().out
    assert "share for held-out text: " in printed
    assert "1-sqrt" in printed
    assert ratio(recipe, "--out", out, *shares, *keys, "--questions", "4", *few[2:], "--json") == 0
    captured = capsys.readouterr()
    assert "_sft0.3, by 4 questions, not 6: text " in captured.err
    found = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    last = {row["name"]: row for row in found}
    assert len(found) == 2 * len(last)
    assert all(row["questions"] == 4 for row in last.values())
    assert len(json.loads(captured.out)["shares"]["accuracy"]["points"]) == len(rows)


def test_data_without_questions(small_recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "recipe.toml").write_text(recipe_to_toml(small_recipe))
    arguments = (tmp_path / "recipe.toml", "--out", tmp_path / "out", "--compare", "shape")
    assert ratio(*arguments, "--weigh", "text=1", "sft=1", "--json") == 0
    captured = capsys.readouterr()
    assert "decays are scored by loss alone" in captured.err
    assert json.loads(captured.out)["weights"] == {"text": 0.5, "sft": 0.5}


def test_mistakes_are_named(small_recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "recipe.toml").write_text(recipe_to_toml(small_recipe))
    for extra, message in (
        (("--shares", "0", "0.5", "2"), "--shares 2: a share lies between 0 and 1"),
        (("--weigh", "text"), "--weigh 'text': write it as key=value"),
        (("--weigh", "text=much"), "write it as text=NUMBER"),
        (("--from", "nowhere@stable"), "nowhere is not a run directory"),
        (("--questions", "0"), "--questions 0: give at least 1"),
    ):
        assert ratio(tmp_path / "recipe.toml", "--out", tmp_path / "out", *extra) == 1
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_same_documents_in_two_formats(road: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe, out = road / "run" / "recipe.toml", tmp_path / "out"
    short = (
        "--set",
        "stages.stable.tokens=1536",
        "stages.decay.tokens=1024",
        "--questions",
        "5",
        "--compare",
        "format",
    )
    assert ratio(recipe, "--out", out, *short) == 1
    assert "put `as_text = true` under [sources.reasoning]" in capsys.readouterr().err
    (tmp_path / "sources.toml").write_text(
        f'[tokenizer]\npath = "{road}/data/tokenizer"\n[sources.docs]\nfiles = ["{road}/corpus/docs.jsonl"]\n'
        f'heldout = ["{road}/corpus/docs-heldout.jsonl"]\n[sources.reasoning]\nkind = "sft"\nas_text = true\n'
        f'files = ["{road}/corpus/reasoning.jsonl"]\nheldout = ["{road}/corpus/reasoning-heldout.jsonl"]\n'
    )
    prepare(tmp_path / "sources.toml", tmp_path / "data")
    here = ("--set", f"data.dir={tmp_path}/data", "--set", "stages.stable.mixture={docs = 1.0}")
    assert ratio(recipe, "--out", out, *short, *here) == 0
    printed = capsys.readouterr().out
    assert "answers of all held-out instruction documents" in printed
    assert "questions answered exactly" in printed
    found = json.loads((out / "ratio.json").read_text())["format"]
    assert found["measures"].keys() == {"documents", "later_tokens", "questions", "accuracy"}
    assert found["counts"] == {"documents": 5, "questions": 5}
    assert found["difference"] == found["chat"]["own"] - found["text"]["own"]
    assert found["interval"] is None
    assert "one seed" in printed
