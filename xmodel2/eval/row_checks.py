"""What a field of a benchmark row may hold: a check returns what is allowed where a value is not, else None.

A value that passes is one that the harness can score: it compares labels as they are, so `as_compared` gives their one form.
"""

import ast
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Index:
    """A whole number below ``count``; as some sets have it, as a text or, with ``boolean``, as true or false."""

    count: int
    boolean: bool = False

    def __call__(self, value: Any, row: Row) -> str | None:
        """As `Check` has it."""
        if isinstance(value, str) and value.isascii() and value.isdigit():
            value = int(value)
        fits = isinstance(value, int) and (self.boolean or not isinstance(value, bool)) and 0 <= value < self.count
        return None if fits else f"a number from 0 to {self.count - 1}"


def one_of(*allowed: Any) -> Check:
    """One of these values."""
    return lambda value, row: None if value in allowed else f"one of {', '.join(map(repr, allowed))}"


def integer(value: Any, row: Row) -> str | None:
    """A whole number."""
    return None if isinstance(value, int) and not isinstance(value, bool) else "a number"


def filled(value: Any, row: Row) -> str | None:
    """A text that is not blank."""
    return None if isinstance(value, str) and value.strip() else "a text that is not blank"


def containing(part: str) -> Check:
    """A text with this in it."""
    return lambda value, row: None if isinstance(value, str) and part in value else f"a text with {part!r} in it"


def with_last_word(value: Any, row: Row) -> str | None:
    """A text that ends in a word after a space, which is to be guessed."""
    rest, _, word = value.rpartition(" ") if isinstance(value, str) else ("", "", "")
    return None if rest.strip() and word.strip() else "a text that ends in a word after others"


def ending_in_answer(value: Any, row: Row) -> str | None:
    """GSM8K's solution: what stands after its last "#### " is the answer."""
    _, marked, answer = value.rpartition("#### ") if isinstance(value, str) else ("", "", "")
    return None if marked and answer.strip() else "a text with '#### ' and the answer after it"


def boxed(value: Any, row: Row) -> str | None:
    r"""MATH's solution: the harness takes its answer from the last \boxed{...}, or from what follows "\boxed "."""
    text = value if isinstance(value, str) else ""
    _, found, rest = text.rpartition("\\boxed")
    fits = "\\boxed " in text or (found and rest.startswith("{") and _closes(rest))
    return None if fits else r"a text whose last \boxed{...} is closed"


def _closes(text: str) -> bool:
    """Whether the brace that a text begins with is closed in it."""
    depth = 0
    for brace in re.findall(r"[{}]", text):
        depth += 1 if brace == "{" else -1
        if not depth:
            return True
    return False


def code(value: Any, row: Row) -> str | None:
    """A text that is a Python program."""
    return None if isinstance(value, str) and _parses(value) else "a Python program"


def codes(at_least: int) -> Check:
    """A list of at least so many Python programs."""

    def check(value: Any, row: Row) -> str | None:
        fits = texts(at_least=at_least)(value, row) is None and all(map(_parses, value))
        return None if fits else f"a list of at least {at_least} Python programs"

    return check


def _parses(text: str) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)
        try:
            ast.parse(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return False
    return True


def function_of_prompt(value: Any, row: Row) -> str | None:
    """Name of a function that the same row's ``prompt`` begins."""
    fits = isinstance(value, str) and value and re.search(rf"\bdef\s+{re.escape(value)}\s*\(", row["prompt"])
    return None if fits else "the name of a function in 'prompt'"


def defining(name: str) -> Check:
    """A Python program that defines a function of this name."""

    def check(value: Any, row: Row) -> str | None:
        fits = code(value, row) is None and re.search(rf"^def\s+{name}\s*\(", value, re.MULTILINE)
        return None if fits else f"a Python program with a function {name}()"

    return check


def choices(value: Any, row: Row) -> str | None:
    """Options as the AI2 sets have them: at least two, none blank, each with a label of its own."""
    options, labels = (value.get("text"), value.get("label")) if isinstance(value, dict) else (None, None)
    if texts(at_least=2)(options, row) is None and texts(at_least=2)(labels, row) is None:
        assert options
        assert labels
        if all(map(str.strip, options)) and len(options) == len(labels) == len(set(labels)):
            return None
    return '{"text": [...], "label": [...]} with as many labels as texts, none twice and no text blank'


def label_of_choices(value: Any, row: Row) -> str | None:
    """One of the labels in the same row's ``choices``; the sets have spaces around some."""
    labels = row["choices"]["label"]
    return None if isinstance(value, str) and value.strip() in labels else f"one of {', '.join(labels)}"


def as_compared(check: Check, value: Any) -> Any:
    """Return a value that passed its check in the form that the harness compares.

    >>> as_compared(Index(4), "3"), as_compared(label_of_choices, " B"), as_compared(filled, " a ")
    (3, 'B', ' a ')
    """
    if isinstance(check, Index):
        return int(value)
    return value.strip() if check is label_of_choices else value
