"""What WebShop's episodes ask for: a product with attributes, options and a highest price, in a sentence.

Source: WebShop, `web_agent_site/engine/goal.py`.
"""

from dataclasses import dataclass

NO_LIMIT = 1_000_000.0
"""Highest price of a goal whose product costs more than any limit that is drawn."""


@dataclass(frozen=True, slots=True)
class Goal:
    """One task of WebShop."""

    asin: str
    """Of the product that it was written for; others may do as well."""
    instruction: str
    """With the highest price in words."""
    attributes: tuple[str, ...]
    options: tuple[str, ...]
    """Values."""
    price_upper: float
    """Dollars."""
    title: str
    query: str
    category: str
    product_category: str
