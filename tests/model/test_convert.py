"""Our model and native Granite: the same logits, and the way back."""

import pytest
import torch

from xmodel2.model import Xmodel2, tensor_program
from xmodel2.model.convert import from_granite, parity_difference, to_granite
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


@torch.no_grad()
def test_there_and_back(model: Xmodel2) -> None:
    ours = dict(model.named_parameters())
    back = from_granite(to_granite(ours, model.settings), model.settings)
    assert back.keys() == ours.keys()
    assert all(torch.equal(tensor, back[name]) for name, tensor in ours.items())
