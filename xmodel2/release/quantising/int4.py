"""Weights of four bits: two in a byte, with a scale and a zero for each group of a row, the two of which are bf16.

    w ~ q * scale + zero, q in -8..7        plain: torchao's Int4Tensor, which safetensors files hold
                                            on a CPU: torchao's Int4OpaqueTensor, the same numbers as PyTorch's kernel wants them

torchao 0.18 keeps these apart: it has kernels for the plain layout on some GPUs only, and its CPU layout, which differs
between processors, is not written to safetensors (https://github.com/pytorch/ao/issues/3800). So files are plain, and
`for_cpu` moves a loaded model to the CPU layout, which changes no number.
"""

import torch
from torch import nn
from torchao.prototype.quantization.int4 import Int4OpaqueTensor
from torchao.quantization import Int4Tensor
from torchao.quantization.quant_primitives import _choose_qparams_and_quantize_affine_hqq


def quantised(weight_NK: torch.Tensor, group_size: int) -> Int4Tensor:
    """Return a matrix in four bits; scales and zeros by HQQ, then every weight to the nearest of the 16 values."""
    N, K = weight_NK.shape
    weight_NK = weight_NK.float()
    _, scale, zero, _ = _choose_qparams_and_quantize_affine_hqq(
        weight_NK, nbits=4, group_size=group_size, axis=1, compute_dtype=torch.float32, device="cpu"
    )
    # HQQ divides by the range of a group: one of equal weights has none, and is its zero.
    groups_NGk = weight_NK.view(N, K // group_size, group_size)
    flat = groups_NGk.amax(-1) == groups_NGk.amin(-1)
    scale_NG = scale.view(N, -1).masked_fill(flat, 1.0).bfloat16()
    zero_NG = torch.where(flat, groups_NGk[..., 0], zero.view(N, -1)).bfloat16()
    values = ((groups_NGk - zero_NG[..., None].float()) / scale_NG[..., None].float()).round().clamp(-8, 7)
    return Int4Tensor(
        qdata=_pack(values.to(torch.int8).view(N, K)),
        scale=scale_NG.t().contiguous(),
        zero_point=zero_NG.t().contiguous(),
        block_size=[1, group_size],
        shape=torch.Size((N, K)),
    )


def dequantised(tensor: Int4Tensor) -> torch.Tensor:
    """Return the matrix in fp32."""
    N, K = tensor.shape
    groups_NGk = unpacked(tensor.qdata).view(N, -1, tensor.block_size[-1]).float()
    scale, zero = (part.t().float()[..., None] for part in (tensor.scale, tensor.zero_point))
    return (groups_NGk * scale + zero).view(N, K)


def _pack(values_NK: torch.Tensor) -> torch.Tensor:
    return (values_NK[:, ::2] & 0xF) | (values_NK[:, 1::2] << 4)


def unpacked(packed: torch.Tensor) -> torch.Tensor:
    """Return the values (int8, -8..7) of a packed matrix [N, K / 2]: the low half of a byte comes first.

    >>> unpacked(torch.tensor([[0x7F, -0x80]], dtype=torch.int8))
    tensor([[-1,  7,  0, -8]], dtype=torch.int8)
    """
    return torch.stack([(packed << 4) >> 4, packed >> 4], -1).view(len(packed), -1)


def for_cpu(model: nn.Module) -> nn.Module:
    """Give every plain int4 matrix of a loaded model the layout that PyTorch's CPU kernel takes, and return the model."""
    dtype = next(p.dtype for p in model.parameters() if type(p.data) is torch.Tensor)
    for module in model.modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, Int4Tensor):
            module.weight = nn.Parameter(_opaque(weight, dtype), requires_grad=False)
    return model


def _opaque(weight: Int4Tensor, dtype: torch.dtype) -> Int4OpaqueTensor:
    values = unpacked(weight.qdata).int() + 8
    return Int4OpaqueTensor(
        qdata=torch.ops.aten._convert_weight_to_int4pack_for_cpu(values, 1),
        scale_and_zero=torch.stack([weight.scale, weight.zero_point], -1).to(dtype).contiguous(),
        block_size=list(weight.block_size),
        shape=weight.shape,
    )
