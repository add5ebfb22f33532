"""float8: which layers are converted, that weights keep their names, and what a user who cannot have it is told.

torchao is stood in for by a module that replaces layers as it does, so that nothing here needs it or a GPU.
"""

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from xmodel2.errors import XmodelError
from xmodel2.model import Xmodel2
from xmodel2.recipe import ModelSettings
from xmodel2.train.float8 import apply_float8, is_worth_converting

GPU = torch.device("cuda", 0)


class Float8Linear(nn.Linear):
    """As torchao's: another class around the same weight."""


def convert(module: nn.Module, *, config: str, module_filter_fn: Callable[[nn.Module, str], bool]) -> nn.Module:
    assert config == "tensorwise"
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.Linear) and module_filter_fn(child, name):
                new = Float8Linear(child.in_features, child.out_features, bias=False, device="meta")
                new.weight = child.weight
                setattr(parent, name, new)
    return module


@pytest.fixture
def torchao(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = ModuleType("torchao.float8")
    module.Float8LinearConfig = type("Float8LinearConfig", (), {"from_recipe_name": staticmethod(str)})
    module.convert_to_float8_training = convert
    monkeypatch.setitem(sys.modules, "torchao", ModuleType("torchao"))
    monkeypatch.setitem(sys.modules, "torchao.float8", module)


@pytest.fixture
def hopper(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (9, 0))


def model_of(**size: Any) -> Xmodel2:
    with torch.device("meta"):
        return Xmodel2(ModelSettings(**{"num_hidden_layers": 2, "vocab_size": 64, **size}))


@pytest.mark.usefixtures("torchao", "hopper")
def test_large_layers_are_converted_and_parameters_stay() -> None:
    model = model_of()
    before = dict(model.named_parameters())
    assert apply_float8(model, GPU) == 8
    assert sum(isinstance(module, Float8Linear) for module in model.modules()) == 8
    after = dict(model.named_parameters())
    assert list(after) == list(before)
    assert all(after[name] is before[name] for name in before)


def test_small_and_odd_layers_are_not_worth_it() -> None:
    sizes = {(1536, 2560): True, (1024, 4096): False, (4096, 1024): False, (1544, 2560): False, (1536, 1544): False}
    found = {size: is_worth_converting(nn.Linear(*size, device="meta")) for size in sizes}
    assert found == sizes
    assert not is_worth_converting(nn.Embedding(2048, 2048, device="meta"))


@pytest.mark.usefixtures("torchao", "hopper")
def test_a_model_without_large_layers_is_an_error() -> None:
    small = model_of(hidden_size=64, intermediate_size=96, num_attention_heads=2, num_key_value_heads=1)
    with pytest.raises(XmodelError, match="no matrix of this model has both sides above 1024"):
        apply_float8(small, GPU)


@pytest.mark.usefixtures("hopper")
def test_without_torchao_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchao", None)
    monkeypatch.setitem(sys.modules, "torchao.float8", None)
    with pytest.raises(XmodelError, match=r"train\.float8 = true: torchao .* pip install 'xmodel2\[gpu\]'"):
        apply_float8(model_of(), GPU)


def test_a_device_that_cannot_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(XmodelError, match=r"train\.float8 = true: .* training runs on the cpu"):
        apply_float8(model_of(), torch.device("cpu"))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (8, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: "NVIDIA A100")
    with pytest.raises(XmodelError, match=r"NVIDIA A100, of 8\.0"):
        apply_float8(model_of(), GPU)
