"""Attention of a training step on a CPU: milliseconds forward and backward, beside PyTorch's flash kernel and plain products.

    python -m benchmarks.cpu_attention [--quick] [--json] [--preset nano] [--lengths 64 128 ...]

For each precision and length, as many rows as make 2,048 positions: `ours` beside `scaled_dot_product_attention` (flash) and
compiled plain products, all on rows of one document; then rows of 512 packed with documents of 40 to 200 positions: ours beside
flash called for each document, and flash with a dense mask. Gradients are first compared with those in fp64: the largest relative
error stands beside each.
"""

import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

from benchmarks.harness import Result, argument_parser, drawn_documents, machine
from xmodel2.model.attention import attend, mask_for
from xmodel2.model.mask import Places
from xmodel2.recipe import recipe_from_dict
from xmodel2.train.allocator import keep_freed_memory
from xmodel2.train.device import DTYPES

POSITIONS = 2048
Kernel = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def main() -> None:
    """Measure and print."""
    keep_freed_memory(torch.device("cpu"))  # as `xmodel2 train` does, before the first tensor
    parser = argument_parser(__doc__, "two lengths, bf16")
    parser.add_argument("--preset", default="nano")
    parser.add_argument("--lengths", nargs="*", type=int, default=[64, 128, 256, 512, 1024, 2048])
    parser.add_argument("--precisions", nargs="*", default=["bf16", "fp32"])
    options = parser.parse_args()
    if options.quick:
        options.lengths, options.precisions = [128, 512], ["bf16"]
    model = recipe_from_dict({"model": {"preset": options.preset}}).model
    heads = model.num_attention_heads, model.num_key_value_heads, model.head_dim
    lines, ratios, times = [], [], {}
    for precision in options.precisions:
        for length in (*options.lengths, 0):
            ids_BS = None if length else drawn_documents(POSITIONS // 512, 512, longest=200)
            kernels = _whole(length) if ids_BS is None else _documents(ids_BS)
            inputs = _inputs(POSITIONS // (length or 512), length or 512, heads, DTYPES[precision])
            figures = _measure(kernels, inputs, 5 if options.quick else 15)
            what = f"{precision}, {'rows of ' + str(length) if length else 'packed rows of 512'}"
            ours, *peers = (sum(seconds) for seconds, _ in figures.values())
            ratios.append(min(peers) / ours)
            times[what] = ours * 1e3
            parts = (
                f"{name} {forward * 1e3:.1f} + {backward * 1e3:.1f} ms, error {error:.1e}"
                for name, ((forward, backward), error) in figures.items()
            )
            lines.append(f"{what}: {'; '.join(parts)}; ratio {ratios[-1]:.2f}")
            print(lines[-1], flush=True)
    Result(
        name="cpu_attention",
        machine=machine(),
        ours=statistics.median(times.values()),
        peers={},
        unit="ms forward and backward, median of all cases",
        ratio_to_best_peer=statistics.median(ratios),
        share_of_limit=None,
        limit=None,
        notes=f"{options.preset}'s heads, {POSITIONS} positions, {torch.get_num_threads()} threads; "
        + "; ".join(lines),
    ).show(options.json)


def _whole(length: int) -> dict[str, Kernel]:
    index = torch.arange(length)
    places = Places(index, index, None, None)
    plain = torch.compile(lambda q, k, v: attend(q, k, v, places, _scale(q)), dynamic=False)
    return {
        "ours": lambda q, k, v: attend(q, k, v, mask_for("auto", places, True, q.dtype), _scale(q)),
        "flash": _flash,
        "plain": plain,
    }


def _documents(ids_BS: torch.Tensor) -> dict[str, Kernel]:
    index = torch.arange(ids_BS.shape[1])
    places = Places(index, index, ids_BS, ids_BS)
    mask, seen = mask_for("auto", places, True), places.visible()[:, None]
    sizes = [torch.unique_consecutive(row, return_counts=True)[1].tolist() for row in ids_BS]

    def each(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        rows = []
        for row, lengths in enumerate(sizes):
            parts = zip(*(x[row : row + 1].split(lengths, dim=2) for x in (q, k, v)), strict=True)
            rows.append(torch.cat([_flash(*part) for part in parts], dim=2))
        return torch.cat(rows)

    def dense(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=_scale(q), enable_gqa=True)

    return {
        "ours": lambda q, k, v: attend(q, k, v, mask, _scale(q)),
        "flash by document": each,
        "flash, dense mask": dense,
    }


def _flash(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=_scale(q), enable_gqa=True)


def _scale(q: torch.Tensor) -> float:
    return float(q.shape[-1]) ** -0.5


def _inputs(rows: int, length: int, heads: tuple[int, int, int], dtype: torch.dtype) -> list[torch.Tensor]:
    drawn, (N, K, D) = torch.Generator().manual_seed(0), heads
    shapes = ((rows, length, n, D) for n in (N, K, K))
    return [torch.randn(s, generator=drawn).to(dtype).transpose(1, 2).requires_grad_() for s in shapes]


def _measure(
    kernels: dict[str, Kernel], inputs: list[torch.Tensor], repeats: int
) -> dict[str, tuple[tuple[float, float], float]]:
    """Return for each kernel the median seconds forward and backward, in turn with the others, and its gradients' largest error."""
    grad = torch.randn_like(inputs[0])
    exact = [x.detach().double().requires_grad_() for x in inputs]
    reference = kernels["flash" if "flash" in kernels else "flash, dense mask"]
    wanted = torch.autograd.grad(reference(*exact), exact, grad.double())
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in kernels}
    errors: dict[str, float] = {}
    for turn in range(repeats + 3):
        for name, kernel in kernels.items():
            begin = time.perf_counter()
            out = kernel(*inputs)
            middle = time.perf_counter()
            found = torch.autograd.grad(out, inputs, grad)
            if turn >= 3:
                times[name].append((middle - begin, time.perf_counter() - middle))
            else:
                pairs = zip(found, wanted, strict=True)
                errors[name] = max(float((a.double() - b).norm() / b.norm()) for a, b in pairs)
    return {
        name: ((statistics.median(f for f, _ in found), statistics.median(b for _, b in found)), errors[name])
        for name, found in times.items()
    }


if __name__ == "__main__":
    main()
