"""A damaged or half-written file of a run costs the report that part, and no more: the part says which file, and what is wrong."""

from collections.abc import Callable
from html import escape
from pathlib import Path

from xmodel2.errors import XmodelError
from xmodel2.page import printable
from xmodel2.release.reporting.section import Section


def told(make: Callable[[], str], path: Path) -> str:
    """Return the HTML that ``make`` returns, or what is wrong with ``path``, a file or folder that it reads."""
    try:
        return make()
    except Exception as error:  # files of other versions and half-written ones fail in any way
        return note(complaint(error, path))


def told_sections(make: Callable[[], list[Section]], path: Path, anchor: str, title: str) -> list[Section]:
    """Return what ``make`` returns, or one section that says what is wrong with ``path``."""
    try:
        return make()
    except Exception as error:  # as above
        return [Section(anchor, title, note(complaint(error, path)))]


def complaint(error: Exception, path: Path) -> str:
    """Return an error as one sentence that names a file.

    >>> complaint(KeyError("determined"), Path("calibration.json"))
    "calibration.json: has no 'determined'; it is damaged, or of another version: make it again"
    """
    if isinstance(error, XmodelError | OSError):
        return str(error) if str(path) in str(error) else f"{path}: {error}"
    what = f"has no {error}" if isinstance(error, KeyError) else f"cannot be shown ({type(error).__name__}: {error})"
    return f"{path}: {what}; it is damaged, or of another version: make it again"


def note(text: str) -> str:
    """Return a remark that stands out."""
    return f'<p class="sample" role="note">{escape(printable(text))}</p>'
