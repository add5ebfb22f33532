"""The fused tensors hold the matrices that attention and feed-forward speak of, in the order that a group names them."""

import pytest
import torch

from xmodel2.model import fused_layout
from xmodel2.recipe import ModelSettings

SETTINGS = ModelSettings(
    hidden_size=48, intermediate_size=80, num_hidden_layers=1, num_attention_heads=12, num_key_value_heads=4
)


def numbered(rows: int) -> torch.Tensor:
    """Return a matrix whose rows hold their own number."""
    return torch.arange(rows, dtype=torch.float32)[:, None].expand(rows, SETTINGS.hidden_size)


def test_rows_of_a_group() -> None:
    assert fused_layout.groups(SETTINGS) == 4
    assert fused_layout.qkv_rows(SETTINGS) == (12, 4, 4)
    assert fused_layout.gate_up_rows(SETTINGS) == (20, 20)
    uneven = ModelSettings(hidden_size=48, intermediate_size=90, num_attention_heads=12, num_key_value_heads=4)
    assert fused_layout.groups(uneven) == 2


def test_a_group_holds_the_query_heads_that_share_its_key_head() -> None:
    query, key, value = fused_layout.split_qkv(numbered(80), SETTINGS)
    assert query[1, :, 0].tolist() == list(range(20, 32))
    assert key[1, :, 0].tolist() == list(range(32, 36))
    assert value[1, :, 0].tolist() == list(range(36, 40))


@pytest.mark.parametrize("kind", ["qkv", "gate_up"])
def test_joining_undoes_splitting(kind: str) -> None:
    split, join = getattr(fused_layout, f"split_{kind}"), getattr(fused_layout, f"join_{kind}")
    weight = torch.randn(80 if kind == "qkv" else 160, 48, generator=torch.Generator().manual_seed(0))
    parts = split(weight, SETTINGS)
    assert all(part.untyped_storage().data_ptr() == weight.untyped_storage().data_ptr() for part in parts)
    assert torch.equal(join(*(part.flatten(0, 1) for part in parts), SETTINGS), weight)


def test_a_cut_between_groups_is_of_the_same_form() -> None:
    weight = torch.randn(160, 48, generator=torch.Generator().manual_seed(0))
    gate, up = fused_layout.split_gate_up(weight, SETTINGS)
    first_gate, first_up = fused_layout.split_gate_up(weight[:80], SETTINGS)
    assert torch.equal(gate[:2], first_gate)
    assert torch.equal(up[:2], first_up)


def test_other_tensors_are_one_matrix() -> None:
    weight = torch.ones(48, 80)
    assert [part.shape for part in fused_layout.matrices("layers.0.mlp.down_proj.weight", weight, SETTINGS)] == [
        (1, 48, 80)
    ]
    assert len(fused_layout.matrices("layers.0.self_attn.qkv_proj.weight", torch.ones(80, 48), SETTINGS)) == 3
