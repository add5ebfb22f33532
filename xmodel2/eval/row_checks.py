"""What a field of a benchmark row may hold: a check returns what is allowed where a value is not, else None."""

from collections.abc import Callable
from typing import Any

Row = dict[str, Any]
Check = Callable[[Any, Row], str | None]
"""(value, its row) -> what must stand there instead, or None."""


def text(value: Any, row: Row) -> str | None:
    """Any text."""
    return None if isinstance(value, str) else "a text"


def texts(count: int | None = None, at_least: int = 1) -> Check:
    """A list of exactly ``count`` texts, or of ``at_least`` so many."""

    def check(value: Any, row: Row) -> str | None:
        fits = isinstance(value, list) and all(isinstance(part, str) for part in value)
        if fits and (len(value) == count if count else len(value) >= at_least):
            return None
        return f"a list of {count or f'at least {at_least}'} texts"

    return check


def index(count: int) -> Check:
    """A whole number below ``count``; as some sets have it, as a text."""

    def check(value: Any, row: Row) -> str | None:
        number = int(value) if isinstance(value, str) and value.isdecimal() else value
        return None if isinstance(number, int) and 0 <= number < count else f"a number from 0 to {count - 1}"

    return check


def one_of(*allowed: Any) -> Check:
    """One of these values."""
    return lambda value, row: None if value in allowed else f"one of {', '.join(map(repr, allowed))}"


def integer(value: Any, row: Row) -> str | None:
    """A whole number."""
    return None if isinstance(value, int) else "a number"


def containing(*parts: str) -> Check:
    """A text with at least one of these in it."""

    def check(value: Any, row: Row) -> str | None:
        fits = isinstance(value, str) and any(part in value for part in parts)
        return None if fits else f"a text with {' or '.join(map(repr, parts))} in it"

    return check


def choices(value: Any, row: Row) -> str | None:
    """Options as the AI2 sets have them: as many labels as texts, at least two."""
    if isinstance(value, dict):
        options, labels = value.get("text"), value.get("label")
        both = texts(at_least=2)(options, row) is None and texts(at_least=2)(labels, row) is None
        if both and len(options or ()) == len(labels or ()):
            return None
    return '{"text": [...], "label": [...]} with as many labels as texts'


def label_of_choices(value: Any, row: Row) -> str | None:
    """One of the labels in the same row's ``choices``."""
    labels = row["choices"]["label"]
    return None if isinstance(value, str) and value.strip() in labels else f"one of {', '.join(labels)}"
