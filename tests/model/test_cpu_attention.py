"""Attention on a CPU: what goes by blocks is what plain products give, in 16 bits as exact as flash, at every length."""

import pytest
import torch
import torch.nn.functional as F

from xmodel2.model.attention import attend, mask_for
from xmodel2.model.cpu_attention import attend_on_cpu
from xmodel2.model.document_attention import Documents
from xmodel2.model.mask import Places


def drawn(S: int, dtype: torch.dtype, heads: tuple[int, int], rows: int = 1) -> list[torch.Tensor]:
    """Return queries, keys and values that want gradients, and the output's gradient, laid out as a block lays them out."""
    generator = torch.Generator().manual_seed(S)
    shapes = ((rows, S, n, 16) for n in (heads[0], heads[1], heads[1], heads[0]))
    return [torch.randn(shape, generator=generator).to(dtype).transpose(1, 2).requires_grad_() for shape in shapes]


def gradients(out: torch.Tensor, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
    return list(torch.autograd.grad(out, inputs[:3], inputs[3].to(out.dtype)))


def documents_of(S: int) -> torch.Tensor:
    """Return ids [2, S]: a document of one position, long ones, and another cut in each row."""
    cuts = torch.tensor([[1, S // 2, S - 3], [20, 21, 40]])  # of 1,500 positions the second row has a long one
    return (torch.arange(S) >= cuts[:, :, None]).sum(1).int()


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("S", [8, 128, 256, 300, 512, 1024, 1500])
@pytest.mark.parametrize("heads", [(4, 1), (4, 4)])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.bfloat16, 0.01), (torch.float32, 2e-6)])
def test_results_and_gradients_are_those_of_exact_plain_products(
    S: int, heads: tuple[int, int], packed: bool, dtype: torch.dtype, bound: float
) -> None:
    inputs, ids = drawn(S, dtype, heads, rows=2), documents_of(S) if packed else None
    places = Places(torch.arange(S), torch.arange(S), ids, ids)

    def found(kernel: str, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
        out = attend(*inputs[:3], mask_for(kernel, places, whole=True, dtype=inputs[0].dtype), 0.3)
        return [out, *gradients(out, inputs)]

    exact = found("plain", [x.detach().double().requires_grad_() for x in inputs])
    for one, other in zip(found("auto", inputs), exact, strict=True):
        assert ((one.double() - other).norm() / other.norm()).item() < bound


@pytest.mark.parametrize("S", [40, 300])
@pytest.mark.parametrize(("sharpness", "offset"), [(1.0, 0.0), (5.0, 0.0), (30.0, 0.0), (1.0, 100.0)])
def test_in_16_bits_gradients_are_as_exact_as_those_of_flash(S: int, sharpness: float, offset: float) -> None:
    inputs = drawn(S, torch.bfloat16, (4, 2))
    scale = sharpness / 4
    if offset:  # of all scores, which attention does not see
        towards = (offset / scale) ** 0.5 / inputs[0].shape[-1] ** 0.5
        shifted = [(x.detach() + towards).requires_grad_() for x in inputs[:2]]
        inputs = [*shifted, *inputs[2:]]

    def by_flash(inputs: list[torch.Tensor]) -> list[torch.Tensor]:
        q, k, v = inputs[:3]
        return gradients(F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, enable_gqa=True), inputs)

    flash, wanted = by_flash(inputs), by_flash([x.detach().double().requires_grad_() for x in inputs])
    q, k, v = inputs[:3]
    ours = gradients(attend_on_cpu(q, k, v, Documents.whole().bounds, scale), inputs)
    for one, peer, true in zip(ours, flash, wanted, strict=True):
        error, theirs = (((x.double() - true).norm() / true.norm()).item() for x in (one, peer))
        assert error < max(1.5 * theirs, 0.008)


@pytest.mark.parametrize("S", [20, 300])
def test_in_64_bits_there_are_gradients_at_every_length(S: int) -> None:
    inputs = drawn(S, torch.float64, (4, 2))
    q, k, v = inputs[:3]
    ours = gradients(attend_on_cpu(q, k, v, Documents.whole().bounds, 0.3), inputs)
    plain = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=0.3, enable_gqa=True)
    for one, other in zip(ours, gradients(plain, inputs), strict=True):
        assert torch.allclose(one, other, atol=1e-10)


def test_rows_beyond_the_scores_held_at_once_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = drawn(150, torch.bfloat16, (4, 2), rows=5)
    q, k, v = inputs[:3]
    whole = gradients(attend_on_cpu(q, k, v, Documents.whole().bounds, 0.3), inputs)
    monkeypatch.setattr("xmodel2.model.cpu_attention._SCORES", 2 * 4 * 150 * 128)
    parts = gradients(attend_on_cpu(q, k, v, Documents.whole().bounds, 0.3), inputs)
    for one, other in zip(whole, parts, strict=True):
        assert torch.allclose(one, other, atol=1e-3)


@pytest.mark.parametrize(
    "ids", [Documents.whole().bounds, torch.tensor([[0] * 9 + [1] * 21, [0] * 30])], ids=["rows", "packed"]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_compiler_is_told_what_comes_out(ids: torch.Tensor, dtype: torch.dtype) -> None:
    q, k, v, _ = drawn(30, dtype, (4, 2), rows=2)
    checks = ("test_schema", "test_faketensor", "test_aot_dispatch_static")
    torch.library.opcheck(torch.ops.xmodel2.cpu_attention, (q, k, v, ids, 0.3), test_utils=checks)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_asks_for_no_gradients_goes_the_plain_way(dtype: torch.dtype) -> None:
    rows = Places(torch.arange(4), torch.arange(4), None, None)
    assert isinstance(mask_for("auto", rows, whole=True, dtype=dtype), Documents)
    assert mask_for("sdpa", rows, whole=True, dtype=dtype) is None
    with torch.no_grad():
        assert mask_for("auto", rows, whole=True, dtype=dtype) is None
