"""A directory of each layout, imported: its logits are the source's, and what is not as it should be is refused by name."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.release.importing.authors_class import authors_logits
from tests.release.importing.random_models import SIZES, random_weights, write_directory
from xmodel2.errors import XmodelError
from xmodel2.recipe import load_recipe, recipe_to_toml, replace
from xmodel2.release.card import card_of
from xmodel2.release.exporting.formats import export_model
from xmodel2.release.exporting.weights import native_tensors
from xmodel2.release.importing.model import import_model
from xmodel2.release.trained import open_trained, without_paths
from xmodel2.train import train
from xmodel2.train.checkpoint import load_model
from xmodel2.train.metrics import read_metrics

IDS = [1, 300, 17, 45, 379, 20, 21, 22, 5]
MUP = {
    "use_mup": True,
    "mup_input_scale": 9.0,
    "mup_attention_residual_scale": 1.4,
    "mup_ffn_residual_scale": 1.4,
    "mup_output_scale": 1.0,
    "mup_base_width": 8,
}
GRANITE = {
    "model_type": "granite",
    "architectures": ["GraniteForCausalLM"],
    "tie_word_embeddings": True,
    "embedding_multiplier": 12.0,
    "residual_multiplier": 0.22,
    "logits_scaling": 4.0,
    "attention_multiplier": 1 / math.sqrt(8),
}
LLAMA = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}


def config(**changes: Any) -> dict[str, Any]:
    return {**SIZES, **changes}


def imported_logits(run: Path) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = load_model(run)[0](torch.tensor([IDS]))[0]
    return logits


def close(run: Path, want: torch.Tensor) -> bool:
    return torch.allclose(imported_logits(run), want, atol=1e-5 * float(want.abs().max()), rtol=1e-4)


@pytest.mark.parametrize(
    ("changes", "parametrization", "folded"),
    [
        ({"model_type": "xmodel", **MUP}, "tensor_program", set()),
        ({"model_type": "xmodel", **MUP, "mup_ffn_residual_scale": 0.3}, "tensor_program", {"down_proj"}),
        ({"model_type": "xmodel", **MUP, "mup_output_scale": 1.3}, "tensor_program", {"norm"}),
        ({"model_type": "xmodel", **MUP, "mup_output_scale": 3.0}, "tensor_program", set()),  # dim_model_base = 24
        ({"model_type": "xmodel"}, "standard", set()),
        ({"model_type": "xmodel", **MUP, "use_mup": False}, "standard", set()),
        ({"model_type": "xmodel2", "scale_emb": 12, "scale_depth": 1.4, "dim_model_base": 16}, "tensor_program", set()),
        ({"model_type": "minicpm", "scale_emb": 12, "scale_depth": 1.4, "dim_model_base": 16}, "tensor_program", set()),
    ],
    ids=[
        "mup",
        "two residual scales",
        "odd output scale",
        "whole output scale",
        "plain",
        "mup off",
        "scales",
        "minicpm",
    ],
)
def test_the_authors_layout_gives_the_logits_of_their_class(
    changes: dict[str, Any], parametrization: str, folded: set[str], tokenizer_dir: Path, tmp_path: Path
) -> None:
    settings = config(**changes, tie_word_embeddings=True)
    weights = random_weights(settings)
    head = {"lm_head.weight": weights["model.embed_tokens.weight"].clone()}  # as they publish it, tied
    source = write_directory(tmp_path / "theirs", settings, {**weights, **head}, tokenizer_dir)
    report = import_model(source, tmp_path / "run")
    assert report["layout"] == ("minicpm" if changes["model_type"] == "minicpm" else "xmodel")
    assert report["max_abs_difference"] is None
    assert set(report["folded"]) == folded
    assert load_model(tmp_path / "run")[1].model.parametrization == parametrization
    assert close(tmp_path / "run", authors_logits(settings, weights, IDS))


def test_code_of_the_directory_is_not_run(tokenizer_dir: Path, tmp_path: Path) -> None:
    settings = config(model_type="xmodel", auto_map={"AutoModelForCausalLM": "modeling_xmodel.XmodelForCausalLM"})
    source = write_directory(tmp_path / "theirs", settings, random_weights(settings), tokenizer_dir)
    (source / "modeling_xmodel.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    report = import_model(source, tmp_path / "run")
    assert any("auto_map" in note for note in report["notes"])
    assert not (tmp_path / "ran").exists()
    settings |= LLAMA
    source = write_directory(tmp_path / "theirs", {**settings, "tie_word_embeddings": True}, random_weights(settings))
    import_model(source, tmp_path / "again")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_granite_of_others(dtype: torch.dtype, tokenizer_dir: Path, tmp_path: Path) -> None:
    settings = config(**GRANITE)
    weights = {name: tensor.to(dtype) for name, tensor in random_weights(settings).items()}
    source = write_directory(tmp_path / "granite", settings, weights, tokenizer_dir)
    report = import_model(source, tmp_path / "run")
    assert report["max_abs_difference"] < 1e-4
    assert report["folded"] == {}
    kept = dict(native_tensors(open_trained(tmp_path / "run")))
    assert kept.keys() == weights.keys()
    assert all(torch.equal(kept[name], weights[name].float()) for name in weights)


def test_scales_without_a_setting_go_into_weights(tokenizer_dir: Path, tmp_path: Path) -> None:
    settings = config(**GRANITE) | {"attention_multiplier": 0.2, "logits_scaling": 7.0}
    source = write_directory(tmp_path / "granite", settings, random_weights(settings), tokenizer_dir)
    report = import_model(source, tmp_path / "run")
    assert set(report["folded"]) == {"q_proj", "norm"}
    assert report["max_abs_difference"] < 1e-4


def test_llama_with_a_tied_head(tokenizer_dir: Path, tmp_path: Path) -> None:
    settings = config(**LLAMA, tie_word_embeddings=True)
    source = write_directory(tmp_path / "llama", settings, random_weights(settings), tokenizer_dir)
    assert import_model(source, tmp_path / "run")["max_abs_difference"] < 1e-4


def test_a_head_that_is_a_multiple_of_the_embedding_becomes_it(tokenizer_dir: Path, tmp_path: Path) -> None:
    settings = config(**LLAMA)
    weights = random_weights(settings)
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"] * 0.3
    source = write_directory(tmp_path / "llama", settings, weights, tokenizer_dir)
    assert import_model(source, tmp_path / "run")["max_abs_difference"] < 1e-4
    assert load_model(tmp_path / "run")[1].model.tie_word_embeddings


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("kind", "folded"),
    [
        (LLAMA, set()),
        (GRANITE, set()),
        ({**GRANITE, "logits_scaling": 7.0, "attention_multiplier": 0.2}, {"q_proj", "lm_head"}),
    ],
    ids=["llama", "granite", "odd scales"],
)
def test_a_head_of_its_own_stays_one(
    kind: dict[str, Any], folded: set[str], dtype: torch.dtype, tokenizer_dir: Path, tmp_path: Path
) -> None:
    settings = config(**{**kind, "tie_word_embeddings": False})
    weights = {name: tensor.to(dtype) for name, tensor in random_weights(settings, head=True).items()}
    source = write_directory(tmp_path / "theirs", settings, weights, tokenizer_dir)
    report = import_model(source, tmp_path / "run")
    assert report["max_abs_difference"] < 1e-4
    assert set(report["folded"]) == folded
    kept = dict(native_tensors(open_trained(tmp_path / "run")))
    assert kept.keys() == weights.keys()
    assert all(torch.equal(kept[name], weights[name].float()) for name in weights if name.split(".")[-2] not in folded)
    del weights["lm_head.weight"]
    write_directory(source, settings, weights)
    with pytest.raises(XmodelError, match=r"1 missing: lm_head\.weight"):
        import_model(source, tmp_path / "again")


def test_an_export_comes_back_bit_for_bit(road: Path, tmp_path: Path) -> None:
    export_model(road / "run", ["hf"], tmp_path / "hf")
    report = import_model(tmp_path / "hf", tmp_path / "run")
    assert report["max_abs_difference"] < 1e-4
    before, after = load_model(road / "run"), load_model(tmp_path / "run")
    assert after[1] == without_paths(before[1])  # the recipe too
    for file in (tmp_path / "hf").iterdir():
        assert str(road).encode() not in file.read_bytes()
    tensors = dict(before[0].named_parameters())
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in after[0].named_parameters())
    export_model(tmp_path / "run", ["hf"], tmp_path / "again")
    names = {path.name for path in (tmp_path / "hf").iterdir()} - {"README.md"}
    assert {"model.safetensors", "config.json", "tokenizer.json", "recipe.toml"} <= names
    for name in names:
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "hf" / name).read_bytes()


def test_a_directory_of_several_files(road: Path, tmp_path: Path) -> None:
    export_model(road / "run", ["hf"], tmp_path / "hf", max_shard_size="100KB")
    index = json.loads((tmp_path / "hf" / "model.safetensors.index.json").read_text())
    (tmp_path / "hf" / "notes.safetensors").write_bytes(b"not one of them")
    import_model(tmp_path / "hf", tmp_path / "run")
    assert all(torch.equal(*pair) for pair in zip(*map(tensors_of, (road / "run", tmp_path / "run")), strict=True))
    last = sorted(set(index["weight_map"].values()))[-1]
    (tmp_path / "hf" / last).unlink()
    with pytest.raises(XmodelError, match=f"1 of the files in .* missing: {last}"):
        import_model(tmp_path / "hf", tmp_path / "run2")
    index["weight_map"]["model.norm.weight"] = "../run/elsewhere.safetensors"
    (tmp_path / "hf" / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(XmodelError, match=r"names the file '\.\./run/elsewhere\.safetensors'"):
        import_model(tmp_path / "hf", tmp_path / "run2")


def tensors_of(path: Path) -> list[torch.Tensor]:
    return [tensor for _, tensor in sorted(load_model(path)[0].named_parameters())]


def test_llama_with_folded_scales_comes_back_as_it_was(road: Path, tmp_path: Path) -> None:
    for dtype, near in (("float32", 1e-6), ("bfloat16", 1e-2)):
        folder = tmp_path / dtype
        export_model(road / "run", ["llama"], folder, dtype=dtype)
        report = import_model(folder, tmp_path / f"run-{dtype}")
        assert set(report["folded"]) == {"embed_tokens", "o_proj", "down_proj"}
        assert load_model(tmp_path / f"run-{dtype}")[1] == without_paths(load_model(road / "run")[1])
        pairs = zip(tensors_of(road / "run"), tensors_of(tmp_path / f"run-{dtype}"), strict=True)
        assert all(torch.allclose(*pair, rtol=near, atol=1e-7) for pair in pairs)
        (folder / "recipe.toml").unlink()  # without it the scales stay in the weights, and the logits are the same
        bare = import_model(folder, tmp_path / f"bare-{dtype}")
        assert set(bare["folded"]) == {"norm"}
        assert bare["max_abs_difference"] <= 10 * report["max_abs_difference"]


def test_a_run_goes_on_from_an_import(road: Path, tokenizer_dir: Path, tmp_path: Path) -> None:
    recipe = replace(load_recipe(road / "run" / "recipe.toml"), {"train.heldout_every": 0, "evaluation.prompts": []})
    (tmp_path / "decay.toml").write_text(recipe_to_toml(recipe))
    report = import_model(road / "hf", tmp_path / "run", recipe=tmp_path / "decay.toml")
    assert report["step"] == recipe.stable_steps
    train(
        load_recipe(tmp_path / "run" / "recipe.toml"),
        tmp_path / "decayed",
        resume=False,
        branch_from=f"{tmp_path / 'run'}@stable",
        stop_after=recipe.stable_steps + 1,
    )
    card = card_of(open_trained(tmp_path / "decayed"))
    assert "imported, and trained on 512 tokens" in card
    assert "It went on from a model that was imported" in card
    assert "| tokens | 512 |" in card
    assert "from scratch" not in card
    [line] = [line for line in read_metrics(tmp_path / "decayed") if "loss" in line]
    assert line["step"] == recipe.stable_steps + 1
    assert line["loss"] < 6  # of weights drawn anew it is log(700) = 6.6
    with pytest.raises(XmodelError, match="was made with another tokenizer than the model's"):
        import_model(road / "hf", tmp_path / "other", recipe=tmp_path / "decay.toml", tokenizer=tokenizer_dir)


def broken(folder: Path, tokenizer: Path, **changes: Any) -> Path:
    settings = config(**GRANITE)
    return write_directory(folder, {**settings, **changes}, random_weights(settings), tokenizer)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_attention_heads": 5}, r"config\.json: .*hidden_size 32 must be a multiple of num_attention_heads 5"),
        ({"num_key_value_heads": 3}, r"num_attention_heads 4 must be a multiple of num_key_value_heads 3"),
        ({"model_type": "gpt2"}, r"model_type 'gpt2' is not an architecture that can be imported"),
        ({"hidden_size": None}, r"config\.json: has no hidden_size"),
        ({"hidden_size": "wide"}, r"hidden_size is 'wide'; it must be a number above 0"),
        ({"hidden_size": 32.5}, r"hidden_size is 32\.5; it must be a whole number"),
        ({"logits_scaling": 0}, r"logits_scaling is 0; it must be a number above 0"),
        ({"embedding_multiplier": math.nan}, r"embedding_multiplier is nan"),
        ({"attention_bias": True}, r"attention_bias is True, which our model has not"),
        ({"hidden_act": "gelu"}, r"hidden_act is gelu, which our model has not"),
        ({"rope_scaling": {"type": "linear", "factor": 2}}, r"rotary positions of type 'linear'"),
        ({"rope_scaling": "linear"}, r"rope_scaling is 'linear'; it must be an object"),
        ({"quantization_config": {"bits": 4}}, r"quantization_config is .* which our model has not"),
        ({"head_dim": 16}, r"head_dim is 16, which our model has not"),
        ({"rope_theta": None, "rope_parameters": {"rope_theta": "x"}}, r"rope_theta is 'x'; it must be a number"),
        ({"vocab_size": 10**400}, r"vocab_size is 10+; it must be a number above 0, and below 1e\+12"),
        ({"num_hidden_layers": 10**9}, r"num_hidden_layers is 1,000,000,000, and the weights are 29 tensors"),
        (
            {"intermediate_size": 64},
            r"6?\d* of another shape: model\.layers\.0\.mlp\.\w+_proj\.weight \(model\.safetensors\)",
        ),
        ({"num_hidden_layers": 4}, r"9 missing: model\.layers\.3\.\S+, .* and 4 more"),
        ({"num_hidden_layers": 2}, r"9 unknown here: model\.layers\.2\.\S+ \(model\.safetensors\), .* and 4 more"),
    ],
)
def test_what_does_not_fit_is_named(changes: dict[str, Any], message: str, tokenizer_dir: Path, tmp_path: Path) -> None:
    source = broken(tmp_path / "granite", tokenizer_dir, **changes)
    with pytest.raises(XmodelError, match=message):
        import_model(source, tmp_path / "run")
    assert {path.name for path in tmp_path.iterdir()} == {"granite"}


def test_damaged_files_are_named(tokenizer_dir: Path, tmp_path: Path) -> None:
    source = broken(tmp_path / "granite", tokenizer_dir)
    weights = source / "model.safetensors"
    whole = weights.read_bytes()
    for content, message in (
        (whole[:-100], r"model\.safetensors: is not a whole safetensors file"),
        (whole[:5], r"model\.safetensors: is not a whole safetensors file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", r"a pointer of Git LFS"),
    ):
        weights.write_bytes(content)
        with pytest.raises(XmodelError, match=message):
            import_model(source, tmp_path / "run")
    weights.rename(source / "pytorch_model.bin")
    with pytest.raises(XmodelError, match=r"are pickled \(pytorch_model\.bin\).*weights_only=True"):
        import_model(source, tmp_path / "run")
    (source / "pytorch_model.bin").unlink()
    with pytest.raises(XmodelError, match=r"has no \*\.safetensors"):
        import_model(source, tmp_path / "run")
    for content, message in (("{", "not valid JSON"), ("[]", "holds no JSON object")):
        (source / "config.json").write_text(content)
        with pytest.raises(XmodelError, match=message):
            import_model(source, tmp_path / "run")
    (source / "config.json").unlink()
    with pytest.raises(XmodelError, match=r"config\.json: not found"):
        import_model(source, tmp_path / "run")
    with pytest.raises(XmodelError, match="is not a folder"):
        import_model(tmp_path / "absent", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_weights_that_are_no_numbers_or_no_floats(tokenizer_dir: Path, tmp_path: Path) -> None:
    source = broken(tmp_path / "granite", tokenizer_dir)
    tensors = load_file(source / "model.safetensors")
    tensors["model.norm.weight"][3] = math.nan
    save_file(tensors, source / "model.safetensors")
    with pytest.raises(XmodelError, match=r"tensor norm\.weight: holds nan"):
        import_model(source, tmp_path / "run")
    tensors["model.norm.weight"] = torch.ones(32, dtype=torch.int8)
    save_file(tensors, source / "model.safetensors")
    with pytest.raises(XmodelError, match=r"import the model that is not quantised: model\.norm\.weight \(I8\)"):
        import_model(source, tmp_path / "run")


def test_constants_of_older_files_are_passed_over(tokenizer_dir: Path, tmp_path: Path) -> None:
    settings = config(model_type="xmodel")
    weights = random_weights(settings)
    constants = {f"model.layers.{layer}.self_attn.rotary_emb.inv_freq": torch.ones(4) for layer in range(3)}
    source = write_directory(tmp_path / "theirs", settings, {**weights, **constants}, tokenizer_dir)
    assert import_model(source, tmp_path / "run")["ignored"] == 3


def test_a_recipe_that_is_not_of_the_model_is_left_out(tokenizer_dir: Path, tmp_path: Path) -> None:
    source = broken(tmp_path / "granite", tokenizer_dir)
    for text, note in (
        ("[model]\nhidden_size = 64\nnum_attention_heads = 4\nnum_key_value_heads = 2\n", "is not that of config.json"),
        ('base = "/etc/passwd"\n', "it has a base"),
        ("[modle]\n", "modle"),
        ("= 3", "left out"),
    ):
        (source / "recipe.toml").write_text(text)
        report = import_model(source, tmp_path / "run", overwrite=True)
        assert [note in line for line in report["notes"]] == [True]
    assert load_model(tmp_path / "run")[1].name == "granite"


def test_a_folder_that_is_no_import_is_never_replaced(tokenizer_dir: Path, tmp_path: Path) -> None:
    source = broken(tmp_path / "granite", tokenizer_dir)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("keep")
    with pytest.raises(XmodelError, match="already exists"):
        import_model(source, tmp_path / "run")
    with pytest.raises(XmodelError, match="was not made by `xmodel2 import`"):
        import_model(source, tmp_path / "run", overwrite=True)
    assert (tmp_path / "run" / "mine.txt").read_text() == "keep"
    import_model(source, tmp_path / "base")
    shutil.copytree(source, tmp_path / "base" / "hf")
    with pytest.raises(XmodelError, match="the directory that is imported lies there"):
        import_model(tmp_path / "base" / "hf", tmp_path / "base", overwrite=True)
    assert (tmp_path / "base" / "hf" / "config.json").exists()
