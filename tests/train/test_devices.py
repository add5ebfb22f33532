"""The table of devices: by name, by PyTorch's name, and what a misspelt one is told."""

import pytest

from xmodel2.errors import XmodelError
from xmodel2.train.devices import DEVICES, find_device, nominal_flops_of


def test_a_device_is_found_by_name_in_any_case() -> None:
    assert find_device("H200").memory > find_device("h100").memory
    assert find_device("cpu").flops is None


def test_an_unknown_device_is_told_the_nearest() -> None:
    with pytest.raises(XmodelError, match=r"--device h20: not known.*Did you mean 'h200'\?"):
        find_device("h20")


@pytest.mark.parametrize(
    ("name", "flops"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H100 NVL", 835e12),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA A100-SXM4-40GB", 312e12),
        ("NVIDIA GeForce RTX 4090", 165e12),
        ("NVIDIA T4", None),
    ],
)
def test_nominal_flops_by_the_name_that_pytorch_gives(name: str, flops: float | None) -> None:
    assert nominal_flops_of(name) == flops
    in_fp32 = nominal_flops_of(name, "fp32")
    assert (in_fp32 is None) == (flops is None)
    assert in_fp32 is None or in_fp32 < 0.6 * (flops or 0)


def test_every_device_has_what_a_plan_needs() -> None:
    for name, device in DEVICES.items():
        assert name == device.name == name.lower()
        assert device.memory > 1 << 30
        assert 0 < device.mfu < 1
        assert device.price > 0
