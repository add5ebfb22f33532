"""Table 6, rule by rule, with numbers worked out by hand for m = 2."""

import math

import pytest
import torch

from xmodel2.model import Xmodel2, tensor_program
from xmodel2.recipe import ModelSettings, TrainSettings
from xmodel2.train.optimizer import build_optimizer, set_rate

SIZES = {
    "hidden_size": 512,
    "intermediate_size": 640,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "vocab_size": 300,
}
WIDE = ModelSettings(**SIZES, dim_model_base=256)
STANDARD = ModelSettings(**SIZES, dim_model_base=256, parametrization="standard")


def test_forward_multipliers() -> None:
    assert tensor_program.embedding_multiplier(WIDE) == 12
    assert tensor_program.residual_multiplier(WIDE) == pytest.approx(1.4 / 2)
    assert tensor_program.logit_multiplier(WIDE) == 0.5
    assert tensor_program.attention_multiplier(WIDE) == 64**-0.5
    flat = ModelSettings(**SIZES, attention_scale="1/head_dim")
    assert tensor_program.attention_multiplier(flat) == 1 / 64


def test_initial_standard_deviations() -> None:
    model = Xmodel2(WIDE)
    tensor_program.initialise(model, 0)
    for name, tensor in model.named_parameters():
        if tensor.dim() == 1:
            assert (tensor == 1).all(), name
        else:
            want = 0.1 if name.startswith("embed") else 0.1 / math.sqrt(2)
            assert float(tensor.detach().std()) == pytest.approx(want, rel=0.02), name


def test_learning_rate_and_decay_groups() -> None:
    model = Xmodel2(WIDE)
    optimizer = build_optimizer(model.named_parameters(), WIDE, TrainSettings())
    assert {group["lr"] for group in optimizer.param_groups} == {0.01, 0.005}
    set_rate(optimizer, 0.02)
    names = {parameter: name for name, parameter in model.named_parameters()}
    seen = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            seen[names[parameter]] = (group["lr"], group["weight_decay"])
    assert len(seen) == len(names)
    for name, (rate, decay) in seen.items():
        matrix = name.endswith("_proj.weight")
        assert (rate, decay) == ((0.01, 0.1) if matrix else (0.02, 0.0)), name


def test_constant_decay_cancels_the_scaled_rate() -> None:
    model = Xmodel2(WIDE)
    optimizer = build_optimizer(model.named_parameters(), WIDE, TrainSettings(weight_decay_scaling="constant"))
    set_rate(optimizer, 0.01)
    assert {g["lr"] * g["weight_decay"] for g in optimizer.param_groups if g["weight_decay"]} == {0.01 * 0.1}


def test_standard_parametrisation_switches_every_rule_off() -> None:
    assert tensor_program.embedding_multiplier(STANDARD) == 1
    assert tensor_program.residual_multiplier(STANDARD) == 1
    assert tensor_program.logit_multiplier(STANDARD) == 1
    weight = torch.empty(2, 2)
    assert tensor_program.learning_rate_scale("q_proj.weight", weight, STANDARD) == 1
    assert tensor_program.initial_std("q_proj.weight", weight, STANDARD) == 0.02


def test_the_start_depends_on_the_seed_alone() -> None:
    first, again, other = Xmodel2(WIDE), Xmodel2(WIDE), Xmodel2(WIDE)
    for model, seed in ((first, 3), (again, 3), (other, 4)):
        tensor_program.initialise(model, seed)
    pairs = list(zip(first.parameters(), again.parameters(), other.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b, _ in pairs)
    assert not any(torch.equal(a, c) for a, _, c in pairs if a.dim() == 2)
