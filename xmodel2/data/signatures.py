"""A document becomes what near-duplicates have in common: a content digest, a MinHash signature, a SimHash.

    text -> shingles (hashes of word n-grams) -> MinHash: for each of bands x rows hash functions, the least value
                                              -> SimHash: for each of 64 bits, the majority of the shingles

Equal positions of two MinHash signatures estimate the Jaccard similarity of the sets of shingles (Broder 1997); the Hamming
distance of two SimHashes falls with their cosine similarity (Charikar 2002).
"""

import hashlib
import json
from dataclasses import dataclass

import numpy as np

from xmodel2.data.document import Document, document_text
from xmodel2.data.hashing import mix
from xmodel2.data.ngrams import shingles
from xmodel2.recipe.preparation import DeduplicateSettings

UNSIGNED = (1 << 32) - 1
"""Every value of the MinHash signature of a text without a word; its SimHash is 0."""
_SEED = 20241219
_CHUNK = 512  # shingles hashed at once: with 112 functions, a quarter of a megabyte that stays in the cache


@dataclass
class Signatures:
    """Of some documents, in their order; ``None`` where the method is not used."""

    digests: np.ndarray
    """uint64 [documents, 2], of the content (kind, roles and text)."""
    minhash: np.ndarray | None
    """uint32 [documents, bands * rows]."""
    simhash: np.ndarray | None
    """uint64 [documents]."""


class Signer:
    """Collects the signatures of documents one by one."""

    def __init__(self, settings: DeduplicateSettings, methods: list[str]) -> None:
        self._settings, self._methods = settings, methods
        self._digests: list[bytes] = []
        self._minhashes: list[np.ndarray] = []
        self._simhashes: list[int] = []
        self._functions = hash_functions(settings.bands * settings.rows)

    def add(self, document: Document, digest: bytes) -> None:
        """Add a document with its `content_digest`."""
        self._digests.append(digest)
        text = document_text(document) if {"minhash", "simhash"} & set(self._methods) else ""
        if "minhash" in self._methods:
            self._minhashes.append(minhash(shingles(text, self._settings.ngram), self._functions))
        if "simhash" in self._methods:
            self._simhashes.append(simhash(shingles(text, self._settings.simhash_ngram)))

    def finish(self) -> Signatures:
        """Return the signatures of all documents added."""
        count, width = len(self._digests), self._settings.bands * self._settings.rows
        digests = np.frombuffer(b"".join(self._digests), dtype="<u8").reshape(count, 2)
        used = set(self._methods)
        return Signatures(
            digests,
            np.array(self._minhashes, dtype=np.uint32).reshape(count, width) if "minhash" in used else None,
            np.array(self._simhashes, dtype=np.uint64) if "simhash" in used else None,
        )


def content_digest(document: Document) -> bytes:
    """Return 16 bytes that equal documents have in common: of the text, or of roles and contents in order."""
    if "text" in document:
        content = document["text"]
    else:
        content = json.dumps([[message["role"], message["content"]] for message in document["messages"]])
    return hashlib.blake2b(content.encode("utf-8"), digest_size=16).digest()


def hash_functions(count: int) -> np.ndarray:
    """Return uint32 [count, 2], the same at every call: odd multipliers and offsets, modulo 2**32."""
    functions = np.random.default_rng(_SEED).integers(0, 1 << 32, (count, 2), dtype=np.uint32)
    functions[:, 0] |= np.uint32(1)
    return functions


def minhash(hashes: np.ndarray, functions: np.ndarray) -> np.ndarray:
    """Return uint32 [functions]: the least value of each function over uint64 shingle hashes (their upper halves)."""
    upper = (hashes >> np.uint64(32)).astype(np.uint32)
    multipliers, offsets = functions[:, :1], functions[:, 1:]
    least = np.full(len(functions), UNSIGNED, dtype=np.uint32)
    for start in range(0, len(upper), _CHUNK):
        values = multipliers * upper[start : start + _CHUNK]
        values += offsets
        np.minimum(least, values.min(axis=1), out=least)
    return least


def simhash(hashes: np.ndarray) -> int:
    """Return the 64-bit SimHash of uint64 shingle hashes; one that stands there twice has twice the weight."""
    ones = np.zeros(64, dtype=np.int64)
    for start in range(0, len(hashes), 1 << 16):
        chunk = mix(hashes[start : start + (1 << 16)])
        ones += np.unpackbits(chunk.view(np.uint8).reshape(-1, 8), axis=1).sum(axis=0, dtype=np.int64)
    return int(np.packbits(ones * 2 > len(hashes)).view("<u8")[0])


def hamming(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the number of differing bits of uint64 values, element by element."""
    return np.bitwise_count(a ^ b)
