"""The page around the sections: contents, style, scripts, and a policy under which nothing else runs or loads."""

import base64
import hashlib
import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from xmodel2.page import page
from xmodel2.release.reporting.section import Section

_HERE = Path(__file__).parent
_STYLE = _HERE / "report.css"
_CURVES, _OTHERS = ("curves.js", "curves_controls.js"), ("contents.js", "tables.js", "watch.js")


def data_block(name: str, value: Any) -> str:
    """Return data for a script as an element that a browser neither runs nor shows; no text in it can end it.

    >>> data_block("d", {"a": "</script>"})
    '<script type="application/json" id="d">{"a":"\\\\u003c/script>"}</script>'
    """
    text = json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return f'<script type="application/json" id="{name}">{text}</script>'


def report_page(title: str, top: str, sections: Sequence[Section], live: str = "") -> str:
    """Return the document: ``top`` above all sections, ``live``: the line of a page that follows a run."""
    drawn = any('id="charts"' in section.body for section in sections)
    names = [*(_CURVES if drawn else ()), *_OTHERS]
    scripts = [(_HERE / name).read_text(encoding="utf-8") for name in names]
    head = f'<meta http-equiv="Content-Security-Policy" content="{policy(scripts)}">'
    head += f"<style>{_STYLE.read_text(encoding='utf-8')}</style>"
    links = "".join(f'<li><a href="#{section.anchor}">{escape(section.title)}</a></li>' for section in sections)
    contents = (
        f'<nav class="contents side" aria-label="Contents"><ul>{links}</ul></nav>'
        f'<details class="contents top"><summary>Contents</summary><nav aria-label="Contents"><ul>{links}</ul></nav></details>'
    )
    parts = [_section(section) for section in sections]
    inline = "".join(f"<script>{script}</script>" for script in scripts)
    body = f'{contents}<div class="report">{live}{top}\n{"".join(parts)}</div>\n{inline}'
    return page(title, body, head)


def _section(section: Section) -> str:
    heading = f'<h2 id="{section.anchor}-title">{escape(section.title)}</h2>'
    return f'<section id="{section.anchor}" aria-labelledby="{section.anchor}-title">{heading}\n{section.body}\n</section>\n'


def policy(scripts: Sequence[str]) -> str:
    """Return the content security policy of a page that runs these scripts and nothing else."""
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" for script in scripts
    )
    # Figures carry their style inside, and those with an image in them the image.
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
        "form-action 'none'"
    )
