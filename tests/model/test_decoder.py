"""The decoder: parameter counts, causality, document masks, and one answer from both attention paths."""

import pytest
import torch
from torch.nn.attention.flex_attention import BlockMask, create_block_mask

from xmodel2.model import Xmodel2
from xmodel2.model.attention import attend, mask_for
from xmodel2.model.count import block_parameter_count, flops_per_token, parameter_count
from xmodel2.model.decoder import scaled
from xmodel2.model.mask import Places, block_mask
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


def attention(
    kernel: str, documents: torch.Tensor | None, heads: tuple[int, int] = (4, 2), S: int = 130
) -> list[torch.Tensor]:
    """Return the output and the three gradients of a kernel on random rows."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, n, S, 16, generator=generator).requires_grad_() for n in (heads[0], heads[1], heads[1]))
    index = torch.arange(S)
    mask = mask_for(kernel, Places(index, index, documents, documents), whole=True)
    out = attend(q, k, v, mask, 0.2)
    grads = torch.autograd.grad(out, (q, k, v), torch.randn(out.shape, generator=generator))
    return [out, *grads]


def test_the_kernel_is_picked_by_the_width_of_its_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    widths: list[int] = []
    monkeypatch.setattr(
        "xmodel2.model.attention.can_attend_within", lambda *given: bool(widths.append(given[2])) or True
    )
    size = {
        "hidden_size": 40,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "num_hidden_layers": 1,
        "vocab_size": 16,
    }
    settings = recipe_from_dict({"model": {**PRESETS["pico"], **size}}).model
    ids = torch.zeros(1, 8, dtype=torch.long)
    Xmodel2(settings).hidden(ids, ids.int())
    assert widths == [20]


@pytest.mark.parametrize("heads", [(4, 4), (4, 2), (3, 1)])
@pytest.mark.parametrize("kernel", ["documents", "auto"])
def test_kernels_agree_with_plain_products(kernel: str, heads: tuple[int, int]) -> None:
    documents = torch.zeros(2, 130, dtype=torch.int32)
    documents[0, 1:] += 1
    documents[0, 70:] += 1
    documents[1, 129:] += 1
    for ids in (documents, None):
        for ours, reference in zip(attention(kernel, ids, heads), attention("plain", ids, heads), strict=True):
            assert torch.allclose(ours, reference, atol=2e-5)


@torch.no_grad()
@pytest.mark.parametrize("S", [256, 300])
@pytest.mark.parametrize("part", [slice(None), slice(128, 256)])
def test_a_block_mask_shows_what_plain_products_see(S: int, part: slice) -> None:
    documents = torch.randint(0, 3, (2, S), generator=torch.Generator().manual_seed(1)).sort(1).values.int()
    index = torch.arange(S)
    q, k, v = (torch.randn(2, n, S, 16, generator=torch.Generator().manual_seed(n)) for n in (4, 2, 2))
    for ids in (documents, None):
        places = Places(index[part], index, None if ids is None else ids[:, part], ids)
        masks = (mask_for(kernel, places, part == slice(None)) for kernel in ("flex", "plain"))
        flex, plain = (attend(q[:, :, part], k, v, mask, 0.2) for mask in masks)
        assert torch.allclose(flex, plain, atol=2e-5)


@pytest.mark.parametrize("S", [256, 300, 512])
def test_blocks_are_those_that_the_whole_mask_needs(S: int) -> None:
    documents = torch.randint(0, 3, (2, S), generator=torch.Generator().manual_seed(1)).sort(1).values.int()
    index = torch.arange(S)
    halves = torch.cat([index[: S // 4], index[-(S // 4) :]])  # as a context-parallel rank holds them
    for query in (index, halves):
        mask = block_mask(Places(query, index, documents[:, query], documents))
        whole = create_block_mask(mask.mask_mod, 2, None, len(query), S, device="cpu")
        assert torch.equal(mask.to_dense() > 0, whole.to_dense() > 0)
        assert torch.equal(full_blocks(mask), full_blocks(whole))


def full_blocks(mask: BlockMask) -> torch.Tensor:
    """Return which blocks are seen whole: bool [B, query blocks, key blocks]."""
    assert mask.full_kv_num_blocks is not None
    assert mask.full_kv_indices is not None
    place = torch.arange(mask.full_kv_indices.shape[-1])
    taken = place < mask.full_kv_num_blocks[..., None]
    full = torch.zeros(mask.full_kv_indices.shape, dtype=torch.bool)
    return full.scatter(-1, mask.full_kv_indices.long(), taken)[:, 0]


@torch.no_grad()
def test_a_part_of_the_positions_sees_what_the_whole_row_sees() -> None:
    documents = torch.tensor([[0] * 9 + [1] * 23])
    q, k, v = (torch.randn(1, n, 32, 16, generator=torch.Generator().manual_seed(n)) for n in (4, 2, 2))
    index, some = torch.arange(32), torch.tensor([3, 4, 30, 31, 9])
    whole = attend(q, k, v, mask_for("auto", Places(index, index, documents, documents), whole=True), 0.2)
    part = attend(q[:, :, some], k, v, mask_for("auto", Places(some, index, documents[:, some], documents), False), 0.2)
    assert torch.allclose(part, whole[:, :, some], atol=1e-5)


def test_a_factor_keeps_its_precision_beside_bf16() -> None:
    x = torch.randn(1000, generator=torch.Generator().manual_seed(0)).bfloat16()
    factor = 1.4 / 48**0.5
    assert torch.equal(scaled(x, torch.tensor(factor)), x * factor)
    assert not torch.equal(torch.tensor(factor).bfloat16() * x, x * factor)
