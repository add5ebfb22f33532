"""Lists in HotpotQA's rows: pairs as its authors have them, or columns as the Hub has them."""

from collections.abc import Mapping
from typing import Any


def titled(value: Any, field: str, second: str) -> list[tuple[str, Any]]:
    """Return pairs of a title and what stands with it. Raises `ValueError` for anything else.

    >>> titled({"title": ["Ed Wood"], "sent_id": [0]}, "supporting_facts", "sent_id")
    [('Ed Wood', 0)]
    """
    pairs = value
    if isinstance(value, Mapping):
        columns = [value.get("title"), value.get(second)]
        lists = [column for column in columns if isinstance(column, list)]
        pairs = list(zip(*lists, strict=True)) if len(lists) == 2 and len(lists[0]) == len(lists[1]) else None
    if not isinstance(pairs, list) or not all(_is_pair(pair) for pair in pairs):
        raise ValueError(f"field {field!r} must be pairs of a title and its {second}")
    return [(pair[0], pair[1]) for pair in pairs]


def _is_pair(pair: Any) -> bool:
    return isinstance(pair, (list, tuple)) and len(pair) == 2 and isinstance(pair[0], str)
