"""What plays WebShop without a model: the oracle, which knows the product wished for, a random player, and a simple rule."""

import random
import re
from itertools import pairwise

from bm25s.stopwords import STOPWORDS_EN

from xmodel2.eval.agents.dialogue import Move
from xmodel2.eval.agents.planned import Plan, Planned
from xmodel2.eval.agents.product_search import TOP
from xmodel2.eval.agents.shop_environment import ShopEnvironment
from xmodel2.eval.agents.shop_goals import NO_LIMIT, Goal
from xmodel2.eval.agents.shop_pages import BUY, NEXT, PREV, SHOWN_BY_REACT

_LIMIT = re.compile(r", and price lower than (\d+(?:\.\d+)?) dollars")
_PRICE = re.compile(r"\$(?:[\d.]+ to \$)?(\d+(?:\.\d+)?)")
_ASIN = re.compile(r"[A-Z0-9]{10}")
_BRACKETS = re.compile(r"[\[\]]")
_WORD = re.compile(r"[\w.]+")
_OPTION_LINE = re.compile(r"(.*?) (\[.*\])")
_RICH_OPTION = re.compile(r"^  \[(?:clicked )?button\] (.*) \[", re.MULTILINE)


def oracle(environment: ShopEnvironment, rng: random.Random) -> Planned:
    """Return who buys the product wished for with the options wished for.

    It searches for words of the wish if they bring the product up, else for its title.
    """
    goal = environment.goal
    ranks = {query: environment.rank(query) for query in (keywords(goal), _BRACKETS.sub(" ", goal.title))}
    shown = [query for query, rank in ranks.items() if rank is not None and rank < SHOWN_BY_REACT]
    query = shown[0] if shown else min(ranks, key=lambda query: TOP if (rank := ranks[query]) is None else rank)

    def plan(observation: str) -> Plan:
        limit = "" if goal.price_upper == NO_LIMIT else f", for less than {goal.price_upper:.2f} dollars"
        yield Move(f"What counts is: {', '.join((*goal.attributes, *goal.options))}{limit}.", f"search[{query}]")
        while not _button(environment, goal.asin) and _button(environment, NEXT):
            yield Move("It is not on this page.", f"click[{NEXT}]")
        yield Move(f"{goal.asin} looks like what I need. I open it.", f"click[{goal.asin}]")
        thought = "This is what I need"
        if options := [option for option in goal.options if _button(environment, option)]:
            thought += f", and it can be had as {' and '.join(options)}"
        for option in options:
            yield Move(f"{thought}." if thought else "", f"click[{option}]")
            thought = ""
        while True:
            yield Move(f"{thought}." if thought else "", f"click[{BUY}]")

    return Planned(plan)


def keywords(goal: Goal) -> str:
    """Return the words of a wish that say what is wanted, as somebody would search for it."""
    counts = {word for text in (goal.title, *goal.attributes, *goal.options) for word in _WORD.findall(text.lower())}
    wish = _LIMIT.sub("", goal.instruction).lower()
    return " ".join(dict.fromkeys(word for word in _WORD.findall(wish) if word in counts and word not in STOPWORDS_EN))


def random_shopper(environment: ShopEnvironment, rng: random.Random) -> Planned:
    """Return who searches for a word of the wish and clicks on anything that can be clicked."""

    def plan(observation: str) -> Plan:
        words = _WORD.findall(environment.goal.instruction) or [environment.goal.asin]
        while True:
            buttons = list(environment.buttons())
            yield Move("", f"click[{rng.choice(buttons)}]" if buttons else f"search[{rng.choice(words)}]")

    return Planned(plan)


def scripted(environment: ShopEnvironment, rng: random.Random) -> Planned:
    """Return who searches for the wish, opens the first product within the price, and clicks options named in the wish."""

    def plan(observation: str) -> Plan:
        pieces = _read(observation)
        wish = next((after for piece, after in pairwise(pieces) if piece.startswith("Instruction:")), observation)
        found = _LIMIT.search(wish)
        limit = float(found[1]) if found else NO_LIMIT
        wish = _BRACKETS.sub(" ", _LIMIT.sub("", wish))
        observation = yield Move("", f"search[{wish}]")
        pieces = _read(observation)
        products = [
            (asin, float(price[1]))
            for asin, _, tag in zip(pieces, pieces[1:], pieces[2:], strict=False)
            if _ASIN.fullmatch(asin) and (price := _PRICE.fullmatch(tag))
        ]
        if products:
            asin = next((asin for asin, price in products if price <= limit), products[0][0])
            observation = yield Move("", f"click[{asin}]")
            wanted = set(_WORD.findall(wish))
            for option in _options(observation):
                if wanted.issuperset(_WORD.findall(option)):
                    yield Move("", f"click[{option}]")
        while True:
            yield Move("", f"click[{BUY}]")

    return Planned(plan)


def _button(environment: ShopEnvironment, name: str) -> bool:
    buttons = environment.buttons()
    return name in buttons or name.lower() in buttons


def _read(observation: str) -> list[str]:
    """Return the visible texts of a page, of any style."""
    if " [SEP] " in observation:
        return observation.split(" [SEP] ")
    if "[button_]" in observation:
        lines = re.sub(r"\[(clicked )?button_?\]", "", observation).splitlines()
        return [line.strip() for line in lines if line.strip()]
    pieces = []
    for line in filter(None, map(str.strip, observation.splitlines())):
        if line.startswith("[") and line.endswith("]"):
            pieces.append(line[1:-1])
        elif found := _OPTION_LINE.fullmatch(line):
            pieces += re.split(r"\]+\[+", found[2].strip("[]"))
        else:
            pieces.append(line)
    return pieces


def _options(observation: str) -> list[str]:
    """Return values of options on a product's page, and in the style "text" their names, which look the same there."""
    if "[button_]" in observation:
        return _RICH_OPTION.findall(observation)
    pieces = _read(observation)
    end = next((place for place, piece in enumerate(pieces) if piece.startswith("Price: ")), 0)
    return pieces[pieces.index(PREV) + 1 : end - 1] if PREV in pieces and end else []
