"""Four bits: what comes back, and that the CPU's layout holds the same numbers."""

import pytest
import torch
from torch import nn

from xmodel2.release.quantising import int4


def matrix() -> torch.Tensor:
    weight = torch.randn(48, 96, generator=torch.Generator().manual_seed(0))
    weight[3] = 0.0
    weight[5, :32] = 0.5
    weight[:, 32:64] *= 1e-4
    return weight


@pytest.mark.parametrize("group_size", [32, 64])
def test_weights_are_off_by_half_a_step_at_most_where_none_is_an_outlier(group_size: int) -> None:
    even = torch.linspace(-1, 1, 64).repeat(32, 2)
    back = int4.dequantised(int4.quantised(even, group_size))
    step = 2 / 15 * group_size / 64
    assert float((back - even).abs().max()) < 0.55 * step  # scale and zero are rounded to bf16


def test_groups_of_one_value_and_of_small_values_come_back() -> None:
    weight = matrix()
    back = int4.dequantised(int4.quantised(weight, 32))
    assert (back[3] == 0).all()
    assert (back[5, :32] == 0.5).all()
    assert float((back - weight)[:, 32:64].abs().max()) < 1e-4
    assert float((back - weight).std() / weight.std()) < 0.12


def test_two_values_lie_in_a_byte() -> None:
    made = int4.quantised(matrix(), 32)
    assert made.qdata.nbytes == 48 * 96 // 2
    assert made.scale.nbytes + made.zero_point.nbytes == 48 * 3 * 4
    assert set(int4.unpacked(made.qdata).unique().tolist()) <= set(range(-8, 8))


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.bfloat16, 0.1)])
def test_the_cpu_layout_holds_the_same_numbers(dtype: torch.dtype, bound: float) -> None:
    layer = nn.Sequential(nn.Linear(96, 96, bias=False), nn.Linear(96, 48, bias=False)).to(dtype)
    made = int4.quantised(matrix(), 32)
    layer[1].weight = nn.Parameter(made, requires_grad=False)
    int4.for_cpu(layer)
    inputs = torch.randn(5, 96, generator=torch.Generator().manual_seed(1))
    assert float((layer[1](inputs.to(dtype)).float() - inputs @ int4.dequantised(made).t()).abs().max()) < bound
