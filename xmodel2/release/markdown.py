"""Markdown of what others named: a name, a cell, a value of a YAML header that says nothing but itself."""

import json
from collections.abc import Sequence

from xmodel2.page import printable

_MARKED = "\\|*_`<>[]#~$&"


def plain(text: str) -> str:
    """Return a text that Markdown leaves as it is, in one line and one cell.

    >>> plain("a|b\\n# *c*")
    'a\\\\|b \\\\# \\\\*c\\\\*'
    """
    return escaped(" ".join(text.split()))


def escaped(text: str) -> str:
    """Return a line, or a part of one, that Markdown leaves as it is."""
    return "".join(f"\\{c}" if c in _MARKED else c for c in printable(text))


def table(head: Sequence[str], rows: Sequence[Sequence[str]], numbers: bool = True) -> str:
    """Return a table; every cell is `plain`. All columns but the first are set to the right if they are ``numbers``.

    >>> table(["", "a"], [["x_y", "1"]])
    '|  | a |\\n| --- | --: |\\n| x\\\\_y | 1 |'
    """
    return raw_table([plain(cell) for cell in head], [[plain(cell) for cell in row] for row in rows], numbers)


def raw_table(head: Sequence[str], rows: Sequence[Sequence[str]], numbers: bool = True) -> str:
    """Return a table as `table` does, of cells that are Markdown already; a row that is short is filled."""
    rule = ["---", *["--:" if numbers else "---"] * (len(head) - 1)]
    filled = ([*line, *[""] * (len(head) - len(line))] for line in (head, rule, *rows))
    return "\n".join(f"| {' | '.join(line)} |" for line in filled)


def fenced(text: str, language: str = "") -> str:
    """Return a block of code whose fence is longer than any within."""
    longest = max((len(run) for run in _runs(text, "`")), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.strip()}\n{fence}"


def yaml_value(value: str | Sequence[str]) -> str:
    """Return a string or a list of strings as YAML reads them, which takes JSON's.

    >>> yaml_value(["en", 'a "b"'])
    '["en", "a \\\\"b\\\\""]'
    """
    return json.dumps(value if isinstance(value, str) else list(value))


def _runs(text: str, mark: str) -> list[str]:
    return [part for part in "".join(c if c == mark else " " for c in text).split() if part]
