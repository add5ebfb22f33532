"""A native directory, loaded by transformers alone, and what its files hold."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.release.exporting.conftest import MakeRun
from xmodel2.errors import XmodelError
from xmodel2.model.generate import generate
from xmodel2.release.exporting.formats import export_model
from xmodel2.release.trained import open_trained
from xmodel2.tokenizer import load_tokenizer
from xmodel2.train import load_model

ALONE = """
import sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
ids = tokenizer.apply_chat_template([{"role": "user", "content": "1 + 2 ="}], add_generation_prompt=True, return_tensors="pt")
ids = ids if isinstance(ids, torch.Tensor) else ids["input_ids"]
print(type(model).__name__, model.config.tie_word_embeddings, model.generate(ids, max_new_tokens=4).shape[0])
assert not any(name.startswith("xmodel2") for name in sys.modules)
"""

VLLM_GRANITE = {
    "architectures",
    "model_type",
    "dtype",
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "hidden_act",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "max_position_embeddings",
    "rms_norm_eps",
    "rope_parameters",
    "rope_theta",
    "tie_word_embeddings",
    "attention_bias",
    "mlp_bias",
    "attention_multiplier",
    "embedding_multiplier",
    "residual_multiplier",
    "logits_scaling",
}
"""What vllm/model_executor/models/granite.py reads off the config, new releases (rope_parameters) and old (rope_theta)."""


def test_transformers_loads_it_without_our_package(road: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-I", "-c", ALONE, str(road / "hf")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["GraniteForCausalLM", "True", "1"]


def test_greedy_generation_is_the_same_in_both(road: Path) -> None:
    model, _, _ = load_model(road / "run")
    tokenizer = load_tokenizer(road / "run" / "tokenizer")
    native = AutoModelForCausalLM.from_pretrained(road / "hf", dtype=torch.float32)
    prompt = tokenizer.encode_prompt([{"role": "user", "content": "Spell this word backward: sun"}])
    ours = generate(model, [prompt], 16, tokenizer.stop_ids)[0]
    theirs = native.generate(torch.tensor([prompt]), max_new_tokens=16, do_sample=False)[0, len(prompt) :].tolist()
    assert [i for i in theirs if i not in (*tokenizer.stop_ids, tokenizer.pad_id)] == ours


def test_directory_is_complete(road: Path) -> None:
    names = {p.name for p in (road / "hf").iterdir()}
    assert names >= {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "README.md",
        "recipe.toml",
    }
    with safe_open(road / "hf" / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}
        assert "lm_head.weight" not in list(file.keys())
    template = AutoTokenizer.from_pretrained(road / "hf").chat_template
    assert template == (road / "hf" / "chat_template.jinja").read_text()
    stops = json.loads((road / "hf" / "generation_config.json").read_text())["eos_token_id"]
    assert stops == load_tokenizer(road / "hf").stop_ids
    card = (road / "hf" / "README.md").read_text()
    for words in ("reasoning", "[model]"):
        assert words in card


def test_the_config_has_every_key_that_vllm_reads(road: Path) -> None:
    config = json.loads((road / "hf" / "config.json").read_text())
    assert config.keys() >= VLLM_GRANITE
    assert (config["architectures"], config["model_type"]) == (["GraniteForCausalLM"], "granite")
    assert config["tie_word_embeddings"] is True
    assert config["rope_parameters"]["rope_theta"] == config["rope_theta"]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_narrow_weights_are_ours_rounded(road: Path, tmp_path: Path, dtype: str) -> None:
    (report,) = export_model(road / "run", ["hf"], tmp_path / "hf", dtype=dtype)
    assert report["max_abs_difference"] < 1e-4
    native = AutoModelForCausalLM.from_pretrained(tmp_path / "hf")
    assert native.dtype == getattr(torch, dtype)
    whole = AutoModelForCausalLM.from_pretrained(road / "hf").state_dict()
    assert all(torch.equal(tensor, whole[name].to(native.dtype)) for name, tensor in native.state_dict().items())
    assert report["bytes"] * 2 == sum(t.nbytes for name, t in whole.items() if name != "lm_head.weight")


def test_large_weights_come_in_several_files(road: Path, tmp_path: Path) -> None:
    export_model(road / "run", ["hf"], tmp_path / "hf", max_shard_size="100KB")
    files = sorted(path.name for path in (tmp_path / "hf").glob("*.safetensors"))
    assert len(files) > 2
    assert files[0] == f"model-00001-of-{len(files):05d}.safetensors"
    index = json.loads((tmp_path / "hf" / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == set(files)
    one = AutoModelForCausalLM.from_pretrained(road / "hf").state_dict()
    several = AutoModelForCausalLM.from_pretrained(tmp_path / "hf").state_dict()
    assert all(torch.equal(tensor, several[name]) for name, tensor in one.items())
    ours = dict(load_model(road / "run")[0].named_parameters())
    back = dict(open_trained(tmp_path / "hf").load().named_parameters())
    assert all(torch.equal(tensor, back[name]) for name, tensor in ours.items())


def test_an_export_is_exported_again(road: Path, tmp_path: Path, unproved: None) -> None:
    export_model(road / "hf", ["hf"], tmp_path / "hf", max_shard_size="100KB")
    (tmp_path / "hf" / "README.md").write_bytes(b"GraniteForCausalLM \xff, of an editor that knows no UTF-8")
    export_model(tmp_path / "hf", ["hf"], tmp_path / "again")
    assert (tmp_path / "again" / "README.md").read_text().startswith("GraniteForCausalLM \ufffd, of")
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (road / "hf" / "model.safetensors").read_bytes()
    assert (tmp_path / "again" / "config.json").read_bytes() == (road / "hf" / "config.json").read_bytes()


@pytest.mark.parametrize(
    "settings",
    [
        {"parametrization": "standard"},
        {
            "attention_scale": "1/head_dim",
            "rules_off": ("residual", "head"),
            "num_key_value_heads": 2,
            "rope_theta": 500_000.0,
        },
    ],
)
def test_random_weights_agree_too(make_run: MakeRun, tmp_path: Path, settings: dict[str, object]) -> None:
    for report in export_model(make_run(**settings), ["hf", "llama"], tmp_path / "out"):
        assert report["max_abs_difference"] < 1e-4


def test_the_card_of_a_stable_checkpoint_shows_its_own_results(road: Path, tmp_path: Path, unproved: None) -> None:
    results = json.loads((road / "run" / "results.json").read_text())
    export_model(road / "run" / "checkpoints" / "step-12", ["hf"], tmp_path / "hf")
    card = (tmp_path / "hf" / "README.md").read_text()
    assert f"| docs | {results['heldout']['stable']['docs']['loss']:.3f} |" in card
    assert "(decay)" not in card


def test_the_card_shows_no_results_of_another_step(road: Path, tmp_path: Path, unproved: None) -> None:
    shutil.copytree(road / "run", tmp_path / "run")
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    results["steps"]["decay"] = 19
    (tmp_path / "run" / "results.json").write_text(json.dumps(results))
    export_model(tmp_path / "run", ["hf"], tmp_path / "hf")
    assert "Not evaluated at this step." in (tmp_path / "hf" / "README.md").read_text()
    (tmp_path / "run" / "results.json").write_text("{")
    with pytest.raises(XmodelError, match=r"results\.json: not valid JSON"):
        export_model(tmp_path / "run", ["hf"], tmp_path / "hf2")
