"""Kernels of our own for a GPU: the same function and gradients as the operations that they stand for.

Without a GPU the operators run as plain PyTorch here, which tests how the decoder uses them. The kernels themselves run on a
GPU, or with Triton installed on a CPU: TRITON_INTERPRET=1 python -m pytest tests/model/test_gpu_kernels.py
"""

from collections.abc import Callable, Iterator
from types import ModuleType

import pytest
import torch

from tests import plain_kernels as plain
from tests.plain_kernels import INTERPRETED, NAMES, kernels_everywhere
from xmodel2.model import Xmodel2, gpu_kernels
from xmodel2.model.decoder import rotary
from xmodel2.train.device import can_compile

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
FACTOR = torch.tensor(0.3, device=DEVICE)


@pytest.fixture(scope="module")
def kernels() -> ModuleType:
    """The kernels, interpreted if there is no GPU."""
    if DEVICE == "cpu" and not INTERPRETED:
        pytest.skip("without a GPU, Triton and TRITON_INTERPRET=1 in the environment run them on the CPU")
    from xmodel2.model import triton_kernels

    return triton_kernels


@pytest.fixture
def operators() -> Iterator[None]:
    """The operators on whatever device the tests have, and the decoder uses them."""
    with kernels_everywhere():
        yield


def norm_inputs(*shape: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, ...]:
    grad, x, passed = (drawn(*shape, seed=seed, dtype=dtype) for seed in range(3))
    rms = torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + 1e-5)
    return grad, x, drawn(shape[-1], seed=3), rms, passed


def drawn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE, dtype)


def off(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found.double() - wanted.double()).norm() / wanted.double().norm())


# fp32 keeps all but the last bits; Triton's interpreter cuts bf16 off, where a GPU rounds.
WIDTHS = [(torch.float32, 1e-6), (torch.bfloat16, 5e-3)]


@pytest.mark.parametrize(("dtype", "most"), WIDTHS)
@pytest.mark.parametrize("shape", [(2, 37, 2, 5, 64), (3, 5, 1, 3, 40), (1, 9, 8, 3, 128)])
def test_heads_are_split_and_joined(
    kernels: ModuleType, shape: tuple[int, ...], dtype: torch.dtype, most: float
) -> None:
    qkv = drawn(*shape, dtype=dtype)
    cos, sin = (
        angle[0, 0].contiguous() for angle in rotary(torch.arange(shape[1], device=DEVICE)[None], shape[4], 1e4)
    )
    heads = kernels.split_heads(qkv, cos, sin, FACTOR)
    for found, wanted in zip(heads, plain.split_heads(qkv.float(), cos, sin, FACTOR), strict=True):
        assert off(found, wanted) < most
    grads = [drawn(*x.shape, seed=1, dtype=dtype) for x in heads]
    wanted = plain.join_heads(*(grad.float() for grad in grads), cos, sin, FACTOR)
    assert off(kernels.join_heads(*grads, cos, sin, FACTOR), wanted) < most


@pytest.mark.parametrize(("dtype", "most"), WIDTHS)
@pytest.mark.parametrize("shape", [(7, 3, 2, 480), (3, 2, 1500), (1, 2, 20)])
def test_swiglu_and_its_gradient(kernels: ModuleType, shape: tuple[int, ...], dtype: torch.dtype, most: float) -> None:
    gate_up = drawn(*shape, dtype=dtype)
    assert off(kernels.swiglu(gate_up, FACTOR), plain.swiglu(gate_up.float(), FACTOR)) < most
    grad = drawn(*shape[:-2], shape[-1], seed=1, dtype=dtype)
    assert (
        off(
            kernels.swiglu_backward(grad, gate_up, FACTOR), plain.swiglu_backward(grad.float(), gate_up.float(), FACTOR)
        )
        < most
    )


@pytest.mark.parametrize(("dtype", "most"), WIDTHS)
@pytest.mark.parametrize("shape", [(2, 37, 96), (1, 1, 1536)])
def test_gradients_of_norms(kernels: ModuleType, shape: tuple[int, ...], dtype: torch.dtype, most: float) -> None:
    inputs = norm_inputs(*shape, dtype=dtype)
    grad, x, weight, rms, passed = (tensor.float() for tensor in inputs)
    by_x, by_weight = plain.norm_backward(grad, x, weight, rms, passed)
    found = kernels.norm_backward(*inputs)
    assert max(off(one, other) for one, other in zip(found, (by_x, by_weight), strict=True)) < most


