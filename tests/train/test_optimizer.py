"""Which tensor learns how fast, and that one schedule drives both kinds of rate."""

import pytest
import torch

from xmodel2.model import Xmodel2, tensor_program
from xmodel2.recipe import ModelSettings, TrainSettings
from xmodel2.train.muon import Muon
from xmodel2.train.optimizer import build_optimizer, set_rate


def settings_of(width: int) -> ModelSettings:
    return ModelSettings(
        hidden_size=width,
        intermediate_size=5 * width // 2,
        num_hidden_layers=2,
        num_attention_heads=width // 32,
        num_key_value_heads=1,
        vocab_size=64,
        dim_model_base=64,
    )


def model_of(width: int) -> Xmodel2:
    model = Xmodel2(settings_of(width))
    tensor_program.initialise(model, 0)
    return model


def rates(model: Xmodel2, optimizer: torch.optim.Optimizer) -> dict[str, tuple[float, float]]:
    """Return the rate and the decay of every tensor by name."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    return {
        names[parameter]: (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }


@pytest.mark.parametrize("width", [64, 128])
def test_muon_takes_the_matrices_at_one_rate_and_adamw_the_others(width: int) -> None:
    model = model_of(width)
    train = TrainSettings(optimizer="muon", learning_rate=0.01, muon_learning_rate=0.03, weight_decay=0.2)
    optimizer = build_optimizer(model.named_parameters(), settings_of(width), train)
    assert isinstance(optimizer, Muon)
    set_rate(optimizer, 0.005)  # half of the peak
    found = rates(model, optimizer)
    assert set(found) == {name for name, _ in model.named_parameters()}
    for name, (rate, decay) in found.items():
        matrix = name.endswith("_proj.weight")
        assert (rate, decay) == (pytest.approx(0.015 if matrix else 0.005), 0.2 if matrix else 0.0), name


def test_adamw_is_the_default_and_scales_matrices_by_width() -> None:
    model = model_of(128)
    optimizer = build_optimizer(model.named_parameters(), settings_of(128), TrainSettings(learning_rate=0.01))
    assert type(optimizer) is torch.optim.AdamW
    found = rates(model, optimizer)
    assert found["layers.0.mlp.down_proj.weight"] == (0.005, 0.1)
    assert found["embed_tokens.weight"] == (0.01, 0.0)


def test_a_muon_step_changes_the_features_alike_at_every_width() -> None:
    changes = {width: feature_change(width) for width in (64, 128, 256)}
    assert max(changes.values()) < 1.3 * min(changes.values()), changes


def feature_change(width: int) -> float:
    """Return the mean change of the last hidden states by one step of the matrices alone."""
    model = model_of(width)
    named = [(n, p) for n, p in model.named_parameters() if n.endswith("_proj.weight") or n == "norm.weight"]
    optimizer = build_optimizer(named, settings_of(width), TrainSettings(optimizer="muon", muon_learning_rate=0.05))
    tokens = torch.randint(64, (4, 33), generator=torch.Generator().manual_seed(0))
    before = model.hidden(tokens[:, :-1])
    logits = model.logits(before)
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).backward()
    model.norm.weight.grad = None
    optimizer.step()
    with torch.no_grad():
        return float((model.hidden(tokens[:, :-1]) - before).abs().mean())


def test_constant_decay_changes_nothing_under_muon() -> None:
    model = model_of(128)
    found = []
    for scaling in ("coupled", "constant"):
        train = TrainSettings(optimizer="muon", weight_decay_scaling=scaling)
        found.append(rates(model, build_optimizer(model.named_parameters(), settings_of(128), train)))
    assert found[0] == found[1]
