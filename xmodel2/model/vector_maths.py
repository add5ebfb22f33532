"""Elementwise functions of a CPU that give the same bits each time, a process's first call included.

PyTorch hands sqrt, cos, exp and others to MKL, each thread its part. MKL picks their code when they are first called; if two
threads do that at once, one may get code of low accuracy for that call (pytorch/pytorch#188792; MKL before 2025.0): of the cosines
of rotary positions in 0.6% of processes here, of square roots in 8%. A run that was resumed then departed from the undisturbed one.
"""

import functools

import torch

_FUNCTIONS = ("cos", "sin", "exp", "expm1", "log", "log1p", "log2", "sqrt", "rsqrt", "tanh", "erf", "erfc", "erfinv")


@functools.cache
def settle() -> None:
    """Call each function once in this thread alone, which a tensor of one element does; once a process, in microseconds.

    To be called before the first step and not at import: PyTorch reads its allocator's settings at its first tensor.
    """
    for dtype in (torch.float32, torch.float64):
        one = torch.full((1,), 0.5, dtype=dtype, device="cpu")
        for name in _FUNCTIONS:
            getattr(torch, name)(one)
