"""How a question becomes tokens and an answer is cut: exactly as lm-evaluation-harness does it, for every backend.

("The sky is ", "blue") -> encode_pair     -> [The, sky, is], [ blue]
ids of a long text      -> rolling_windows -> each token scored once, after one token at least
"4\\n\\nQuestion:"        -> cut_at_stop     -> "4"
"""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import TypeVar

Job = TypeVar("Job", bound=Hashable)


def encode_pair(
    encode: Callable[[str], list[int]], context: str, continuation: str, prefix_id: int
) -> tuple[list[int], list[int]]:
    """Return the ids of a context, at least one, and of the continuation to be scored after it.

    Space at the context's end goes to the continuation; both are encoded as one text, and the continuation is what comes
    in it after as many tokens as the context alone has (`TemplateLM._encode_pair`). Where the context is empty
    ``prefix_id`` stands for it, once: ``encode`` may put it before a text or not.
    """
    stem = context.rstrip()
    whole = encode(context + continuation)
    before = encode(stem) if stem else []
    if before:
        return before, whole[len(before) :]
    return [prefix_id], whole[1:] if whole[:1] == [prefix_id] else whole


def rolling_windows(ids: Sequence[int], prefix_id: int, max_length: int) -> Iterator[tuple[list[int], list[int]]]:
    """Yield (context, continuation) ids of windows of ``max_length`` inputs in which each token is predicted once.

    Equals `get_rolling_token_windows(..., context_len=1)` and `make_disjoint_window`: the last window reaches back to be
    full. ``prefix_id`` stands before the text once, even if ``ids`` begin with it.
    """
    ids = list(ids[1:] if ids and ids[0] == prefix_id else ids)
    if ids:
        yield [prefix_id], ids[:max_length]
    for start in range(max_length, len(ids), max_length):
        end = min(start + max_length, len(ids))
        yield ids[end - max_length - 1 : start], ids[start:end]


def fit_pair(context: list[int], continuation: list[int], limit: int) -> tuple[tuple[int, ...], int]:
    """Return at most ``limit`` ids, cut on the left, and how many of them at the end are scored (never the first).

    >>> fit_pair([1, 2, 3], [4, 5], 4)
    ((2, 3, 4, 5), 2)
    """
    ids = (context + continuation)[-limit:]
    return tuple(ids), min(len(continuation), len(ids) - 1)


def fit_windows(
    texts: Iterable[list[int]], prefix_id: int, max_length: int
) -> tuple[list[tuple[tuple[int, ...], int]], list[int]]:
    """Return the `rolling_windows` of texts (ids without a first token of their own) as `fit_pair` has them, and of which
    text each is. Each leaves room for one generated token, which servers need.
    """
    rows, owners = [], list[int]()
    for index, ids in enumerate(texts):
        for window in rolling_windows(ids, prefix_id, max_length - 2):
            rows.append(fit_pair(*window, max_length - 1))
            owners.append(index)
    return rows, owners


def fit_prompt(ids: list[int], max_new_tokens: int, max_length: int) -> tuple[list[int], int]:
    """Return a prompt, cut on the left to leave room for the answer, and the tokens that may follow it.

    An answer that asks for more than the context gets half of it at least.

    >>> fit_prompt([1, 2, 3, 4, 5], 3, 6), fit_prompt([1, 2, 3, 4, 5], 9, 6)
    (([3, 4, 5], 3), ([3, 4, 5], 3))
    """
    room = max_length - max_new_tokens
    ids = ids[-(room if room > 0 else max_length // 2) :]
    return ids, min(max_new_tokens, max_length - len(ids))


def distinct(jobs: Iterable[Job]) -> dict[Job, list[int]]:
    """Return each different job once, with the places where it stands.

    >>> distinct("abca")
    {'a': [0, 3], 'b': [1], 'c': [2]}
    """
    places: dict[Job, list[int]] = {}
    for index, job in enumerate(jobs):
        places.setdefault(job, []).append(index)
    return places


def sum_windows(answers: Iterable[tuple[int, float]], owners: Sequence[int], texts: int) -> Iterator[tuple[int, float]]:
    """Yield (text, sum of its windows' answers) when its last window has come; ``owners`` has the text of each window."""
    totals, waiting = [0.0] * texts, Counter(owners)
    yield from ((text, 0.0) for text in range(texts) if not waiting[text])
    for window, nats in answers:
        text = owners[window]
        totals[text] += nats
        waiting[text] -= 1
        if not waiting[text]:
            yield text, totals[text]


def cut_at_stop(text: str, until: Iterable[str]) -> str:
    """Return the text before the first stop string; an empty one never stops.

    >>> cut_at_stop("4\\n\\nQuestion: 5", ["Question:", "\\n\\n", ""])
    '4'
    """
    for stop in until:
        text = text.partition(stop)[0] if stop else text
    return text
