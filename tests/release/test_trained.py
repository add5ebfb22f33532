"""What a model is opened from: a run, a checkpoint, a directory of ours; what is not one of them is told apart, by name."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from xmodel2.errors import XmodelError
from xmodel2.recipe import load_recipe, replace
from xmodel2.release.exporting.formats import export_model
from xmodel2.release.trained import open_trained, without_paths


@pytest.fixture
def native(road: Path, tmp_path: Path) -> Path:
    """A directory of ours, to be changed."""
    return Path(shutil.copytree(road / "hf", tmp_path / "hf"))


def test_a_directory_is_the_model_of_its_run(road: Path) -> None:
    ours, theirs = open_trained(road / "run"), open_trained(road / "hf")
    assert theirs.recipe == ours.public_recipe
    assert theirs.name == ours.name
    before = dict(ours.load().named_parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in theirs.load().named_parameters())


def test_paths_are_not_public(road: Path) -> None:
    recipe = load_recipe(road / "run" / "recipe.toml")
    places = {"data.dir": "/home/me/data/", "data.cache_dir": "s3://mine/cache", "evaluation.data_dir": ""}
    public = without_paths(replace(recipe, places))
    assert (public.data.dir, public.data.cache_dir, public.evaluation.data_dir) == ("data", "cache", "")
    assert replace(public, {"data.dir": recipe.data.dir, "data.cache_dir": ""}) == recipe


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('base = "/etc/passwd"\n', "it has a base"),
        ("[model", "left out"),
        ("a = " + "[" * 100_000, "left out"),
        ("[model]\nhidden_size = 32\nnum_attention_heads = 2\nnum_key_value_heads = 1\n", "not that of config.json"),
    ],
    ids=["base", "no TOML", "nested", "of another model"],
)
def test_a_recipe_that_cannot_be_used_leaves_the_model(
    text: str, why: str, native: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (native / "recipe.toml").write_text(text)
    trained = open_trained(native)
    assert (trained.recipe, trained.name) == (None, "hf")
    assert f"{native}: recipe.toml was left out: " in (said := capsys.readouterr().err)
    assert why in said


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"quantization_config": {"quant_method": "torchao"}}, "its weights are quantised"),
        ({"attention_multiplier": 0.2}, "not as `xmodel2 export --to hf` writes it.* xmodel2 import .*hf --out RUN"),
        ({"model_type": "llama"}, "of model_type 'llama'.* xmodel2 import"),
        ({"mlp_bias": True}, "mlp_bias is True, which our model has not"),
        ({"hidden_size": "wide"}, "hidden_size is 'wide'; it must be a number"),
        ({"hidden_size": 65}, "must be a multiple of num_attention_heads"),
        ({"residual_multiplier": None}, "has no residual_multiplier"),
    ],
)
def test_what_is_not_as_we_write_it_is_told_apart(changes: dict[str, Any], message: str, native: Path) -> None:
    config = json.loads((native / "config.json").read_text())
    (native / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(XmodelError, match=message):
        open_trained(native)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop("model.norm.weight"), r"tensor model\.norm\.weight is absent there"),
        (lambda tensors: tensors.update(extra=torch.ones(2)), r"tensor extra is \(2,\) there and absent"),
    ],
    ids=["missing", "unknown"],
)
def test_tensors_that_do_not_fit_are_named(
    change: Callable[[dict[str, torch.Tensor]], object], message: str, native: Path
) -> None:
    tensors = load_file(native / "model.safetensors")
    change(tensors)
    save_file(tensors, native / "model.safetensors")
    with pytest.raises(XmodelError, match=message):
        open_trained(native).load()
    (native / "model.safetensors").unlink()
    with pytest.raises(XmodelError, match=r"no model\*\.safetensors; copy its weights there"):
        open_trained(native)


def test_a_config_that_promises_a_head_needs_one(native: Path) -> None:
    config = json.loads((native / "config.json").read_text())
    (native / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    with pytest.raises(XmodelError, match=r"tensor lm_head\.weight is absent there and \(700, 64\) by its settings"):
        open_trained(native).load()


def test_the_fingerprint_changes_with_the_weights_of_any_file(road: Path, tmp_path: Path) -> None:
    export_model(road / "run", ["hf"], tmp_path / "parts", max_shard_size="100KB")
    before = open_trained(tmp_path / "parts").fingerprint
    assert before == open_trained(tmp_path / "parts").fingerprint
    last = sorted((tmp_path / "parts").glob("model-*.safetensors"))[-1]
    tensors = load_file(last)
    next(iter(tensors.values())).add_(1)
    save_file(tensors, last)  # the index stays as it was
    assert open_trained(tmp_path / "parts").fingerprint != before
