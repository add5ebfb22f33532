"""The same model as a plain Llama, its scales in its weights."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from xmodel2.release.exporting.formats import export_model
from xmodel2.tokenizer import load_tokenizer
from xmodel2.train import load_model

VLLM_LLAMA = {
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
    "head_dim",
    "max_position_embeddings",
    "rms_norm_eps",
    "rope_parameters",
    "rope_theta",
    "tie_word_embeddings",
    "attention_bias",
    "mlp_bias",
}
"""What vllm/model_executor/models/llama.py reads off the config."""


@pytest.fixture(scope="module")
def llama(road: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("llama") / "out"
    (report,) = export_model(road / "run", ["llama"], out)
    assert report["max_abs_difference"] < 1e-4
    return out


def test_its_logits_are_ours(road: Path, llama: Path) -> None:
    ids = torch.tensor([load_tokenizer(llama).encode_document("It was folded into the weights.")])
    native = AutoModelForCausalLM.from_pretrained(llama)
    assert type(native).__name__ == "LlamaForCausalLM"
    with torch.no_grad():
        assert (native(ids).logits - load_model(road / "run")[0](ids)).abs().max() < 1e-4


def test_the_config_is_plain_llamas(llama: Path) -> None:
    config = json.loads((llama / "config.json").read_text())
    assert config.keys() >= VLLM_LLAMA
    assert not [key for key in config if "multiplier" in key or "scaling" in key]
    assert config["tie_word_embeddings"] is False
    assert "LlamaForCausalLM" in (llama / "README.md").read_text()


def test_narrow_weights_are_proved_too(road: Path, tmp_path: Path) -> None:
    (report,) = export_model(road / "run", ["llama"], tmp_path / "out", dtype="float16", max_shard_size="100KB")
    assert report["max_abs_difference"] < 1e-4
