"""How many answers llama.cpp works on at once by default."""

import pytest

from xmodel2.release import served_slots
from xmodel2.release.served_slots import MOST_SLOTS, available_memory, default_slots, token_bytes

LARGE = {
    "general.architecture": b"granite",
    "granite.block_count": 48,
    "granite.embedding_length": 1536,
    "granite.attention.head_count": 24,
    "granite.attention.head_count_kv": 8,
}


def test_a_slot_takes_a_contexts_keys_and_values() -> None:
    assert 4096 * token_bytes(LARGE) == 48 * 8 * (64 + 64) * 2 * 4096
    wider = {**LARGE, "granite.attention.key_length": 128}
    assert 4096 * token_bytes(wider) == 48 * 8 * (128 + 64) * 2 * 4096


@pytest.mark.parametrize(("free", "slots"), [(64e9, MOST_SLOTS), (8e9, 4), (1e9, 1), (0, 1)])
def test_slots_are_as_many_as_a_part_of_memory_holds(monkeypatch: pytest.MonkeyPatch, free: float, slots: int) -> None:
    monkeypatch.setattr(served_slots, "available_memory", lambda: int(free))
    assert default_slots(4096 * token_bytes(LARGE)) == slots


def test_a_file_that_says_little_gets_them_all() -> None:
    assert default_slots(4096 * token_bytes({})) == MOST_SLOTS
    assert 1 * token_bytes({**LARGE, "granite.attention.head_count_kv": [8] * 48}) > 0


def test_there_is_memory_here() -> None:
    assert available_memory() > 1e6
