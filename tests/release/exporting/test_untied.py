"""A model with a head of its own in every format: proved there, and the same when it is read again."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM

from tests.release.exporting.conftest import MakeRun
from xmodel2.model.generate import generate
from xmodel2.recipe import load_recipe
from xmodel2.release.exporting.formats import export_model
from xmodel2.release.importing.model import import_model
from xmodel2.release.trained import open_trained, without_paths
from xmodel2.train import load_model

HEAD = "lm_head.weight"


@pytest.fixture
def run(make_run: MakeRun) -> Path:
    return make_run(tie_word_embeddings=False, num_key_value_heads=2, dim_model_base=32)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_directories_hold_both_tables(run: Path, tmp_path: Path, dtype: str) -> None:
    for report in export_model(run, ["hf", "llama"], tmp_path / "out", dtype=dtype):
        assert report["max_abs_difference"] < 1e-4
        folder = Path(report["path"])
        assert json.loads((folder / "config.json").read_text())["tie_word_embeddings"] is False
        with safe_open(folder / "model.safetensors", "pt") as file:
            assert file.get_slice(HEAD).get_shape() == file.get_slice("model.embed_tokens.weight").get_shape()
        native = AutoModelForCausalLM.from_pretrained(folder)
        assert native.lm_head.weight is not native.model.embed_tokens.weight


def test_transformers_generates_what_we_do(run: Path, tmp_path: Path) -> None:
    export_model(run, ["hf"], tmp_path / "hf")
    native = AutoModelForCausalLM.from_pretrained(tmp_path / "hf", dtype=torch.float32)
    prompt = [1, 40, 90, 300]
    theirs = native.generate(torch.tensor([prompt]), max_new_tokens=8, min_new_tokens=8, do_sample=False)
    assert theirs[0, len(prompt) :].tolist() == generate(load_model(run)[0], [prompt], 8, [])[0]


@pytest.mark.parametrize("kind", ["hf", "llama"])
def test_a_directory_comes_back_with_its_recipe(run: Path, tmp_path: Path, kind: str) -> None:
    export_model(run, [kind], tmp_path / "theirs")
    report = import_model(tmp_path / "theirs", tmp_path / "back")
    assert report["max_abs_difference"] < 1e-4
    assert load_recipe(tmp_path / "back" / "recipe.toml") == without_paths(load_model(run)[1])
    models = [load_model(run)[0], load_model(tmp_path / "back")[0]]
    if kind == "hf":
        models.append(open_trained(tmp_path / "theirs").load())
    want, *others = ([p.detach() for p in model.parameters()] for model in models)
    for found in others:
        assert all(torch.allclose(a, b, rtol=1e-6, atol=0) for a, b in zip(want, found, strict=True))


@pytest.mark.skipif(find_spec("gguf") is None, reason="gguf is not installed")
@pytest.mark.parametrize("kind", ["f32", "q4_0"])
def test_a_gguf_file_holds_both_tables(run: Path, tmp_path: Path, kind: str) -> None:
    from xmodel2.release.exporting.gguf_file import write_gguf
    from xmodel2.release.exporting.gguf_read import read_tensors

    report = write_gguf(open_trained(run), tmp_path / "model.gguf", kind)
    if find_spec("xllamacpp"):
        assert report["max_abs_difference"] < (1e-4 if kind == "f32" else 1.0)
    types = {name: tensor.type for name, tensor in read_tensors(tmp_path / "model.gguf").items()}
    assert types["output.weight"] == types["token_embd.weight"] == (0 if kind == "f32" else 8)


@pytest.mark.skipif(find_spec("torchao") is None, reason="torchao is not installed")
def test_int8_leaves_the_head_as_it_is(run: Path, tmp_path: Path) -> None:
    from xmodel2.release.quantising.quantise import quantise
    from xmodel2.release.quantising.table import caption

    record = quantise(open_trained(run), ["int8"], tmp_path / "out", None, rounds=0)
    assert record["types"]["int8"]["max_abs_difference"] < 1e-3
    assert "embedding and head make up" in caption(record)
    native = AutoModelForCausalLM.from_pretrained(tmp_path / "out" / "int8")
    assert type(native.model.layers[0].mlp.up_proj.weight).__name__ == "Int8Tensor"
    assert torch.equal(native.lm_head.weight, load_model(run)[0].lm_head.weight.bfloat16())
