"""The family of sizes: one table from which every recipe picks (Table 1 for `xl`; the smaller ones from the authors' follow-up).

All share head_dim 64 except `pico`, which is ours: small enough that the demo trains on two CPU cores in minutes.
"""

from typing import Any


def _size(hidden: int, layers: int, heads: int, kv_heads: int, intermediate: int) -> dict[str, Any]:
    return {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "intermediate_size": intermediate,
    }


PRESETS: dict[str, dict[str, Any]] = {
    "pico": _size(192, 6, 3, 1, 512),
    "nano": _size(256, 8, 4, 1, 640),
    "micro": _size(384, 12, 6, 1, 960),
    "tiny": _size(512, 18, 8, 4, 1280),
    "small": _size(576, 30, 9, 3, 1440),
    "medium": _size(960, 32, 15, 5, 2400),
    "xl": _size(1536, 48, 24, 8, 3840),
}
