"""Sources of texts become one sample of bounded size, each source with its share of the bytes.

    {"wiki": texts, "code": texts}, shares {"wiki": 3, "code": 1}, 4 MB -> chunks: 3 MB of wiki, 1 MB of code

What is drawn is chunks of documents, not documents: ten books of a library would teach ten authors' words.
"""

import heapq
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from xmodel2.errors import XmodelError, nearest

_ENDING = re.compile(r"\.(jsonl|json|parquet|txt)(\.gz|\.zst)?$")
_CHUNK = 8192  # characters: 32 KB of UTF-8 at most, which SentencePiece takes as one sentence


def sample_texts(
    sources: Mapping[str, Iterable[str]], max_bytes: int, shares: Mapping[str, float] | None = None, seed: int = 0
) -> list[str]:
    """Return a uniform sample of each source's chunks, at most ``max_bytes`` bytes of UTF-8 in all, in their order.

    Args:
        sources: whole documents by source, read once, one source after another; no more than the sample is held
        max_bytes: of all sources together
        shares: of ``max_bytes`` by source, in any unit; a source that has less gives all it has. None: one uniform sample
        seed: chooses; a source's sample depends on its own name, budget and texts only

    Raises `XmodelError` for no bytes, and for shares that do not name the sources, or are negative or all zero.
    """
    if max_bytes < 1:
        raise XmodelError(f"sample_bytes: {max_bytes} must be at least 1")
    if shares is None:
        return _uniform((text for texts in sources.values() for text in texts), max_bytes, random.Random(seed))
    for name in shares:
        if name not in sources:
            raise XmodelError(f"shares.{name}: there is no such source.{nearest(name, sources)}")
    missing = [name for name in sources if name not in shares]
    if missing:
        raise XmodelError(f"shares: {missing[0]} is missing; give every source a share, 0 to leave it out")
    total = sum(shares.values())
    if total <= 0 or min(shares.values()) < 0:
        raise XmodelError("shares: must be 0 or more, and not all 0")
    sample: list[str] = []
    for name, texts in sources.items():
        sample += _uniform(texts, int(max_bytes * shares[name] / total), random.Random(f"{seed} {name}"))
    return sample


def by_source(files: Iterable[Path]) -> dict[str, list[Path]]:
    """Return files by source: by their folder's name where they lie in several folders, else each file is a source.

    Two folders (or files) of one name are named in full.

    >>> by_source([Path("wiki/000.jsonl"), Path("wiki/001.jsonl"), Path("code/000.jsonl")])
    {'wiki': [PosixPath('wiki/000.jsonl'), PosixPath('wiki/001.jsonl')], 'code': [PosixPath('code/000.jsonl')]}
    >>> list(by_source([Path("corpus/wiki.jsonl.gz"), Path("corpus/code.jsonl.gz")]))
    ['wiki', 'code']
    >>> list(by_source([Path("wiki.en.jsonl"), Path("wiki.zh.jsonl")]))
    ['wiki.en', 'wiki.zh']
    """
    files = list(files)
    several = len({file.parent for file in files}) > 1
    places = [file.parent if several else file for file in files]
    # The folder "." has no name of its own.
    names = {
        place: _ENDING.sub("", place.name) if not several else place.name or place.resolve().name for place in places
    }
    often = Counter(names.values())
    sources: dict[str, list[Path]] = {}
    for file, place in zip(files, places, strict=True):
        sources.setdefault(names[place] if often[names[place]] == 1 else str(place), []).append(file)
    return sources


def balanced_shares(sizes: Mapping[str, float], exponent: float = 0.7) -> dict[str, float]:
    """Return shares that add up to 1, in proportion to size ** exponent: 1 keeps the sizes, 0 makes all sources equal.

    >>> balanced_shares({"wiki": 4.0, "code": 1.0}, exponent=0.5)
    {'wiki': 0.6666666666666666, 'code': 0.3333333333333333}

    Raises `XmodelError` for an exponent that is not from 0 to 10.
    """
    if not 0 <= exponent <= 10:
        raise XmodelError(f"balance: {exponent} must be from 0 (all sources equal) to 10 (1: as their sizes)")
    powers = {name: float(size) ** exponent for name, size in sizes.items()}
    return {name: power / sum(powers.values()) for name, power in powers.items()}


def _uniform(texts: Iterable[str], max_bytes: int, choose: random.Random) -> list[str]:
    """The chunks with the smallest random keys that fit in max_bytes; one at least, if the budget is not 0."""
    kept: list[tuple[float, int, str, int]] = []  # a heap with the largest key first
    total = 0
    for index, chunk in enumerate(chunk for text in texts for chunk in chunks(text)):
        size = len(chunk.encode("utf-8", "replace"))
        heapq.heappush(kept, (-choose.random(), index, chunk, size))
        total += size
        while kept and total > max_bytes and (len(kept) > 1 or not max_bytes):
            total -= heapq.heappop(kept)[3]
    return [chunk for _, _, chunk, _ in sorted(kept, key=lambda item: item[1])]


def chunks(text: str) -> Iterator[str]:
    """Cut after a line end, else before a space, else anywhere; nothing is dropped.

    >>> "".join(chunks("a line\\n" * 5000)) == "a line\\n" * 5000
    True
    """
    start = 0
    while start < len(text):
        stop = start + _CHUNK
        if stop < len(text):
            line_end = text.rfind("\n", start, stop) + 1
            space = text.rfind(" ", start + 1, stop)
            stop = line_end if line_end > start else space if space > start else stop
        yield text[start:stop]
        start = stop
