"""Keyed pseudo-random permutations of range(n), one element at a time: no list of n, for any n up to 2**50.

A Feistel network on pairs (left, right) of a domain just above n; what falls outside range(n) is sent through again
("cycle walking"), which is rare, and keeps it a bijection.
"""

import hashlib

import numpy as np

from xmodel2.data.hashing import scrambled

_ROUNDS = 6
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def permuted(index: np.ndarray, size: np.ndarray, key: np.ndarray) -> np.ndarray:
    """Return P(index), int64, where P is the permutation of range(size) that ``key`` picks.

    All three are integer arrays of one shape, 0 <= index < size; elements may have different sizes and keys.
    """
    size, key = size.astype(np.uint64), key.astype(np.uint64)
    a = np.sqrt(size.astype(np.float64)).astype(np.uint64) + np.uint64(1)
    b = (size + a - np.uint64(1)) // a
    found = _network(index.astype(np.uint64), a, b, key)
    while (outside := found >= size).any():
        found[outside] = _network(found[outside], a[outside], b[outside], key[outside])
    return found.astype(np.int64)


def _network(x: np.ndarray, a: np.ndarray, b: np.ndarray, key: np.ndarray) -> np.ndarray:
    """Permute range(a * b)."""
    left, right = x % a, x // a
    for _ in range(_ROUNDS // 2):
        key = key + _GOLDEN
        left = (left + _mix(right + key)) % a
        key = key + _GOLDEN
        right = (right + _mix(left + key)) % b
    return right * a + left


def _mix(x: np.ndarray) -> np.ndarray:
    """Return 53 well-mixed bits: few enough that adding to them does not overflow."""
    return scrambled(x) >> np.uint64(11)


def epoch_keys(seed: int, source: str, epoch: int) -> tuple[int, int]:
    """Return two independent 64-bit numbers for an epoch of a source."""
    digest = hashlib.blake2b(f"{seed}/{epoch}/{source}".encode(), digest_size=16).digest()
    return int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:], "big")
