"""Our model and native Granite: the same logits, and the way back."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from xmodel2.errors import XmodelError
from xmodel2.model import Xmodel2, tensor_program
from xmodel2.model.convert import granite_config, load_hf, parity_difference, to_granite
from xmodel2.recipe import ModelSettings


@pytest.mark.parametrize("attention_scale", ["1/sqrt(head_dim)", "1/head_dim"])
@pytest.mark.parametrize("parametrization", ["tensor_program", "standard"])
def test_logits_agree_plain_padded_and_cached(attention_scale: str, parametrization: str) -> None:
    settings = ModelSettings(
        hidden_size=96,
        intermediate_size=160,
        num_hidden_layers=3,
        num_attention_heads=6,
        num_key_value_heads=2,
        vocab_size=211,
        attention_scale=attention_scale,  # type: ignore[arg-type]
        parametrization=parametrization,  # type: ignore[arg-type]
    )
    model = Xmodel2(settings)
    tensor_program.initialise(model, 1)
    assert parity_difference(model, settings, seed=2) < 1e-4


def test_a_wrong_multiplier_is_seen(model: Xmodel2) -> None:
    from dataclasses import replace

    assert parity_difference(model, model.settings, seed=2) < 1e-4
    assert parity_difference(model, replace(model.settings, scale_depth=1.5), seed=2) > 1e-2


@pytest.fixture
def native(model: Xmodel2, tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "granite", **granite_config(model.settings)}))
    save_file(to_granite(dict(model.named_parameters()), model.settings), tmp_path / "model.safetensors")
    return tmp_path


@torch.no_grad()
def test_there_and_back(model: Xmodel2, native: Path) -> None:
    back, settings = load_hf(native)
    ids = torch.arange(30)[None]
    assert torch.allclose(back(ids), model(ids), atol=1e-5)
    assert settings.dim_model_base == model.settings.dim_model_base
    assert settings.scale_depth == pytest.approx(model.settings.scale_depth)


def test_another_architecture_is_refused(native: Path) -> None:
    (native / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(XmodelError, match="model_type 'llama' is not a Granite"):
        load_hf(native)
    (native / "config.json").write_text("{")
    with pytest.raises(XmodelError, match=r"config\.json: cannot be read"):
        load_hf(native)
