"""Near-duplicate detection: recall and precision at known edits and against exhaustive Jaccard, and signing speed.

python -m benchmarks.deduplicate [--quick] [--json] [--data FILE ...]

Documents are edited copies of each other: a share of words is replaced, left out or put in at random. A copy counts as
found if it is connected to its original. A pair that is found is wrong if it is no copy and has less than half of its
shingles (of SimHash: of three words) in common. Speed: MinHash of 5-word shingles, 112 hashes, beside datatrove's and rensa's.
"""

import random
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.sparse import csr_array

from benchmarks.harness import Result, argument_parser, interleaved, machine
from xmodel2.data.deduplicate import copies, hamming_check, jaccard_check, minhash_keys, pairs, simhash_tables
from xmodel2.data.embedded import embedded_corpus
from xmodel2.data.ngrams import shingles
from xmodel2.data.read import document_text, read_documents
from xmodel2.data.signatures import hash_functions, minhash, simhash
from xmodel2.recipe.preparation import DeduplicateSettings

EDITS = (0.0, 0.05, 0.2, 0.4)
SETTINGS = DeduplicateSettings()
BANDS, ROWS = SETTINGS.bands, SETTINGS.rows


def edited(text: str, share: float, vocabulary: list[str], choose: random.Random) -> str:
    """Return a text with a share of its words replaced, left out, or followed by another, a third each."""
    result = []
    for word in text.split(" "):
        if choose.random() >= share:
            result.append(word)
            continue
        kind = choose.randrange(3)
        result += [[choose.choice(vocabulary)], [], [word, choose.choice(vocabulary)]][kind]
    return " ".join(result)


def minhash_pairs(texts: list[str], ngram: int, min_jaccard: float) -> set[tuple[int, int]]:
    """Return the pairs that the MinHash tables find."""
    functions = hash_functions(BANDS * ROWS)
    signatures = np.array([minhash(shingles(text, ngram), functions) for text in texts])
    check = jaccard_check(signatures, min_jaccard)
    return {(a, b) for band in range(BANDS) for a, b in pairs(minhash_keys(signatures, band, ROWS), check).tolist()}


def simhash_pairs(texts: list[str], ngram: int, max_hamming: int) -> set[tuple[int, int]]:
    """Return the pairs that the SimHash tables find."""
    values = np.array([simhash(shingles(text, ngram)) for text in texts], dtype=np.uint64)
    check = hamming_check(values, max_hamming)
    return {(a, b) for mask in simhash_tables(max_hamming) for a, b in pairs(values & mask, check).tolist()}


def jaccard_matrix(texts: list[str], ngram: int) -> np.ndarray:
    """Return the exact similarity of every pair, float32 [texts, texts]."""
    sets = [np.unique(shingles(text, ngram)) for text in texts]
    _, columns = np.unique(np.concatenate(sets), return_inverse=True)
    rows = np.repeat(np.arange(len(sets)), [len(s) for s in sets])
    matrix = csr_array((np.ones(len(rows), dtype=np.float32), (rows, columns)), shape=(len(sets), columns.max() + 1))
    common = (matrix @ matrix.T).toarray()
    sizes = np.array([len(s) for s in sets], dtype=np.float32)
    return common / np.maximum(sizes[:, None] + sizes[None, :] - common, 1)


