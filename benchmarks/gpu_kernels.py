"""A GPU's own kernels at the model's shapes: milliseconds beside torch.compile's of the same function, and beside memory's.

    python -m benchmarks.gpu_kernels [--quick] [--json] [--positions 32768] [--preset xl]

Forward and backward of what lies between the products of a block, in bf16: heads split, rotated and joined; SwiGLU; the norm with
the gradient that goes past it. Peers are the decoder's own operations for other devices, compiled. Both are replayed as CUDA
graphs, since a block's kernels are shorter than their launch from Python. The limit is the time in which a copy moves as many bytes
as are read and written once. Each is first compared with the same in fp32.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from benchmarks.harness import Result, argument_parser, gpu_seconds, machine
from xmodel2.model import fused_layout, gpu_kernels
from xmodel2.model.decoder import rotary, rotate, scaled
from xmodel2.recipe import ModelSettings, recipe_from_dict

Tensors = tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class Case:
    """One function by our kernels and by operations, of the same inputs, and what bytes it moves with its gradient."""

    ours: Callable[..., Tensors]
    plain: Callable[..., Tensors]
    inputs: Tensors
    bytes: int


def main() -> None:
    """Measure and print."""
    parser = argument_parser(__doc__, "a quarter of the positions")
    parser.add_argument("--positions", type=int, default=32768)
    parser.add_argument("--preset", default="xl")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("gpu_kernels: PyTorch sees no CUDA GPU here, and these are a GPU's kernels")
    positions = options.positions // (4 if options.quick else 1)
    model = recipe_from_dict({"model": {"preset": options.preset}}).model
    speed = _copy_speed()
    ours, peer, limit, lines = 0.0, 0.0, 0.0, []
    for name, case in _cases(model, positions).items():
        error = _error(case)
        times = [
            gpu_seconds(_both(run, case.inputs)) * 1e3 for run in (case.ours, torch.compile(case.plain, dynamic=False))
        ]
        least = case.bytes / speed * 1e3
        ours, peer, limit = ours + times[0], peer + times[1], limit + least
        lines.append(f"{name}: {times[0]:.3f} ms, compiled {times[1]:.3f}, memory {least:.3f}, error {error:.1e}")
        print(lines[-1], flush=True)
    Result(
        name="gpu_kernels",
        machine=machine(),
        ours=ours,
        peers={"torch.compile": peer},
        unit="ms, forward and backward",
        ratio_to_best_peer=peer / ours,
        share_of_limit=limit / ours,
        limit=limit,
        notes=f"{options.preset}, {positions} positions, bf16; copies {speed / 1e12:.2f} TB/s; " + "; ".join(lines),
    ).show(options.json)


def _cases(model: ModelSettings, positions: int) -> dict[str, Case]:
    K, D, H = model.num_key_value_heads, model.head_dim, model.hidden_size
    G, part, groups = model.num_attention_heads // K, fused_layout.gate_up_rows(model)[0], fused_layout.groups(model)
    rows = positions // 4096 or 1
    length = positions // rows
    angles = rotary(torch.arange(length, device="cuda")[None], D, model.rope_theta)
    factor = torch.tensor(0.2, device="cuda")

    def split(qkv: torch.Tensor) -> Tensors:
        return gpu_kernels.split_heads(qkv, angles[0][0, 0], angles[1][0, 0], factor)

    def plain_split(qkv: torch.Tensor) -> Tensors:
        qkv = qkv.permute(0, 2, 3, 1, 4)
        q, k = rotate(qkv[:, :, :G].flatten(1, 2), angles), rotate(qkv[:, :, G], angles)
        return tuple(x.transpose(1, 2).contiguous() for x in (q, k, scaled(qkv[:, :, G + 1], factor)))

    def plain_swiglu(gate_up: torch.Tensor) -> Tensors:
        gate, up = gate_up.unbind(-2)
        return (scaled(F.silu(gate) * up, factor),)

    def plain_norm(x: torch.Tensor, weight: torch.Tensor) -> Tensors:
        return x.clone(), gpu_kernels.normed(x, weight, 1e-5)[0]

    def norm(x: torch.Tensor, weight: torch.Tensor) -> Tensors:
        passed, normed = gpu_kernels.norm(x, weight, 1e-5)
        return passed.clone(), normed

    fused = _drawn(rows, length, K, G + 2, D)
    gate_up = _drawn(rows, length, groups, 2, part)
    x = _drawn(rows, length, H)
    weight = torch.rand(H, device="cuda", requires_grad=True)
    return {
        "split_heads": Case(split, plain_split, (fused,), 2 * 4 * fused.numel()),
        "swiglu": Case(
            lambda pair: (gpu_kernels.swiglu(pair, factor),), plain_swiglu, (gate_up,), 2 * 4 * gate_up.numel()
        ),
        # Read, copied and normed; two gradients and itself read, one written.
        "norm": Case(torch.compile(norm, dynamic=False), plain_norm, (x, weight), 2 * 7 * x.numel()),
    }


def _drawn(*shape: int) -> torch.Tensor:
    drawn = torch.Generator("cuda").manual_seed(0)
    return torch.randn(shape, device="cuda", dtype=torch.bfloat16, generator=drawn).requires_grad_()


def _both(run: Callable[..., Tensors], inputs: Tensors) -> Callable[[], None]:
    """Return the replay of a function and its gradients."""
    grads = [torch.randn_like(output) for output in run(*inputs)]
    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # compiled and warm before the capture
        for _ in range(3):
            torch.autograd.grad(run(*inputs), inputs, grads)
    torch.cuda.current_stream().wait_stream(stream)
    with torch.cuda.graph(graph):
        torch.autograd.grad(run(*inputs), inputs, grads)
    return graph.replay


def _error(case: Case) -> float:
    """Return the largest relative error of outputs and gradients against the operations in fp32."""
    wide = tuple(x.detach().float().requires_grad_() for x in case.inputs)
    wanted, found = case.plain(*wide), case.ours(*case.inputs)
    grads = [torch.randn_like(x) for x in found]
    by_wanted = torch.autograd.grad(wanted, wide, [grad.float() for grad in grads])
    by_found = torch.autograd.grad(found, case.inputs, grads)
    pairs = zip((*found, *by_found), (*wanted, *by_wanted), strict=True)
    error = max(float((a.detach().float() - b.detach()).norm() / b.detach().norm()) for a, b in pairs)
    if not error < 0.01:
        raise SystemExit(f"gpu_kernels: wrong by {error:.1e}")
    return error


def _copy_speed() -> float:
    """Return bytes/s, read and written, of a large copy on the device."""
    source = torch.randn(1 << 29, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.nbytes / gpu_seconds(lambda: target.copy_(source))


if __name__ == "__main__":
    main()
