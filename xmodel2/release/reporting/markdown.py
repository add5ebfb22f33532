"""The report as Markdown, for a model card or a pull request: what its page says in words and tables, without its figures.

report.html --HTMLParser--> headings, paragraphs, lists, tables, folded parts --> Markdown
"""

import re
from collections.abc import Sequence
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from tempfile import TemporaryDirectory

from xmodel2.page import printable
from xmodel2.release.markdown import escaped, fenced, raw_table
from xmodel2.release.reporting.build import build_report

_LEFT_OUT = {"head", "nav", "script", "style", "svg", "figcaption", "template", "button"}
"""Elements whose content is not taken: figures and what serves the page alone."""
_BLOCKS = {"p", "li", "caption", "h1", "h2", "h3", "h4", "h5", "summary", "pre", "th", "td"}
_MARKS = {"b": "**", "strong": "**", "em": "*", "i": "*"}


def report_markdown(paths: Sequence[Path]) -> str:
    """Return the report of runs, side by side, and of searches. Raises `XmodelError` as `build_report` does."""
    with TemporaryDirectory() as folder:
        page = build_report(paths, Path(folder) / "report.html")
        return as_markdown(page.read_text(encoding="utf-8"))


def as_markdown(html: str) -> str:
    """Return what a page of ours says.

    >>> print(as_markdown("<h2>A</h2><table><tr><th>x</th></tr><tr><td>1_0<small>of 2</small></td></tr></table>"))
    ## A
    <BLANKLINE>
    | x |
    | --- |
    | 1\\_0<br>of 2 |
    <BLANKLINE>
    """
    reader = _Reader()
    reader.feed(html)
    reader.close()
    blocks: list[str] = []
    for block in reader.blocks:
        while blocks and (level := _level(block)) and _level(blocks[-1]) >= level:
            blocks.pop()  # a heading of figures alone
        blocks.append(block)
    return "\n\n".join(blocks) + "\n"


def _level(block: str) -> int:
    """Return how deep a heading is, 0 for anything else.

    >>> _level("### A"), _level("#5")
    (3, 0)
    """
    found = re.match("(#+) ", block)
    return len(found[1]) if found else 0


class _Reader(HTMLParser):
    """Takes the blocks of a page as they end; text outside of any is left out."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.blocks: list[str] = []
        self._left_out = 0  # depth within what is left out
        self._open: list[str] = []  # blocks that are open
        self._text: list[str] = []
        self._rows: list[list[str]] = []
        self._tiles: list[list[str]] = []
        self._items = 0  # depth of lists
        self._code = ""  # of the last block, if that is code
        self._quiet = False  # a paragraph that serves the page alone

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        classes = (given.get("class") or "").split()
        if tag in _LEFT_OUT or (self._left_out and tag == "details") or (tag == "details" and "contents" in classes):
            self._left_out += 1
        if self._left_out:
            return
        if tag in _BLOCKS:
            self._paragraph()
            self._open.append(tag)
            self._quiet = "sub" in classes
        elif tag == "tr":
            self._rows.append([])
        elif tag == "table":
            self._rows = []
        elif tag == "details":
            self.blocks.append("<details>")
        elif tag == "div" and "tile" in classes:
            self._open.append("tile")
        elif tag in ("ul", "ol"):
            self._paragraph()
            self._items += 1
        elif tag == "a" and self._open[-1:] == ["p"] and not (given.get("href") or "").startswith("http"):
            self._quiet = True  # it leads to a file beside the page
        elif tag in ("small", "br"):
            self._text.append("<br>")
        elif tag == "code" and self._marked:
            self._text.append("`")
        elif tag in _MARKS and self._marked:
            self._text.append(_MARKS[tag])

    def handle_endtag(self, tag: str) -> None:
        if tag in _LEFT_OUT or (self._left_out and tag == "details"):
            self._left_out = max(0, self._left_out - 1)
            return
        if self._left_out:
            return
        if tag in _BLOCKS:
            self._paragraph()
            if tag in self._open:
                self._open.remove(tag)
        elif tag == "table" and self._rows:
            head, *rows = self._rows
            self.blocks.append(raw_table(head, rows))
        elif tag == "details":
            self.blocks.append("</details>")
        elif tag == "div" and self._open and self._open[-1] == "tile":
            self._open.pop()
            self._tiles.append([" ".join(part.split()) for part in "".join(self._text).split("\n")])
            self._text = []
        elif tag == "div" and self._tiles:
            self.blocks.append(raw_table(["", ""], [[name, value] for value, name in self._tiles]))
            self._tiles = []
        elif tag in ("ul", "ol"):
            self._paragraph()
            self._items -= 1
        elif tag == "code" and self._marked:
            self._text.append("`")
        elif tag == "b" and self._open and self._open[-1] == "tile":
            self._text.append("\n")
        elif tag in _MARKS and self._marked:
            self._text.append(_MARKS[tag])

    def handle_data(self, data: str) -> None:
        if self._left_out or not self._open:
            return
        if self._open[-1] == "pre":
            self._text.append(data)
        elif self._open[-1] == "summary":
            self._text.append(escape(printable(re.sub(r"\s+", " ", data)), quote=False))
        elif self._text.count("`") % 2:
            self._text.append(data.replace("`", "'").replace("|", "\\|"))
        else:
            self._text.append(escaped(re.sub(r"\s+", " ", data)))

    @property
    def _marked(self) -> bool:
        """Whether what is open is Markdown; within <summary> no site reads it as such."""
        return bool(self._open) and self._open[-1] not in ("pre", "tile", "summary")

    def _paragraph(self) -> None:
        """End the block that is open, if it holds anything."""
        text, self._text = "".join(self._text), []
        kind = self._open[-1] if self._open else ""
        if kind == "pre":
            if text.strip():
                self._code_block(text.strip("\n"))
            return
        line = " ".join(text.split()).removeprefix("<br>")
        if kind in ("td", "th"):
            if self._rows:
                self._rows[-1].append(line)
        elif not line or self._quiet:
            return
        elif kind[:1] == "h":
            self.blocks.append(f"{'#' * int(kind[1])} {line}")
        elif kind == "li":
            self.blocks.append(f"{'  ' * (self._items - 1)}- {line}")
        elif kind == "summary":
            self.blocks.append(f"<summary>{line}</summary>")
        elif kind == "caption":
            self.blocks.append(f"*{line}*")
        elif kind:
            self.blocks.append(line)

    def _code_block(self, text: str) -> None:
        """Add code, to the block before if that is code too: the steps of an episode stand together."""
        if self._code and self.blocks and self.blocks[-1] == fenced(self._code):
            self.blocks.pop()
            text = f"{self._code}\n{text}"
        self._code = text
        self.blocks.append(fenced(text))