def quality(documents: list[str]) -> list[tuple[str, ...]]:
    """Return rows of: method, recall at each edit, precision, recall and precision against exhaustive Jaccard."""
    choose = random.Random(1)
    vocabulary = sorted({word for text in documents for word in text.split(" ")})
    edits = [[edited(text, share, vocabulary, choose) for text in documents] for share in EDITS]
    texts = [*documents, *(text for group in edits for text in group)]
    count = len(documents)
    exact = {ngram: jaccard_matrix(texts, ngram) for ngram in (3, 5)}
    rows = []
    methods: list[tuple[str, int, float | None, Callable[[], set[tuple[int, int]]]]] = [
        (f"MinHash, {n} words, Jaccard >= {j}", n, j, lambda n=n, j=j: minhash_pairs(texts, n, j))  # type: ignore[misc]
        for n, j in ((5, 0.7), (5, 0.5), (3, 0.7), (3, 0.5))
    ]
    methods += [
        (f"SimHash, {n} words, Hamming <= {h}", 3, None, lambda n=n, h=h: simhash_pairs(texts, n, h))  # type: ignore[misc]
        for n in (1, 2, 3)
        for h in (3, 5, 7)
    ]
    for name, ngram, threshold, find in methods:
        found = find()
        planted = {(a, b) for a, b in found if a % count == b % count}
        linked = copies(len(texts), np.array(sorted(found), dtype=np.int64).reshape(-1, 2))
        recall = [
            np.mean([linked[a] == linked[a + count * (1 + at)] for a in range(count)]) for at in range(len(EDITS))
        ]
        similar = exact[ngram]
        other = [(a, b) for a, b in found if (a, b) not in planted and similar[a, b] < 0.5]
        cells = [name, *(f"{value:.1%}" for value in recall), f"{1 - len(other) / max(len(found), 1):.2%}"]
        if threshold is not None:
            truth = {(a, b) for a, b in np.argwhere(np.triu(similar >= threshold, 1)).tolist()}
            cells.append(f"{np.mean([linked[a] == linked[b] for a, b in truth]):.1%}")
            cells.append(f"{np.mean([similar[a, b] >= threshold - 0.1 for a, b in found]):.1%}")
        else:
            cells += ["", ""]
        rows.append(tuple(cells))
    return rows


def signing_speeds(documents: list[str], repeats: int) -> dict[str, float]:
    """Return MB/s on one core of ours, datatrove's MinHash signature and rensa's."""
    size = sum(len(text.encode()) for text in documents) / 1e6
    functions = hash_functions(BANDS * ROWS)

    def timed(sign: Callable[[str], object]) -> Callable[[], float]:
        def run() -> float:
            start = time.perf_counter()
            for text in documents:
                sign(text)
            return size / (time.perf_counter() - start)

        return run

    runs = {"ours": timed(lambda text: minhash(shingles(text, 5), functions))}
    try:
        from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature
        from datatrove.utils.hashing import HashConfig

        from xmodel2.data.clean import Words

        # sha1, since its xxhash does not take the strings of xxhash 4
        config = MinhashConfig(5, BANDS, ROWS, hash_config=HashConfig(hash_fc="sha1"))
        theirs = MinhashDedupSignature("/tmp", config=config, language=Words("en"))  # type: ignore[arg-type]
        runs["datatrove"] = timed(lambda text: theirs.get_signature(theirs.get_shingles(text)))
    except ImportError:
        pass
    try:
        from rensa import RMinHash

        def rensa(text: str) -> object:
            words = text.lower().split()
            sketch = RMinHash(num_perm=BANDS * ROWS, seed=42)
            sketch.update([" ".join(words[i : i + 5]) for i in range(len(words) - 4)])
            return sketch.digest()

        runs["rensa"] = timed(rensa)
    except ImportError:
        pass
    return interleaved(runs, repeats)


def main() -> None:
    """Measure and print."""
    parser = argument_parser(__doc__, "fewer documents and repeats")
    parser.add_argument("--data", nargs="*", type=Path, default=[], help="jsonl files; default: the embedded corpus")
    options = parser.parse_args()
    if options.data:
        texts = [document_text(document) for document in read_documents(options.data)]
    else:
        texts = [text for group in embedded_corpus(2_000_000).values() for text in group]
    texts = [text for text in texts if 60 <= len(text.split()) <= 2000]
    random.Random(0).shuffle(texts)
    texts = list(dict.fromkeys(texts))[: 150 if options.quick else 600]
    rows = quality(texts)
    head = (
        "method",
        *(f"{share:.0%} edits" for share in EDITS),
        "precision",
        "recall (exhaustive)",
        "precision (exhaustive)",
    )
    if not options.json:
        for row in (head, *rows):
            print(f"{row[0]:34}", *(f"{cell:>12}" for cell in row[1:]))
    speeds = signing_speeds(texts[: 60 if options.quick else 300], 3 if options.quick else 5)
    peers = {name: speed for name, speed in speeds.items() if name != "ours"}
    best = max(peers.values(), default=None)
    Result(
        "deduplicate",
        machine(),
        speeds["ours"],
        peers,
        "MB/s a core, MinHash of 5-word shingles",
        speeds["ours"] / best if best else None,
        None,
        None,
        "datatrove with sha1, rensa on words between white space; "
        + "; ".join(
            f"{row[0]}: {row[2]}, {row[3]}, {row[4]} found at 5, 20, 40% edits, precision {row[5]}" for row in rows
        ),
    ).show(options.json)


if __name__ == "__main__":
    main()
