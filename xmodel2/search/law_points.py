"""Points of a scaling law as lines of JSON: {"parameters", "tokens", "loss", "seed"}, and more that a fit passes over.

`xmodel2 law` appends a line for each run that it finishes, and fits lines of any other origin (`--points`).
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from xmodel2.errors import XmodelError
from xmodel2.files import append_json_line
from xmodel2.search.law_fit import Point

Counting = Literal["without embeddings", "with embeddings"]


@dataclass(frozen=True)
class Row:
    """A finished run."""

    parameters: int
    """Without embeddings, as the report counts nano (6M) and tiny (54M); of others' points, however they count."""
    tokens: int
    """All that it was trained on, decay included."""
    loss: float
    """Held-out nats a token; NaN if it diverged."""
    seed: int = 1
    parameters_total: int | None = None
    """With embeddings, and with a head that does not share them."""
    size: str = ""
    """Width x depth."""
    decay_tokens: int = 0
    """Of ``tokens``, those of the decay."""
    seconds: float = 0.0
    """Time of its decay and of what the stable stage lacked."""
    ended: str = ""
    """Why it has no loss."""


def read_rows(path: Path, unfinished: bool = False) -> list[Row]:
    """Return the rows of a file; with ``unfinished``, a last line that a kill tore is passed over.

    Raises `XmodelError` naming file and line of what is no row.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise XmodelError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise XmodelError(f"{path}: cannot be read as UTF-8 text ({error})") from None
    lines = text.split("\n")
    if unfinished:
        lines = lines[:-1]  # what follows the last line's end: nothing, or a torn line
    return [_row(f"{path}:{number}", line) for number, line in enumerate(lines, 1) if line.strip()]


def append_row(path: Path, row: Row) -> None:
    """Add a row, synced; a torn line at the file's end goes first."""
    append_json_line(path, asdict(row) | {"loss": row.loss if math.isfinite(row.loss) else None})


def points_of(rows: Sequence[Row], counting: Counting = "without embeddings") -> list[Point]:
    """Return the rows that have a loss as points of a fit."""
    finite = [row for row in rows if math.isfinite(row.loss)]
    if counting == "without embeddings":
        return [Point(row.parameters, row.tokens, row.loss, row.seed) for row in finite]
    return [Point(row.parameters_total or row.parameters, row.tokens, row.loss, row.seed) for row in finite]


def countings(rows: Sequence[Row]) -> tuple[Counting, ...]:
    """Return the ways in which all rows' parameters are counted."""
    if rows and all(row.parameters_total for row in rows):
        return "without embeddings", "with embeddings"
    return ("without embeddings",)


def _row(where: str, line: str) -> Row:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise XmodelError(f"{where}: not valid JSON ({error}); each line is one object") from None
    if not isinstance(value, dict):
        raise XmodelError(f'{where}: is not an object like {{"parameters": 1000000, "tokens": 20000000, "loss": 3.2}}')
    for key in ("parameters", "tokens", "loss"):
        if key not in value:
            raise XmodelError(f'{where}: "{key}" is missing; a point has parameters, tokens and loss')
    known: dict[str, Any] = {key: value[key] for key in Row.__dataclass_fields__ if value.get(key) is not None}
    for key in ("parameters", "tokens", "loss", "parameters_total"):
        number = known.get(key, 1)
        if isinstance(number, bool) or not isinstance(number, (int, float)) or not number > 0 or math.isinf(number):
            if key == "loss" and isinstance(number, float) and not math.isfinite(number):
                continue
            raise XmodelError(f'{where}: "{key}" is {number!r}, and must be a number above 0')
    if not isinstance(known.get("seed", 1), int):
        raise XmodelError(f'{where}: "seed" is {known["seed"]!r}, and must be a whole number')
    if not math.isfinite(known.setdefault("loss", math.nan)):
        known["loss"] = math.nan
    return Row(**known)
