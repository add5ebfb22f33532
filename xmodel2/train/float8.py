"""Matrix products of the blocks in float8, through torchao: tensorwise scales, found anew for every product.

Weights stay the same fp32 parameters under the same names; only the products' operands are rounded: e4m3 for activations and
weights, e5m2 for gradients. Casting costs a pass over each operand, which pays only if `torch.compile` fuses it with what comes
before and the product is large, so small matrices are left in bf16. The head is in no block and stays as it is.
"""

import torch
from torch import nn

from xmodel2.errors import XmodelError

CAPABILITY = (8, 9)
"""First CUDA compute capability with float8 products (Ada, Hopper)."""
SMALLEST = 1024
"""Sides up to this gain nothing on an H100 (torchao's filter for tensorwise scales); both, as the backward products swap them."""


def apply_float8(model: nn.Module, device: torch.device) -> int:
    """Convert the blocks' large linear layers in place, before compiling and sharding; return how many.

    Raises `XmodelError` if the device cannot, torchao is absent, or no layer is large enough.
    """
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < CAPABILITY:
        raise XmodelError(
            "train.float8 = true: float8 products need a CUDA GPU of compute capability 8.9 or later (Ada, Hopper,"
            f" Blackwell), and training runs on {_describe(device)}; set train.float8 = false"
        )
    try:
        from torchao.float8 import Float8LinearConfig, convert_to_float8_training
    except ImportError as error:
        raise XmodelError(
            f"train.float8 = true: torchao cannot be imported ({error}); install it with pip install 'xmodel2[gpu]',"
            " or set train.float8 = false"
        ) from None
    blocks = model.get_submodule("layers")
    count = sum(is_worth_converting(module) for module in blocks.modules())
    if count == 0:
        raise XmodelError(
            f"train.float8 = true: no matrix of this model has both sides above {SMALLEST} and multiples of 16, so nothing"
            " would become faster; set train.float8 = false"
        )
    convert_to_float8_training(
        blocks,
        config=Float8LinearConfig.from_recipe_name("tensorwise"),
        module_filter_fn=lambda module, name: is_worth_converting(module),
    )
    return count


def is_worth_converting(module: nn.Module) -> bool:
    """Tell whether a module is a linear layer that float8 can compute (sides are multiples of 16) and makes faster."""
    return isinstance(module, nn.Linear) and all(
        side > SMALLEST and side % 16 == 0 for side in (module.in_features, module.out_features)
    )


def _describe(device: torch.device) -> str:
    if device.type != "cuda":
        return f"the {device.type}"
    major, minor = torch.cuda.get_device_capability(device)
    return f"{torch.cuda.get_device_name(device)}, of {major}.{minor}"
