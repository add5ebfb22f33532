"""The model card: all that is known of a model, for people and for the Hub, whatever others named things."""

import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from xmodel2.errors import XmodelError
from xmodel2.recipe import SourceSettings, load_recipe
from xmodel2.release.card import card_of
from xmodel2.release.importing.model import import_model
from xmodel2.release.trained import Trained, open_trained
from xmodel2.train import train
from xmodel2.train.average import average_checkpoints


def header(card: str) -> dict[str, Any]:
    _, text, _ = card.split("---\n", 2)
    values: dict[str, Any] = yaml.safe_load(text)
    return values


def tables(card: str) -> list[list[list[str]]]:
    """Return the cells of every table, as GitHub cuts them: at bars without a backslash before them."""
    found: list[list[list[str]]] = []
    inside = False
    for line in re.sub(r"```.*?```", "", card, flags=re.DOTALL).splitlines():
        if line.startswith("|"):
            if not inside:
                found.append([])
            found[-1].append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
        inside = line.startswith("|")
    return found


def test_the_card_of_a_run(road: Path) -> None:
    card = card_of(open_trained(road / "run"))
    assert header(card)["pipeline_tag"] == "text-generation"
    assert header(card)["language"] == ["en"]
    assert "arxiv:2412.19638" in header(card)["tags"]
    headings = re.findall(r"^## (.*)$", card, re.MULTILINE)
    assert headings == ["Use", "Architecture", "Training", "Data", "Results", "Limitations", "Citation"]
    for words in (
        "AutoModelForCausalLM.from_pretrained",
        "| tokens | 10,240 |",
        "| reasoning | 0.00% | 64.00% | Apache-2.0 (reasoning-gym) | instructions | en |",
        "step 20 (decay)",
        "not aligned or tuned for safety",
        "```toml\nname = ",
        "2412.19638",
    ):
        assert words in card
    for rows in tables(card):
        assert len({len(row) for row in rows}) == 1
    assert 'dir = "data"' in card
    assert str(road) not in card


def test_results_are_those_of_this_very_step(road: Path, tmp_path: Path) -> None:
    shutil.copytree(road / "run", tmp_path / "run")
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    stable = card_of(open_trained(tmp_path / "run" / "checkpoints" / "step-12"))
    assert f"| docs | {results['heldout']['stable']['docs']['loss']:.3f} |" in stable
    assert "(decay)" not in stable
    results["steps"]["decay"] = 19
    (tmp_path / "run" / "results.json").write_text(json.dumps(results))
    assert "Not evaluated at this step." in card_of(open_trained(tmp_path / "run"))
    (tmp_path / "run" / "results.json").write_text("{")
    with pytest.raises(XmodelError, match=r"results\.json: not valid JSON"):
        card_of(open_trained(tmp_path / "run"))
    results["steps"]["decay"] = 20
    del results["heldout"]["decay"]["docs"]["loss"]
    (tmp_path / "run" / "results.json").write_text(json.dumps(results))
    with pytest.raises(XmodelError, match=r"results\.json: has no 'loss'; it is damaged, or of another version"):
        card_of(open_trained(tmp_path / "run"))


def task(score: float, **more: Any) -> dict[str, Any]:
    entry = {"metric": "acc", "score": score, "interval": [score - 0.1, score + 0.1], "items": 100, "of": 2376}
    return {**entry, "num_fewshot": 0, **more}


def test_benchmarks_with_items_and_intervals(road: Path, tmp_path: Path) -> None:
    shutil.copytree(road / "run", tmp_path / "run")
    folder = tmp_path / "run" / "evaluation" / "step-20"
    folder.mkdir(parents=True, exist_ok=True)
    fever = {"of": None, "made_up": True, "world": "240 claims | seed 0", "outcomes": {"solved": 3}, "mean_steps": 2.0}
    results = {
        "model": {"name": "tiny"},
        "settings": {"limit": 100},
        "tasks": {
            "arc_easy": task(0.3, cut=7),
            "wikitext": task(95.0, metric="word_perplexity"),
            "fever": task(0.2, **fever),
        },
        "suites": {"commonsense": {"average": 0.3, "interval": [0.2, 0.4], "missing": ["piqa"]}},
    }
    (folder / "results.json").write_text(json.dumps(results))
    card = card_of(open_trained(tmp_path / "run"))
    for row in (
        "| arc\\_easy | acc, % | 30.00 | 20.0 to 40.0 | 100 of 2,376 items (--limit); 7 requests cut to the context | 0 |",
        "| wikitext | word\\_perplexity | 95 | 94.9 to 95.1 |",
        "| fever, made-up tasks |",
        "| Commonsense (Table 2), average | % | 30.00 | 20.0 to 40.0 | without piqa |  |",
        "| FEVER | 100 | 3 | 2.0 |",
        "- fever: made up: 240 claims \\| seed 0",
    ):
        assert row in card
    assert all(len({len(row) for row in rows}) == 1 for rows in tables(card))


