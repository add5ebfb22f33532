"""What a device is said to have and to cost: memory, nominal FLOP/s, a price, and the share of its FLOP/s that training reaches.

FLOP/s are dense ones of the makers' data sheets (NVIDIA H100, H200, B200, A100, L40S; Ada whitepaper for the RTX 4090, with
fp32 accumulation). Memory is what PyTorch finds on the device, a little below the sheet's. Prices are assumptions of
the right order, not offers: give your own with --price-per-hour.
"""

import os
from dataclasses import dataclass

from xmodel2.errors import XmodelError, nearest

GIB = 1 << 30


@dataclass(frozen=True)
class Device:
    """One kind of device."""

    name: str
    word: str
    """What its name in PyTorch contains."""
    memory: int
    """Bytes."""
    flops: float | None
    """Nominal dense bf16 FLOP/s; None if there is no data sheet, and a matrix product must be measured."""
    fp32_flops: float | None
    """The same in fp32, which PyTorch computes without matrix units unless told otherwise."""
    price: float
    """US dollars an hour: an assumption."""
    mfu: float
    """Share of the FLOP/s that training is expected to reach, if nobody measured it."""


NOMINAL_MFU = 0.45
"""An assumption for a GPU, not a measurement: full-attention FLOPs over nominal ones."""
CPU_MFU = 0.62
"""Measured in fp32: causal FLOPs over those of a matrix product, nano on two cores (benchmarks/README.md, `train_step`)."""

DEVICES = {
    device.name: device
    for device in (
        Device("h100", "H100", 79 * GIB, 989e12, 67e12, 2.50, NOMINAL_MFU),
        Device("h200", "H200", 139 * GIB, 989e12, 67e12, 3.50, NOMINAL_MFU),
        Device("b200", "B200", 178 * GIB, 2250e12, 75e12, 5.00, NOMINAL_MFU),
        Device("a100-80gb", "A100", 79 * GIB, 312e12, 19.5e12, 1.60, NOMINAL_MFU),
        Device("a100-40gb", "A100", 39 * GIB, 312e12, 19.5e12, 1.20, NOMINAL_MFU),
        Device("l40s", "L40S", 44 * GIB, 362e12, 91.6e12, 1.00, NOMINAL_MFU),
        Device("rtx-4090", "4090", 23 * GIB, 165e12, 82.6e12, 0.40, NOMINAL_MFU),
        Device("cpu", "cpu", os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), None, None, 0.10, CPU_MFU),
    )
}


def cpu_mfu(rate: float, fp32_rate: float) -> float:
    """Return the MFU that training reaches on a CPU whose products give ``rate``: faster ones leave what lies between as it is.

    >>> round(cpu_mfu(6.8, 1.0), 2)  # bf16 on a CPU with AMX; 0.21 was measured
    0.19
    """
    return 1 / (1 + (1 / CPU_MFU - 1) * rate / fp32_rate)


def find_device(name: str) -> Device:
    """Return the device of a name. Raises `XmodelError` with the nearest name if there is none."""
    found = DEVICES.get(name.lower())
    if found is None:
        raise XmodelError(
            f"--device {name}: not known; allowed: {', '.join(DEVICES)}.{nearest(name.lower(), DEVICES)}"
            " For another, give the most similar one with --mfu and --price-per-hour"
        )
    return found


_VARIANTS: dict[str, tuple[float, float] | None] = {
    "H100 PCIe": (756e12, 51e12),
    "H100 NVL": (835e12, 60e12),
    "H200 NVL": (835e12, 60e12),
    "GB200": None,
    "4090 D": None,
    "Laptop": None,
}
"""Devices with a word of the table in their name and other FLOP/s (bf16, fp32), of which None stand in it."""


def nominal_flops_of(name: str, precision: str = "bf16") -> float | None:
    """Return the data sheet's FLOP/s of a device by its name in PyTorch; None if it is not in the table.

    >>> nominal_flops_of("NVIDIA H200"), nominal_flops_of("NVIDIA H100 PCIe", "fp32")
    (989000000000000.0, 51000000000000.0)
    """
    found: tuple[float | None, float | None] = (None, None)
    if variant := next((word for word in _VARIANTS if word in name), None):
        found = _VARIANTS[variant] or found
    elif device := next((device for device in DEVICES.values() if device.word in name), None):
        found = device.flops, device.fp32_flops
    return found[precision == "fp32"]