@pytest.mark.parametrize("packed", [False, True])
def test_a_decoder_is_the_same_with_them(
    model: Xmodel2, packed: bool, operators: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model.to(DEVICE)
    ids = torch.randint(97, (2, 20), generator=torch.Generator().manual_seed(0)).to(DEVICE)
    documents = torch.tensor([[0] * 8 + [1] * 12, [0] * 20], dtype=torch.int32) if packed else None

    def gradients() -> list[torch.Tensor]:
        loss = (
            model.logits(model.hidden(ids, documents, kernel="plain" if DEVICE == "cuda" else "auto"))
            .logsumexp(-1)
            .sum()
        )
        return [loss, *torch.autograd.grad(loss, list(model.parameters()))]

    fused = gradients()
    monkeypatch.setattr(gpu_kernels, "can_use", lambda device: False)
    for found, wanted in zip(fused, gradients(), strict=True):
        assert off(found, wanted) < 1e-5


def test_tensors_may_lie_as_they_come(operators: None) -> None:
    cos, sin = (angle[0, 0] for angle in rotary(torch.arange(5, device=DEVICE)[None], 8, 1e4))
    x, grad, qkv, pairs = drawn(12, 5), drawn(12, 5, seed=1), drawn(8, 4, 2, 5, 2), drawn(6, 2, 5)
    weight = drawn(12, seed=2).requires_grad_()

    def results(lie: Callable[[torch.Tensor], torch.Tensor]) -> list[torch.Tensor]:
        leaves = [x.detach().requires_grad_(), qkv.detach().requires_grad_(), pairs.detach().requires_grad_()]
        passed, normed = gpu_kernels.norm(lie(leaves[0].t()), weight, 1e-5)
        heads = gpu_kernels.split_heads(lie(leaves[1].permute(4, 3, 2, 1, 0)), cos, sin, FACTOR)
        product = gpu_kernels.swiglu(lie(leaves[2].permute(2, 1, 0)), FACTOR)
        outputs = [passed, normed, *heads, product]
        grads = [
            lie(grad.t()),
            lie(grad.t()),
            *(torch.ones_like(head) for head in heads),
            lie(torch.ones_like(product.t()).t()),
        ]
        return [*outputs, *torch.autograd.grad(outputs, [*leaves, weight], grads)]

    for found, wanted in zip(results(lambda t: t), results(torch.Tensor.contiguous), strict=True):
        assert off(found, wanted) < 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_norm_is_computed_in_fp32_and_gives_gradients_like_its_weights(operators: None, dtype: torch.dtype) -> None:
    x, weight = drawn(3, 7, 64, dtype=dtype).requires_grad_(), drawn(64, seed=1, dtype=dtype).requires_grad_()
    passed, normed = gpu_kernels.norm(x, weight, 1e-5)
    grad = drawn(3, 7, 64, seed=2, dtype=dtype)
    found = normed, *torch.autograd.grad((passed, normed), (x, weight), (grad, grad))
    wide = [tensor.detach().double().requires_grad_() for tensor in (x, weight)]
    wanted = wide[1] * wide[0] * torch.rsqrt(wide[0].pow(2).mean(-1, keepdim=True) + 1e-5)
    exact = wanted, *torch.autograd.grad(((wanted + wide[0]) * grad.double()).sum(), wide)
    assert [tensor.dtype for tensor in found] == [dtype] * 3
    # Rounded once at the end.
    assert max(off(one, other) for one, other in zip(found, exact, strict=True)) < (
        1e-6 if dtype == torch.float32 else 5e-3
    )


def test_where_no_kernel_can_be_built_a_gpu_does_without(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = torch.device("cuda", 7)  # of this test alone: what is found is kept
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(gpu_kernels, "find_spec", lambda name: object())
    monkeypatch.setattr(torch, "ones", lambda *size, device: None)
    errors: list[Exception] = [
        torch.OutOfMemoryError("full"),
        RuntimeError("Failed to find C compiler.\nPlease specify"),
    ]

    def fails(gate_up: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
        raise errors.pop(0)

    monkeypatch.setattr(gpu_kernels, "swiglu", fails)
    with pytest.raises(torch.OutOfMemoryError):  # which says nothing of what can be built
        gpu_kernels.can_use(gpu)
    with pytest.warns(UserWarning, match="without torch.compile, slower: Failed to find C compiler.$"):
        assert not gpu_kernels.can_use(gpu)
    assert not can_compile(gpu)
    assert not errors


@pytest.mark.parametrize(
    ("capability", "uses", "compiles"), [((6, 1), False, False), ((7, 5), False, True), ((8, 0), True, True)]
)
def test_what_a_gpu_can_do_goes_by_its_age(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], uses: bool, compiles: bool
) -> None:
    gpu = torch.device("cuda", 10 + capability[0])
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(gpu_kernels, "find_spec", lambda name: object())
    monkeypatch.setattr(torch, "ones", lambda *size, device: None)
    monkeypatch.setattr(gpu_kernels, "swiglu", lambda gate_up, factor: None)
    assert (gpu_kernels.can_use(gpu), can_compile(gpu)) == (uses, compiles)


def test_rows_with_angles_of_their_own_do_without_them(model: Xmodel2, operators: None) -> None:
    index = torch.arange(6, device=DEVICE)
    assert model.rows(index[None], None).kernels
    assert not model.rows(torch.stack((index, index + 1)), None).kernels


@pytest.mark.parametrize("name", NAMES)
def test_operators_tell_the_compiler_the_truth(name: str, operators: None) -> None:
    cos, sin = (angle[0, 0].contiguous() for angle in rotary(torch.arange(5, device=DEVICE)[None], 8, 1e4))
    inputs = {
        "split_heads": (drawn(2, 5, 2, 4, 8).requires_grad_(), cos, sin, FACTOR),
        "join_heads": (drawn(2, 5, 4, 8), drawn(2, 5, 2, 8), drawn(2, 5, 2, 8), cos, sin, FACTOR),
        "swiglu": (drawn(2, 5, 3, 2, 6).requires_grad_(), FACTOR),
        "swiglu_backward": (drawn(2, 5, 3, 6), drawn(2, 5, 3, 2, 6), FACTOR),
        "norm_backward": norm_inputs(2, 5, 12),
    }
    torch.library.opcheck(getattr(torch.ops.xmodel2, name).default, inputs[name])


def test_a_cpu_does_without_them() -> None:
    assert not gpu_kernels.can_use(torch.device("cpu"))
