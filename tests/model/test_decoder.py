"""The decoder: parameter counts, causality, document masks, and one answer from both attention paths."""

import pytest
import torch

from xmodel2.model import Xmodel2
from xmodel2.model.count import block_parameter_count, flops_per_token, parameter_count
from xmodel2.model.decoder import attend
from xmodel2.recipe import PRESETS, recipe_from_dict

# Blocks and total at 65,280 pieces; `xl` is Table 1's model, the others the family of the authors' follow-up.
FAMILY = {
    "nano": (5_247_232, 21_958_912),
    "micro": (17_409_408, 42_476_928),
    "tiny": (49_564_160, 82_987_520),
    "small": (101_226_816, 138_828_096),
    "medium": (299_889_600, 362_558_400),
    "xl": (1_151_485_440, 1_251_755_520),
}


@pytest.mark.parametrize("preset", FAMILY)
def test_parameter_counts_of_the_family(preset: str) -> None:
    settings = recipe_from_dict({"model": {"preset": preset}}).model
    with torch.device("meta"):
        built = sum(parameter.numel() for parameter in Xmodel2(settings).parameters())
    assert (block_parameter_count(settings), parameter_count(settings)) == FAMILY[preset]
    assert built == FAMILY[preset][1]


def test_flops_of_the_published_model() -> None:
    settings = recipe_from_dict({"model": {**PRESETS["xl"]}}).model
    assert flops_per_token(settings, 4096) == pytest.approx(9.32e9, rel=0.001)


def tokens(rows: int, length: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(97, (rows, length), generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def test_later_tokens_do_not_change_earlier_logits(model: Xmodel2) -> None:
    ids = tokens(2, 20)
    changed = ids.clone()
    changed[:, 12:] = (changed[:, 12:] + 1) % 97
    before, after = model(ids), model(changed)
    assert torch.equal(before[:, :12], after[:, :12])
    assert not torch.allclose(before[:, 12:], after[:, 12:])


@torch.no_grad()
def test_packed_documents_do_not_see_each_other(model: Xmodel2) -> None:
    first, second = tokens(1, 9, 1), tokens(1, 14, 2)
    packed = torch.cat([first, second], dim=1)
    documents = torch.tensor([[0] * 9 + [1] * 14], dtype=torch.int32)
    logits = model(packed, documents)
    assert torch.allclose(logits[:, :9], model(first), atol=1e-4)
    # Rotary attention depends on distances only, so a document is the same wherever it stands in the row.
    assert torch.allclose(logits[:, 9:], model(second), atol=1e-4)
    assert not torch.allclose(model(packed)[:, 9:], model(second), atol=1e-2)


def test_short_and_long_rows_attend_alike() -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, heads, 600, 16, generator=generator) for heads in (4, 2, 2))
    ragged = torch.rand(2, 600, 600, generator=generator) < 0.5
    masks = [None, (ragged | torch.eye(600, dtype=torch.bool)) & torch.ones(600, 600, dtype=torch.bool).tril()]
    for mask in masks:
        fused = attend(q, k, v, mask, 0.2)
        cut = None if mask is None else mask[:, :400, :400]
        plain = attend(q[:, :, :400], k[:, :, :400], v[:, :, :400], cut, 0.2)
        assert torch.allclose(fused[:, :, :400], plain, atol=1e-5)
