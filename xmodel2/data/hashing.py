"""Bits of 64-bit integers mixed by the finaliser of splitmix64, for hashes and permutations alike."""

import numpy as np


def scrambled(values: np.ndarray) -> np.ndarray:
    """Return uint64 values whose upper half depends on every bit of the input: the finaliser but for its last step."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    return (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)


def mix(values: np.ndarray) -> np.ndarray:
    """Return uint64 values whose every bit depends on every bit of the input."""
    values = scrambled(values)
    return values ^ (values >> np.uint64(31))
