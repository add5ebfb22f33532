"""The same text by another tokenizer: as many bytes of every source, and bits a byte as a run's own metrics have them."""

import json
import shutil
from pathlib import Path

import pytest

from xmodel2.data.shards import read_index
from xmodel2.data.synthetic import write_shards
from xmodel2.errors import XmodelError
from xmodel2.recipe import Recipe, replace
from xmodel2.search.ablation import Arm
from xmodel2.search.ablation_text import at_equal_text, bits_per_byte, tokenizer_kind
from xmodel2.train import read_metrics, train

TOKENS = {"prose": 10, "code": 10, "sft": 10}
"""Tokens between the two marks of each document."""


def write(out: Path, tokens: dict[str, int], vocab_size: int = 60) -> Path:
    """Write 40 documents a source, of 36 bytes each, however many tokens they are."""
    sources = {}
    for name, count in tokens.items():
        document = [1, *range(4, 4 + count), 2], [1] * (count + 2) if name == "sft" else None
        sources[name] = ("sft" if name == "sft" else "text", {"train": [document] * 40, "heldout": [document] * 4})
    write_shards(out, vocab_size, sources)
    path = out / "index.json"
    index = json.loads(path.read_text())
    for entry in index["sources"].values():
        for split in entry["splits"].values():
            split["bytes"] = 36 * split["documents"]
    path.write_text(json.dumps(index))
    return out


@pytest.fixture
def own(small_recipe: Recipe, tmp_path: Path) -> Recipe:
    return replace(
        small_recipe,
        {
            "data.dir": str(write(tmp_path / "own", TOKENS)),
            "stages.stable.tokens": 100 * 64,
            "stages.stable.mixture": {"prose": 0.5, "code": 0.5},
            "stages.decay.tokens": 50 * 64,
            "stages.decay.sft_share": 0.6,
            "train.warmup_steps": 10,
            "train.decay_half_life_steps": 10,
        },
    )


def test_every_source_gives_as_many_bytes(own: Recipe, tmp_path: Path) -> None:
    other = str(write(tmp_path / "other", {"prose": 21, "code": 10, "sft": 10}, vocab_size=50))
    changes = at_equal_text(own, "other", other)
    recipe = Arm("tokenizer", "other", changes).recipe(own)
    assert recipe.model.vocab_size == 50
    assert recipe.train.warmup_steps == 15
    assert recipe.train.heldout_rows == 3

    def documents(recipe: Recipe) -> dict[str, float]:
        """Return how many documents of each source are read."""
        entries = read_index(recipe.data.dir)["sources"]
        stable, decay = recipe.stable_steps * 64, recipe.decay_steps * 64
        return {
            name: (recipe.stages.stable.mixture.get(name, 0.0) * stable + recipe.decay_mixture[name] * decay)
            / (entries[name]["splits"]["train"]["tokens"] / 40 - 1)
            for name in entries
        }

    assert documents(recipe) == pytest.approx(documents(own), rel=0.01)
    assert recipe.total_steps > own.total_steps


def test_a_tokenizer_tells_its_kind(tmp_path: Path) -> None:
    assert tokenizer_kind(str(tmp_path)) is None
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "tokenizer.json").write_text('{"model": {"type": "BPE"}}')
    assert tokenizer_kind(str(tmp_path)) == "BPE"


def test_the_same_tokenizer_changes_nothing(own: Recipe, tmp_path: Path) -> None:
    changes = at_equal_text(own, "same", str(write(tmp_path / "other", TOKENS)))
    changes.pop("data.dir")
    assert replace(own, changes) == own


def test_other_documents_are_refused(own: Recipe, tmp_path: Path) -> None:
    other = write(tmp_path / "other", TOKENS)
    path = other / "index.json"
    index = json.loads(path.read_text())
    index["sources"]["code"]["splits"]["heldout"]["bytes"] += 1
    path.write_text(json.dumps(index))
    with pytest.raises(XmodelError, match=r"--data a=.*not of the same documents \(code, heldout: 4 of 145 bytes"):
        at_equal_text(own, "a", str(other))
    shutil.rmtree(other)
    with pytest.raises(XmodelError, match="has no source 'code'"):
        at_equal_text(own, "a", str(write(other, {"prose": 10, "sft": 10})))
    shutil.rmtree(other)
    write(other, TOKENS)
    less = {
        "stages.stable.mixture": {"prose": 1.0},
        "data.dir": str(write(tmp_path / "less", {"prose": 10, "sft": 10})),
    }
    with pytest.raises(XmodelError, match=r"has text that the recipe's data lack \(code\)"):
        at_equal_text(replace(own, less), "a", str(tmp_path / "other"))


def test_bits_a_byte_are_those_of_a_runs_metrics(small_recipe: Recipe, tmp_path: Path) -> None:
    train(replace(small_recipe, {"stages.decay.tokens": 0}), tmp_path / "run", progress=False)
    [*_, last] = [line["heldout"] for line in read_metrics(tmp_path / "run") if line.get("kind") == "heldout"]
    losses = {name: row["loss"] for name, row in last.items()}
    sources = read_index(small_recipe.data.dir)["sources"]
    assert bits_per_byte(sources, losses) == pytest.approx(last["text"]["bits_per_byte"])
    assert bits_per_byte(sources, {"sft": 1.0}) is None
