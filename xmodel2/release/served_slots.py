"""How many sequences llama.cpp works on at once if nobody says: as many as pay, and as memory holds whole contexts of."""

import os
from pathlib import Path
from typing import Any

MOST_SLOTS = 16
"""More answers at once are faster still where they are asked for whole, and slower where they are streamed (docs/chat.md)."""
_MEMORY_SHARE = 4
"""One part in so many of the memory that is free."""


def default_slots(slot_bytes: int) -> int:
    """Return 1 to `MOST_SLOTS`, where one takes so many bytes."""
    room = available_memory() // _MEMORY_SHARE
    return max(1, min(MOST_SLOTS, room // max(1, slot_bytes)))


def token_bytes(metadata: dict[str, Any]) -> int:
    """Return the bytes of a token's keys and values, in 16 bits, by a GGUF file's metadata; what it does not say counts as 0."""
    architecture = metadata.get("general.architecture", b"").decode(errors="replace")

    def number(key: str, default: int = 0) -> int:
        value = metadata.get(f"{architecture}.{key}", default)
        return int(value) if isinstance(value, (int, float)) else default  # of a list, a value a layer, there is no one

    heads = number("attention.head_count", 1) or 1
    width = number("embedding_length") // heads
    both = number("attention.key_length", width) + number("attention.value_length", width)
    return 2 * number("block_count") * number("attention.head_count_kv", heads) * both


def available_memory() -> int:
    """Return the bytes of memory that processes can still take; where the system does not say, half of what there is."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
