"""What WebShop's pages show, written straight from the products: the same texts as from its templates, without HTML.

    react       [Back to Search] in a line of its own, three products a page, no instruction but on the search page
    text        every visible text, joined by [SEP]
    text_rich   a line each, what can be clicked in [button] ... [button_]

Sources: WebShop's templates as released with its paper and `web_agent_site/envs/web_agent_text_env.py` (text, text_rich);
ReAct's `WebShop.ipynb` (react), whose server wrote "Webshop" on the search page.
"""

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from xmodel2.eval.agents.options import PageStyle
from xmodel2.eval.agents.products import Product

SEARCH, BACK, PREV, NEXT, BUY = "Search", "Back to Search", "< Prev", "Next >", "Buy Now"
SUB_PAGES = ("Description", "Features", "Reviews", "Attributes")
SHOWN_SUB_PAGES = SUB_PAGES[:3]
"""Those with a button; ReAct's environment takes the fourth, too."""
PER_PAGE = 10
SHOWN_BY_REACT = 3
"""Products of a page in ReAct's prompts; the others can be clicked all the same."""
INVALID = "Invalid action!"
"""ReAct's answer; the original shows the same page again, from which a model cannot see that nothing was done."""

_SPACES = " \n\t\f\r"
_SCORE = "Your score (min 0.0, max 1.0)"


class Piece(NamedTuple):
    """A visible text of a page."""

    kind: Literal["text", "button", "product", "option"]
    text: str


Page = list[Piece]


class Marks(NamedTuple):
    """What was clicked before."""

    products: Collection[str] = ()
    options: Mapping[str, str] = {}


def search_page(instruction: str) -> Page:
    """Return the page that an episode begins with."""
    return [*_texts("WebShop", "Instruction: ", instruction), Piece("button", SEARCH)]


def results_page(instruction: str, products: Sequence[Product], number: int, total: int) -> Page:
    """Return page ``number`` (from 1) of the products found; there is always a next one, empty after the last."""
    page = _begin(instruction)
    page += _texts(f"Page {number} (Total results: {total})")
    if number > 1:
        page.append(Piece("button", PREV))
    page.append(Piece("button", NEXT))
    for product in products:
        page.append(Piece("product", product.asin))
        page += _texts(product.title, product.price_tag)
    return page


def item_page(instruction: str, product: Product) -> Page:
    """Return a product's page."""
    page = [*_begin(instruction), Piece("button", PREV)]
    for name, values in product.options.items():
        page += _texts(name)
        page += [Piece("option", text) for value in values if (text := _collapsed(value))]
    page += _texts(product.title, f"Price: {product.price_tag}", f"Rating: {product.rating}")
    page += [Piece("button", name) for name in (*SHOWN_SUB_PAGES, BUY)]
    return page


def sub_page(instruction: str, product: Product, name: str) -> Page:
    """Return one of a product's `SUB_PAGES`."""
    return [*_begin(instruction), Piece("button", PREV), *_texts(*_CONTENTS[name](product))]


def done_page(product: Product, options: Mapping[str, str], reward: float) -> Page:
    """Return what is seen after a purchase; the original's text environment leaves most of it empty."""
    chosen = json.dumps(dict(options), sort_keys=True)
    for sign in "<>&'":
        chosen = chosen.replace(sign, f"\\u{ord(sign):04x}")
    return _texts(
        *(
            "Thank you for shopping with us!",
            "Your code: ",
            "None",
            " (Paste it in your MTurk interface.)",
            "Purchased",
        ),
        *("asin", product.asin, "options", chosen, "attrs", "None", "category", "None", "query", "None"),
        *("product category", "None", "Target", "asin", "options", "attrs", "price upper", "instuction text"),
        *("category", "product category", "query", "Goal ", "None", "Reward", _SCORE, str(reward), "Reward Details "),
        "None",
    )


def show(page: Page, style: PageStyle, marks: Marks) -> str:
    """Return a page as a model reads it.

    Options are marked as in the originals, which look for the quoted value in the page's address: one with quotes is not.
    """
    return _STYLES[style](page, marks)


def _begin(instruction: str) -> Page:
    return [*_texts("Instruction:", instruction), Piece("button", BACK)]


def _texts(*texts: str) -> Page:
    return [Piece("text", text) for raw in texts if (text := _collapsed(raw))]


def _collapsed(text: str) -> str:
    """Return a text as it is left by an HTML parser: only space is one space, and none if there are lines in it."""
    return text if text.strip(_SPACES) else " " if text and "\n" not in text else ""


def _reviews(product: Product) -> Iterable[str]:
    return (text for review in product.reviews for text in (f'"{review.title}"', review.score, review.body))


def _attributes(product: Product) -> Iterable[str]:
    of = (product.category, product.query, product.product_category)
    return (*(f" {attribute}" for attribute in product.attributes), *of)


_CONTENTS: dict[str, Callable[[Product], Iterable[str]]] = {
    "Description": lambda product: [product.description],
    "Features": lambda product: [f" {point}" for point in product.bullet_points],
    "Reviews": _reviews,
    "Attributes": _attributes,
}


def _as_text(page: Page, marks: Marks) -> str:
    return " [SEP] ".join(piece.text.strip() for piece in page)


def _as_rich_text(page: Page, marks: Marks) -> str:
    chosen = json.dumps(dict(marks.options))
    clicked, lines = "", []
    for kind, text in page:
        if kind == "button":
            lines.append(f"[button] {text} [button_]\n")
        elif kind == "text":
            lines.append(f"{text}\n")
        elif kind == "product":
            name = "clicked button" if text in marks.products else "button"
            lines.append(f"\n[{name}] {text} [{name}_]\n")
        elif f'"{text}"' in chosen:
            clicked = f"You have clicked {text}.\n{clicked}"
            lines.append(f"  [clicked button] {text} [clicked button_]\n")
        else:
            lines.append(f"  [button] {text} [button_]\n")
    return clicked + "".join(lines)


def _as_react(page: Page, marks: Marks) -> str:
    if page[-1].text == SEARCH:
        page = [Piece("text", "Webshop"), *page[1:]]
    else:
        score = next((place for place, piece in enumerate(page) if piece.text == _SCORE), None)
        if score is not None:
            return f"{_SCORE}: {page[score + 1].text}"
        page = page[next(place for place, piece in enumerate(page) if piece.kind == "button") :]
    chosen, shown, products = str(dict(marks.options)), list[str](), 0
    for kind, text in page:
        products += kind == "product"
        if products > SHOWN_BY_REACT:
            break
        if not text.strip(" \n"):
            continue
        if kind == "option":
            shown.append(f"[[{text}]]" if f"'{text}'" in chosen else f"[{text}]")
        else:
            shown.append(f"\n{text} " if kind == "text" else f"\n[{text}] ")
    return "".join(shown)


_STYLES: dict[PageStyle, Callable[[Page, Marks], str]] = {
    "react": _as_react,
    "text": _as_text,
    "text_rich": _as_rich_text,
}
