"""One wish in a WebShop: `search[query]`, then `click[button]` on what the pages show, until something is bought.

In the style "react" the rules are those of ReAct's notebook: buttons as they are written, one search at a time, no second
page of results ("Next >" is refused), and a click on an option is answered by "You have clicked ...". In "text" and
"text_rich" they are those of WebShop's own text environment: any case, a search from every page, all pages of results.
Elsewhere the styles are alike: what cannot be done is answered by "Invalid action!" and changes nothing (the notebook cuts a
character off where the last bracket is missing, and shows some pages again).

Source: ReAct's `WebShop.ipynb`; WebShop's `web_agent_site/envs/web_agent_text_env.py`.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from xmodel2.eval.agents.environment import Turn
from xmodel2.eval.agents.options import PageStyle
from xmodel2.eval.agents.products import Product
from xmodel2.eval.agents.shop_goals import Goal
from xmodel2.eval.agents.shop_pages import (
    BACK,
    BUY,
    INVALID,
    NEXT,
    PER_PAGE,
    PREV,
    SHOWN_SUB_PAGES,
    SUB_PAGES,
    Marks,
    Page,
    done_page,
    item_page,
    results_page,
    search_page,
    show,
    sub_page,
)

Search = Callable[[str], Sequence[int]]
"""Places in the catalogue of what is found, best first."""
Judge = Callable[[Product, Mapping[str, str]], float]
"""Reward, 0 to 1, for a product bought with options."""


class ShopEnvironment:
    """One episode."""

    def __init__(self, goal: Goal, products: Sequence[Product], search: Search, judge: Judge, style: PageStyle) -> None:
        self.goal = goal
        self._products, self._search, self._judge, self._style = products, search, judge, style
        self.reset()

    def reset(self) -> str:
        """Return the search page."""
        self._bought, self._reward = "", 0.0
        return self._home()

    def step(self, action: str) -> Turn:
        """Search or click."""
        if self._bought:
            return Turn(INVALID, self._reward, done=True, valid=False)
        name, argument = self._parse(action)
        act: Callable[[], str] | None = None
        if name == "search" and argument.strip() and (self.can_search or self._style != "react"):
            act = partial(self._find, argument)
        elif name == "click":
            act = self.buttons().get(argument)
        if act is None:
            return Turn(INVALID, valid=False)
        return Turn(act(), self._reward, done=bool(self._bought))

    def scores(self) -> dict[str, float]:
        """Whether everything wished for was bought, and the reward."""
        return {"success_rate": float(self._reward == 1), "score": self._reward}

    @property
    def answer(self) -> str:
        """Asin and options of what was bought, "" before."""
        return self._bought

    @property
    def can_search(self) -> bool:
        """Whether the page has a search bar."""
        return not self._query

    def rank(self, query: str) -> int | None:
        """Return the place, from 0, that the product wished for would have among the results of a search; None for none."""
        found = (self._products[place].asin for place in self._search(query))
        return next((place for place, asin in enumerate(found) if asin == self.goal.asin), None)

    def buttons(self) -> dict[str, Callable[[], str]]:
        """Return what can be clicked on the page; each does it and returns what is seen then.

        The originals go by the name: an option that is called as a button cannot be chosen.
        """
        react = self._style == "react"
        if not self._query:
            return {}
        buttons: dict[str, Callable[[], str]] = {}
        if self._product is None:
            buttons |= {product.asin: partial(self._open, product) for product in self._on_page()}
            if not react:
                buttons[NEXT] = partial(self._turn, self._number + 1)
                if self._number > 1:
                    buttons[PREV] = partial(self._turn, self._number - 1)
        elif self._sub:
            buttons[PREV] = self._item
        else:
            for option, values in self._product.options.items():
                buttons |= {value: partial(self._choose, option, value) for value in values}
            buttons |= {name: partial(self._more, name) for name in (SUB_PAGES if react else SHOWN_SUB_PAGES)}
            buttons |= {PREV: partial(self._turn, self._number), BUY: self._buy}
        buttons[BACK] = self._home
        return buttons if react else {name.lower(): act for name, act in buttons.items()}

    def _parse(self, action: str) -> tuple[str, str]:
        """Return name and argument, both "" if there are none."""
        if self._style == "react":
            name, bracket, argument = action.partition("[")
            return (name, argument[:-1]) if bracket and argument.endswith("]") else ("", "")
        end = action.rfind("]")
        begin = action.rfind("[", 0, max(end - 1, 0))
        return (action[:begin], action[begin + 1 : end].lower()) if begin > 0 else ("", "")

    def _see(self, page: Page) -> str:
        return show(page, self._style, Marks(self._visited, self._options))

    def _home(self) -> str:
        self._query, self._sub = "", ""
        self._found: Sequence[int] = ()
        self._product: Product | None = None
        self._number = 1
        self._options: dict[str, str] = {}
        self._visited: set[str] = set()
        return self._see(search_page(self.goal.instruction))

    def _find(self, query: str) -> str:
        self._query, self._found = query, self._search(query)
        return self._turn(1)

    def _turn(self, number: int) -> str:
        self._number, self._product, self._sub, self._options = number, None, "", {}
        return self._see(results_page(self.goal.instruction, self._on_page(), number, len(self._found)))

    def _on_page(self) -> Sequence[Product]:
        places = self._found[(self._number - 1) * PER_PAGE : self._number * PER_PAGE]
        return [self._products[place] for place in places]

    def _open(self, product: Product) -> str:
        self._product = product
        self._visited.add(product.asin)
        return self._item()

    def _item(self) -> str:
        assert self._product is not None
        self._sub = ""
        return self._see(item_page(self.goal.instruction, self._product))

    def _more(self, name: str) -> str:
        assert self._product is not None
        self._sub = name
        return self._see(sub_page(self.goal.instruction, self._product, name))

    def _choose(self, option: str, value: str) -> str:
        self._options[option] = value
        return f"You have clicked {value}." if self._style == "react" else self._item()

    def _buy(self) -> str:
        assert self._product is not None
        self._reward = self._judge(self._product, self._options)
        chosen = ", ".join(f"{option}: {value}" for option, value in self._options.items())
        self._bought = f"{self._product.asin} ({chosen})" if chosen else self._product.asin
        return self._see(done_page(self._product, self._options, self._reward))
