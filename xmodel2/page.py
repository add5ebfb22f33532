"""The look of the report: one HTML page with its style inside, light and dark, readable without scripts or network."""

import re
from collections.abc import Sequence
from html import escape

LONG = 24
"""Characters above which a cell may be broken."""
_NUMBER = re.compile(r"[+\-−±]?[.\d]")

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #57606a; --line: #d8dee4; --card: #f6f8fa; --back: #ffffff; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --soft: #9aa5b1; --line: #30363d; --card: #161b22; --back: #0d1117; }
  figure { background: #e9edf2; border-radius: 8px; color: #1b1f24; }
  figcaption { color: #3b444d !important; }
}
body { font: 16px/1.55 system-ui, sans-serif; color: var(--ink); background: var(--back); margin: 0 auto; max-width: 66rem;
  padding: 1.5rem 1.2rem 4rem; }
h1 { font-size: 1.9rem; margin: .5rem 0 1rem; } h2 { margin: 2.4rem 0 .8rem; border-bottom: 1px solid var(--line); }
h3 { font-size: .85rem; color: var(--soft); text-transform: uppercase; letter-spacing: .05em; margin: 0 0 .3rem; }
.tiles { display: flex; flex-wrap: wrap; gap: .8rem; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: .6rem .9rem; }
.tile b { display: block; font-size: 1.25rem; } .tile span { color: var(--soft); font-size: .85rem; }
.row { display: flex; flex-wrap: wrap; gap: 1rem; } .row figure { flex: 1 1 20rem; }
figure { margin: .5rem 0 1rem; padding: .5rem; } figure svg { width: 100%; height: auto; }
figcaption { color: var(--soft); font-size: .9rem; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; margin: .6rem 0 1.4rem; min-width: 50%; }
caption { text-align: left; color: var(--soft); font-size: .9rem; padding-bottom: .3rem; }
th, td { padding: .3rem .8rem; border-bottom: 1px solid var(--line); text-align: right; font-variant-numeric: tabular-nums; }
td, tbody th { white-space: nowrap; vertical-align: top; } th:first-child, td:first-child, .text { text-align: left; }
td.long { white-space: normal; min-width: 8rem; }
summary { cursor: pointer; padding: .2rem 0; } details h3 { margin-top: .2rem; }
.sample { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: .7rem .9rem; margin: .6rem 0; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; margin: 0; font-size: .9rem; }
"""


def page(title: str, body: str, head: str = "") -> str:
    """Return a whole document; ``head`` goes into its head as it is."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style>{head}</head>\n<body><main>\n{body}\n</main></body></html>\n"
    )


def tiles(cells: Sequence[tuple[str, str]]) -> str:
    """Return headline figures."""
    inner = "".join(
        f'<div class="tile"><b>{escape(value)}</b><span>{escape(name)}</span></div>' for name, value in cells
    )
    return f'<div class="tiles">{inner}</div>'


def table(head: Sequence[str], rows: Sequence[Sequence[str]], caption: str) -> str:
    """Return a table; every cell is escaped. Numbers stand right, words left, and only long cells are broken."""
    kinds = [_kind(i, [row[i] for row in rows if i < len(row)]) for i in range(len(head))]
    top = "".join(f'<th scope="col"{kind}>{escape(name)}</th>' for name, kind in zip(head, kinds, strict=True))
    lines = "".join(
        "<tr>" + "".join(f"<td{kind}>{escape(cell)}</td>" for cell, kind in zip(row, kinds, strict=False)) + "</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll"><table><caption>{escape(caption)}</caption><thead><tr>{top}</tr></thead>'
        f"<tbody>{lines}</tbody></table></div>"
    )


def _kind(column: int, cells: Sequence[str]) -> str:
    """Return the classes of a column, as an attribute: of words, but for the first; of long cells.

    >>> _kind(1, ["12.5 to 27.8", ""]), _kind(1, ["held", "not held: 14 of 19 outside"])
    ('', ' class="text long"')
    """
    numbers = sum(bool(_NUMBER.match(cell)) for cell in cells)
    classes = ["text"] * (column > 0 and numbers < len(list(filter(None, cells))) / 2)
    classes += ["long"] * any(len(cell) > LONG for cell in cells)
    return f' class="{" ".join(classes)}"' if classes else ""


def printable(text: str) -> str:
    """Return a text of a model, of data or of a user with what moves a cursor or turns text around written out.

    >>> printable("red\\x1b[31m")
    'red\\\\x1b[31m'
    """
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
