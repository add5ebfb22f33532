"""A part of the report, whatever room it tells of."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Section:
    """One heading and what stands below it."""

    anchor: str
    """Of links to it, one word of small letters and hyphens, unique on a page."""
    title: str
    body: str
    """HTML, escaped where it shows what others wrote."""