def test_the_card_of_an_import_claims_no_training(road: Path, tmp_path: Path) -> None:
    import_model(road / "hf", tmp_path / "run")
    card = card_of(open_trained(tmp_path / "run"))
    assert "It was not trained here but imported" in card
    for absent in ("trained from scratch", "## Training", "## Results", "tokens of training"):
        assert absent not in card
    assert "## Data" in card  # what its recipe asks for is known
    assert "The recipe that came with it" in card
    shutil.copytree(road / "hf", tmp_path / "bare")
    (tmp_path / "bare" / "recipe.toml").unlink()
    for recipe in (None, road / "run" / "recipe.toml"):  # of what is to come, not of what was
        import_model(tmp_path / "bare", tmp_path / "run", recipe=recipe, overwrite=True)
        card = card_of(open_trained(tmp_path / "run"))
        assert not {"## Data", "```toml"} & set(card.splitlines())


def test_the_card_of_a_run_that_began_with_other_weights_says_whose(road: Path, tmp_path: Path) -> None:
    import_model(road / "hf", tmp_path / "theirs", name="theirs")
    keys = ["stages.stable.tokens=1024", "stages.decay.tokens=0", "train.warmup_steps=0", "train.compile=false"]
    recipe = load_recipe(road / "run" / "recipe.toml", [*keys, "train.batch_tokens=512", "train.micro_batch_size=1"])
    for source, run in (("theirs", "tuned"), ("tuned", "again")):
        train(recipe, tmp_path / run, init_from=tmp_path / source)
    average_checkpoints(tmp_path / "tuned", tmp_path / "mean", steps=[0, 2])
    tuned, again, mean = (card_of(open_trained(tmp_path / run)) for run in ("tuned", "again", "mean"))
    assert "from the weights of theirs" in mean
    assert "trained, from the weights of theirs, on 1,024 tokens" in tuned
    for card in (tuned, again, mean):
        assert "It went on from a model that was imported" in card
        assert "tokens of training" not in card


def test_the_card_of_a_directory_that_says_nothing(road: Path) -> None:
    trained = dataclasses.replace(open_trained(road / "hf"), recipe=None)
    card = card_of(trained, "LlamaForCausalLM")
    assert "`LlamaForCausalLM`" in card
    assert "folded into the weights" in card
    assert "xmodel2 import . --out model\nxmodel2 chat model " in card  # our commands take no Llama
    for absent in ("## Training", "## Data", "## Results", "<details>"):
        assert absent not in card


def test_names_of_others_say_nothing_but_themselves(road: Path) -> None:
    evil = 'x" | y\n---\n# not a heading\n</details><script>alert(1)</script> ``` `a` [b](c) \x1b[31m'
    recipe = load_recipe(road / "run" / "recipe.toml")
    source = SourceSettings(licence=evil, language=evil, dataset=evil)
    stages = dataclasses.replace(recipe.stages, stable=dataclasses.replace(recipe.stages.stable, mixture={evil: 1.0}))
    recipe = dataclasses.replace(
        recipe, name=evil, stages=stages, data=dataclasses.replace(recipe.data, sources={evil: source})
    )
    state = {"step": 12, "tokens": 6144, "stage": "stable"}
    card = card_of(Trained(Path(), evil, recipe.model, Path(), recipe, state))
    assert not {"datasets", "language"} & header(card).keys()  # the Hub knows no such names
    body = card.split("---\n", 2)[2]
    text = re.sub(r"(`{3,})\w*\n.*?\n\1", "", body, flags=re.DOTALL)  # out of blocks of code
    assert "x" in text
    assert not re.search(r"(?<!\\)<(?!/?details>|/?summary>)", text)
    assert len(re.findall(r"(?<!\\)</details>", text)) == 1
    assert "\n# not a heading" not in text
    assert "\x1b" not in card
    assert not re.findall(r"^---$", body, re.MULTILINE)
    assert all(len({len(row) for row in rows}) == 1 for rows in tables(card))
