"""The loss of a chunk and its gradients, as a CPU and as a GPU make them, against softmax in fp64."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F

from xmodel2.data.batch import IGNORED
from xmodel2.recipe import recipe_from_dict
from xmodel2.train.loss import (
    SLICE,
    _errors,
    _exponentials,
    _undivided_errors,
    chunk_positions,
    cross_entropy_chunk,
    linear_cross_entropy,
)

C, H, V = 7, 16, 50


def drawn(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(n, H, generator=generator) for n in (C, V))
    target = torch.randint(V, (C,), generator=generator)
    target[2] = IGNORED
    return hidden.to(dtype), weight.to(dtype), target


def relative(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found.double() - wanted).norm() / wanted.norm())


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-6), (torch.bfloat16, 0.01)])
@pytest.mark.parametrize("gradients", [True, False])
def test_a_chunk_is_the_sum_of_cross_entropies(dtype: torch.dtype, bound: float, gradients: bool) -> None:
    hidden, weight, target = drawn(dtype)
    exact = [x.double().requires_grad_() for x in (hidden, weight)]
    wanted = F.cross_entropy(exact[0] @ exact[1].T * 0.7, target, ignore_index=IGNORED, reduction="sum")
    nats, *found = cross_entropy_chunk(hidden, weight, target, gradients, 0.7)
    assert float(nats) == pytest.approx(wanted.item(), rel=bound)
    if not gradients:
        assert found == [None, None, None]
        return
    by_hidden, error, factor = found
    assert by_hidden is not None
    assert error is not None
    assert factor is not None
    for one, other in zip((by_hidden, error.t() @ factor), torch.autograd.grad(wanted, exact), strict=True):
        assert one.dtype == dtype
        assert relative(one, other) < bound


@pytest.mark.parametrize("place", [0, V - 1, -3, V, IGNORED])
@pytest.mark.parametrize("spread", [1, 40, 100], ids=["", "spread", "too much for a base at the target"])
def test_both_ways_agree_on_pieces_that_this_rank_has_and_has_not(place: int, spread: float) -> None:
    logits = torch.randn(C, V, generator=torch.Generator().manual_seed(1)) * spread
    place_C, kept_C = torch.full((C,), place), torch.arange(C) != 3
    nats_C, error_CV, done = _errors(logits * 0.7, place_C, kept_C * 0.7, torch.float32, None)
    others_C, undivided_CV, scale_C = _undivided_errors(
        logits, place_C, kept_C * 0.7, torch.float32, None, 0.7, _exponentials
    )
    assert error_CV is not None
    assert undivided_CV is not None
    assert scale_C is not None
    assert done is None
    torch.testing.assert_close(undivided_CV * scale_C[:, None], error_CV, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(others_C, nats_C)
    one_hot = (torch.arange(V) == place_C[:, None]).float()
    wanted_CV = (torch.softmax(logits * 0.7, -1) - one_hot) * kept_C[:, None] * 0.7
    torch.testing.assert_close(error_CV, wanted_CV, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("offset", [-200.0, 200.0])
def test_a_position_that_counts_nothing_spoils_nothing_whatever_its_logits(offset: float) -> None:
    hidden, weight, target = drawn(torch.float32)
    hidden[:, 0], weight[:, 0] = 0.0, 1.0
    hidden[2, 0] = offset  # the one that is ignored
    plain = cross_entropy_chunk(hidden[[0, 1, 3]], weight, target[[0, 1, 3]], True, 1.0)
    nats, by_hidden, *_ = cross_entropy_chunk(hidden[:4], weight, target[:4], True, 1.0)
    assert by_hidden is not None
    assert plain[1] is not None
    torch.testing.assert_close(nats, plain[0])
    torch.testing.assert_close(by_hidden[[0, 1, 3]], plain[1])
    assert not by_hidden[2].any()


def test_in_16_bits_a_target_that_is_nearly_sure_keeps_its_small_gradient() -> None:
    _, weight, target = drawn(torch.bfloat16)
    own = weight[target.clamp(0)].float()
    hidden = (own * 30 / own.square().sum(-1, keepdim=True)).bfloat16()
    exact = [x.double().requires_grad_() for x in (hidden, weight)]
    loss = F.cross_entropy(exact[0] @ exact[1].T, target, ignore_index=IGNORED, reduction="sum")
    assert 0 < loss.item() / (C - 1) < 0.01
    _, by_hidden, *_ = cross_entropy_chunk(hidden, weight, target, True, 1.0)
    assert by_hidden is not None
    # With one-hot taken from the products' results instead this is 0.05.
    assert relative(by_hidden, torch.autograd.grad(loss, exact)[0]) < 0.01


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-6), (torch.bfloat16, 0.01)])
def test_the_gradient_of_a_large_table_is_added_up_over_chunks(dtype: torch.dtype, bound: float) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(n, H, generator=generator) for n in (C, SLICE + 5))
    target = torch.tensor([0, SLICE - 1, SLICE, SLICE + 4, IGNORED, 3, 3])
    inputs = [hidden.to(dtype).requires_grad_(), weight.to(dtype).float().requires_grad_()]
    exact = [x.detach().double().requires_grad_() for x in inputs]
    wanted = F.cross_entropy(exact[0] @ exact[1].T * 0.7, target, ignore_index=IGNORED, reduction="sum")
    nats = linear_cross_entropy(*inputs, target, None, 3, partial(cross_entropy_chunk, multiplier=0.7))
    assert float(nats.detach()) == pytest.approx(wanted.item(), rel=bound)
    for one, other in zip(torch.autograd.grad(nats, inputs), torch.autograd.grad(wanted, exact), strict=True):
        assert relative(one, other) < bound


@pytest.mark.parametrize(
    ("pieces", "element", "device", "tensor", "chunk"),
    [
        (8192, 4, "cpu", 1, 1024),
        (8192, 2, "cpu", 1, 1024),
        (65280, 4, "cpu", 1, 128),
        (65280, 2, "cpu", 1, 512),
        (65280, 4, "cpu", 4, 512),
        (65280, 2, "cuda", 1, 2048),
        (10**6, 2, "cuda", 1, 256),
    ],
)
def test_chunks_are_equal_and_in_16_bits_worth_a_pass_over_the_table(
    pieces: int, element: int, device: str, tensor: int, chunk: int
) -> None:
    recipe = recipe_from_dict({"model": {"preset": "nano", "vocab_size": pieces}})
    assert chunk_positions(recipe, 2048, element, device, tensor) == chunk
    asked = recipe_from_dict({"train": {"loss_chunk_tokens": 100}})
    assert [chunk_positions(asked, n, element, device, tensor) for n in (2048, 7)] == [100, 7]
