"""Attention kernels at the model's shapes on a GPU: TFLOP/s of the causal half, forward alone and with backward.

    python -m benchmarks.attention [--quick] [--json] [--rows 8] [--sequence-length 4096]

24 query heads over 8 key/value heads of 64, bf16, laid out as the block hands them over. Every kernel of
`scaled_dot_product_attention` once as it shares key/value heads itself (gqa) and once with heads repeated before it;
FlexAttention causal and with the documents that ours keeps apart. Each is first compared with plain fp32
attention on a small input: the relative error stands beside it. FLOPs count the causal half (with documents: what they leave),
2 products forward and 5 backward.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import flex_attention

from benchmarks.harness import Result, argument_parser, drawn_documents, gpu_seconds, machine
from xmodel2.errors import XmodelError
from xmodel2.model.attention import attend, mask_for
from xmodel2.model.mask import Places, block_mask

N, K, D = 24, 8, 64
SCALE = 1 / D
Kernel = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def main() -> None:
    """Measure and print."""
    parser = argument_parser(__doc__, "a quarter of the positions")
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--sequence-length", type=int, default=4096)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("attention: PyTorch sees no CUDA GPU here, and these are a GPU's kernels")
    rows, length = options.rows, options.sequence_length // (4 if options.quick else 1)
    documents_BS = _documents(rows, length)
    pairs = {False: rows * length * (length + 1) / 2, True: _pairs(documents_BS)}
    rates: dict[str, float] = {}
    lines = []
    for name, masked, make in _kernels():
        try:
            error = _error(make, masked)
            forward, both = _seconds(make(documents_BS), rows, length)
        except Exception as problem:  # what cannot run here is said, and the others are measured
            lines.append(f"{name}: cannot run ({str(problem).strip().splitlines()[0][:90]})")
        else:
            product = 2 * pairs[masked] * N * D
            rates[name] = 7 * product / both
            lines.append(
                f"{name}: forward {2 * product / forward / 1e12:.0f}, backward"
                f" {5 * product / (both - forward) / 1e12:.0f}, both {rates[name] / 1e12:.0f} TFLOP/s,"
                f" {both * 1e3:.2f} ms, error {error:.1e}"
            )
        print(lines[-1], flush=True)
    unmasked = {name: rate for name, rate in rates.items() if "documents" not in name}
    ours = unmasked.pop("ours")
    best = max(unmasked, key=lambda name: unmasked[name])
    Result(
        name="attention",
        machine=machine(),
        ours=ours / 1e12,
        peers={name: rate / 1e12 for name, rate in rates.items() if name != "ours"},
        unit="TFLOP/s of the causal half, forward and backward",
        ratio_to_best_peer=ours / unmasked[best],
        share_of_limit=None,
        limit=None,
        notes=f"{rows} x {length} positions, {N} heads over {K} of {D}, bf16; " + "; ".join(lines),
    ).show(options.json)


def _kernels() -> list[tuple[str, bool, Callable[[torch.Tensor], Kernel]]]:
    """Return kernels: name, whether documents are kept apart, and what makes it for document ids [B, S]."""
    found: list[tuple[str, bool, Callable[[torch.Tensor], Kernel]]] = [
        ("ours", False, lambda ids: lambda q, k, v: attend(q, k, v, None, SCALE)),
        ("ours, documents", True, _ours),
    ]
    for backend in (SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION):
        for shared in (True, False):
            name = f"{backend.name.split('_')[0].lower()}{' gqa' if shared else ', heads repeated'}"
            found.append((name, False, lambda ids, backend=backend, shared=shared: _sdpa(backend, shared)))  # type: ignore[misc]
    found.append(("flex, causal", False, lambda ids: _flex(torch.zeros_like(ids))))
    found.append(("flex, documents", True, _flex))
    return found


def _ours(document_ids_BS: torch.Tensor) -> Kernel:
    mask = mask_for("auto", _places(document_ids_BS), whole=True, dtype=torch.bfloat16)
    return lambda q, k, v: attend(q, k, v, mask, SCALE)


def _sdpa(backend: SDPBackend, shared: bool) -> Kernel:
    def run(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        if not shared:
            k, v = (x.repeat_interleave(N // K, dim=1) for x in (k, v))
        with sdpa_kernel(backend):
            return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=SCALE, enable_gqa=shared)

    return run


def _flex(document_ids_BS: torch.Tensor) -> Kernel:
    mask, flex = block_mask(_places(document_ids_BS)), torch.compile(flex_attention, dynamic=False)
    return lambda q, k, v: flex(q, k, v, block_mask=mask, scale=SCALE, enable_gqa=True)  # type: ignore[return-value]


def _documents(rows: int, length: int) -> torch.Tensor:
    """Return ids [B, S] of documents of 40 to 2,000 positions."""
    return drawn_documents(rows, length, longest=2000).cuda()


def _places(document_ids_BS: torch.Tensor) -> Places:
    index_S = torch.arange(document_ids_BS.shape[1], device=document_ids_BS.device)
    return Places(index_S, index_S, document_ids_BS, document_ids_BS)


def _pairs(document_ids_BS: torch.Tensor) -> float:
    """Return how many pairs of query and key documents leave."""
    total = 0.0
    for row in document_ids_BS:
        sizes = torch.unique_consecutive(row, return_counts=True)[1].double()
        total += float((sizes * (sizes + 1) / 2).sum())
    return total


def _inputs(rows: int, length: int) -> list[torch.Tensor]:
    """Return q, k and v as the block has them: heads beside each other in memory, which the rotation copied for q and k."""
    drawn = torch.Generator("cuda").manual_seed(0)
    size = {"device": "cuda", "dtype": torch.bfloat16, "generator": drawn}
    found = [torch.randn(rows, heads, length, D, **size) for heads in (N, K)]  # type: ignore[call-overload]
    found.append(torch.randn(rows, length, K, D, **size).transpose(1, 2))  # type: ignore[call-overload]
    return [x.detach().requires_grad_() for x in found]


def _error(make: Callable[[torch.Tensor], Kernel], masked: bool) -> float:
    """Return the largest relative error of output and gradients against plain attention in fp32."""
    documents_BS = _documents(2, 1024)
    seen = _places(documents_BS if masked else torch.zeros_like(documents_BS)).visible()[:, None]
    exact = [x.detach().float().requires_grad_() for x in _inputs(2, 1024)]
    given = [x.detach().requires_grad_() for x in _inputs(2, 1024)]
    k, v = (x.repeat_interleave(N // K, dim=1) for x in exact[1:])
    score = (exact[0] @ k.transpose(2, 3) * SCALE).masked_fill(~seen, float("-inf"))
    wanted, out = torch.softmax(score, -1) @ v, make(documents_BS)(*given)
    grad = torch.randn_like(wanted)
    wanted.backward(grad)
    out.backward(grad.to(out.dtype))
    pairs = [(out, wanted), *((a.grad, b.grad) for a, b in zip(given, exact, strict=True))]
    errors = [
        float((a.detach().float() - b.detach()).norm() / b.norm()) for a, b in pairs if a is not None and b is not None
    ]
    if not max(errors) < 0.05:
        raise XmodelError(f"wrong: relative errors of output and gradients {errors}")
    return max(errors)


def _seconds(kernel: Kernel, rows: int, length: int) -> tuple[float, float]:
    """Return seconds of forward, and of forward and backward, by events on the device: medians of 10."""
    q, k, v = _inputs(rows, length)
    grad = torch.randn_like(q)

    def both() -> None:
        torch.autograd.grad(kernel(q, k, v), (q, k, v), grad)

    return gpu_seconds(lambda: kernel(q, k, v)), gpu_seconds(both)


if __name__ == "__main__":
    main()
