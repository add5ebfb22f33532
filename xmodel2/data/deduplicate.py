"""Signatures of all documents become the list of those that go: copies, exact and near, of documents that stay.

    signatures -> one table a band: documents with an equal band -> pairs, checked by the whole signature
               -> connected components -> of each, the first document stays

Documents are numbered in order of preference: held out before training, earlier sources before later ones. A band is a
task of its own, so that tables are built side by side; a task holds some 70 bytes a document, the signatures stay on disk.
"""

from collections.abc import Callable
from itertools import combinations, pairwise

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from xmodel2.data.hashing import mix
from xmodel2.data.signatures import hamming
from xmodel2.recipe.preparation import DeduplicateSettings

Check = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Tells for documents a and b (int64 [pairs] each) which pairs are near-duplicates (bool [pairs])."""
_ROUNDS = 1024  # documents of one bucket that others are compared with, before the rest of it is let go


def simhash_tables(max_hamming: int) -> list[np.uint64]:
    """Return bit masks such that two SimHashes within ``max_hamming`` bits agree under at least one of them.

    The 64 bits are cut into max_hamming + 3 blocks: at most max_hamming of them differ, so some three agree (Manku et al. 2007).
    """
    blocks = max_hamming + 3
    edges = [round(64 * block / blocks) for block in range(blocks + 1)]
    parts = [((1 << (high - low)) - 1) << low for low, high in pairwise(edges)]
    return [np.uint64(sum(chosen)) for chosen in combinations(parts, 3)]


def tables(settings: DeduplicateSettings) -> list[tuple[str, int]]:
    """Return (method, number) of every table that the settings ask for."""
    used = {*settings.text, *settings.sft}
    counts = {"exact": 1, "minhash": settings.bands, "simhash": len(simhash_tables(settings.max_hamming))}
    return [(method, number) for method in counts if method in used for number in range(counts[method])]


def minhash_keys(minhash: np.ndarray, band: int, rows: int) -> np.ndarray:
    """Return uint64 [documents], a hash of one band of the signatures."""
    key = np.full(len(minhash), band, dtype=np.uint64)
    for column in range(band * rows, (band + 1) * rows):
        key = mix(key + minhash[:, column].astype(np.uint64) + np.uint64(1))
    return key


def jaccard_check(minhash: np.ndarray, min_jaccard: float) -> Check:
    """Return a check by the share of equal positions; ``minhash`` is indexed by document."""

    def check(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        good = np.empty(len(a), dtype=bool)
        for start in range(0, len(a), 1 << 14):
            part = slice(start, start + (1 << 14))
            good[part] = (minhash[a[part]] == minhash[b[part]]).mean(axis=1) >= min_jaccard
        return good

    return check


def hamming_check(simhash: np.ndarray, max_hamming: int) -> Check:
    """Return a check by the number of differing bits; ``simhash`` is indexed by document."""
    return lambda a, b: hamming(simhash[a], simhash[b]) <= max_hamming


def pairs(keys: np.ndarray, check: Check | None = None) -> np.ndarray:
    """Return int64 [pairs, 2]: (earlier document, later document) with equal keys that pass the check.

    In a bucket of equal keys, everything is compared with its first document, then what is left over with the first of
    that, and so on, all buckets at once; after 1,024 of these the rest of a bucket is let go.
    """
    order = np.argsort(keys, kind="stable")
    ranked = keys[order]
    same = np.concatenate(([False], ranked[1:] == ranked[:-1]))
    bucket = np.cumsum(~same)
    found = []
    for _ in range(_ROUNDS):
        again = np.concatenate(([False], bucket[1:] == bucket[:-1]))
        starts = np.maximum.accumulate(np.where(again, 0, np.arange(len(bucket))))
        [rest] = np.nonzero(again)
        if not len(rest):
            break
        first, later = order[starts[rest]], order[rest]
        good = np.ones(len(rest), dtype=bool) if check is None else check(first, later)
        found.append(np.stack([first[good], later[good]], axis=1))
        order, bucket = later[~good], bucket[rest[~good]]
    return np.concatenate(found) if found else np.empty((0, 2), dtype=np.int64)


def copies(documents: int, found: np.ndarray) -> np.ndarray:
    """Return int64 [documents]: the document that stays for each; itself, unless an earlier one is connected to it."""
    graph = coo_array((np.ones(len(found), dtype=bool), (found[:, 0], found[:, 1])), shape=(documents, documents))
    _, label = connected_components(graph, directed=False)
    first = np.full(label.max(initial=-1) + 1, documents, dtype=np.int64)
    np.minimum.at(first, label, np.arange(documents))
    return first[label]
