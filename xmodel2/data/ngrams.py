"""Text becomes hashes of its word n-grams: the one notion of overlap behind near-duplicates and decontamination.

    "The cat, 北京" -> words  the | cat | 北 | 京 -> 64-bit hash of each -> hash of every n in a row

A word is a run of letters and digits, lower-cased; a Han, kana or Hangul character is a word of its own. Punctuation and
white space do not count, so that two copies that differ in layout have the same n-grams. All of it is numpy on code
points: no word is ever a Python object.
"""

from collections.abc import Iterator
from functools import lru_cache

import numpy as np

from xmodel2.data.hashing import mix

_CODE_POINTS = 0x110000
_CHUNK = 1 << 20  # characters hashed at once, so that a document of any length needs little memory
_WORD, _NGRAM = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD1342543DE82EF95)  # odd multipliers
_CASED = ((0, 0x2D00), (0xA640, 0xA800), (0xFF21, 0xFF3B), (0x10400, 0x10600), (0x1E900, 0x1E922))  # scripts with case
_ALONE = ((0x3040, 0x3100), (0x3400, 0x4DC0), (0x4E00, 0xA000), (0xAC00, 0xD7B0), (0xF900, 0xFB00), (0x20000, 0x32000))


def word_hashes(text: str) -> np.ndarray:
    """Return uint64 [words], one hash a word.

    >>> bool((word_hashes("The cat, the HAT") == word_hashes("the cat!  THE\\nhat")).all())
    True
    >>> len(word_hashes("北京 is big"))
    4
    """
    parts = [_hash_words(chunk) for chunk in _chunks(text)]
    return np.concatenate(parts) if parts else np.empty(0, dtype=np.uint64)


def ngram_hashes(words: np.ndarray, n: int) -> np.ndarray:
    """Return uint64 [words - n + 1], a hash of every n words in a row (empty if there are fewer)."""
    count = len(words) - n + 1
    if count <= 0:
        return np.empty(0, dtype=np.uint64)
    total = np.zeros(count, dtype=np.uint64)
    for shift in range(n):
        total *= _NGRAM
        total += words[shift : shift + count]
    return mix(total)


def shingles(text: str, n: int) -> np.ndarray:
    """Return the n-gram hashes of a text in order; of a text of fewer than n words, the one of all its words."""
    words = word_hashes(text)
    return ngram_hashes(words, min(n, len(words)) or 1)


def _chunks(text: str) -> Iterator[str]:
    start = 0
    while start < len(text):
        stop = start + _CHUNK
        if stop < len(text):  # not inside a word, if there is any space to cut at
            space = max(text.rfind(" ", start, stop), text.rfind("\n", start, stop))
            stop = space if space > start else stop
        yield text[start:stop]
        start = stop


def _hash_words(text: str) -> np.ndarray:
    folded, kinds = _tables()
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    kind = kinds[points]
    inside = kind > 0
    before = np.concatenate(([0], kind[:-1])).astype(np.uint8)
    first = inside & ((before != kind) | (kind == 2))
    [starts] = np.nonzero(first)
    if not len(starts):
        return np.empty(0, dtype=np.uint64)
    position = np.arange(len(points)) - starts[np.maximum(np.cumsum(first) - 1, 0)]
    terms = np.where(inside, folded[points] * _powers(int(position[inside].max()) + 1)[position * inside], 0)
    return mix(np.add.reduceat(terms.astype(np.uint64), starts))


@lru_cache(maxsize=1)
def _tables() -> tuple[np.ndarray, np.ndarray]:
    """Return, by code point, the hashed lower-case form (uint64) and the kind: 0 no word, 1 in a word, 2 a word alone."""
    kinds = np.fromiter((chr(point).isalnum() for point in range(_CODE_POINTS)), np.uint8, _CODE_POINTS)
    for low, high in _ALONE:
        kinds[low:high] *= 2
    folded = np.arange(_CODE_POINTS, dtype=np.uint64)
    for low, high in _CASED:  # a lower-case form of several characters keeps its first
        for point in range(low, high):
            folded[point] = ord(chr(point).lower()[0])
    return mix(folded + np.uint64(1)), kinds


@lru_cache(maxsize=4)
def _power_table(size: int) -> np.ndarray:
    powers = np.full(size, _WORD, dtype=np.uint64)
    powers[0] = 1
    return np.cumprod(powers, dtype=np.uint64)


def _powers(size: int) -> np.ndarray:
    return _power_table(1 << max(10, (size - 1).bit_length()))
