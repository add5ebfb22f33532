"""What plays WebShop without a model: the oracle, which knows the product wished for, a random player, and a simple rule."""

import itertools
import random
import re

from xmodel2.eval.agents.dialogue import Move
from xmodel2.eval.agents.search_players import Plan, Planned
from xmodel2.eval.agents.shop_environment import ShopEnvironment
from xmodel2.eval.agents.shop_goals import NO_LIMIT
from xmodel2.eval.agents.shop_pages import BACK, BUY, NEXT, PREV

_LIMIT = re.compile(r", and price lower than ([\d.]+) dollars")
_ASIN = re.compile(r"[A-Z0-9]{10}")
_BRACKETS = re.compile(r"[\[\]]")
_WORD = re.compile(r"[\w.]+")
_OPTION_LINE = re.compile(r"(.*?) (\[.*\])")
_RICH_OPTION = re.compile(r"^  \[(?:clicked )?button\] (.*) \[", re.MULTILINE)
_PAGES = 5
"""Of results."""


def oracle(environment: ShopEnvironment, rng: random.Random) -> Planned:
    """Return who searches for the title of the product wished for, chooses the options wished for, and buys it."""
    goal = environment.goal
    queries = [goal.title, f"{goal.query} {goal.title} {' '.join(goal.options)}"]

    def plan(observation: str) -> Plan:
        limit = "" if goal.price_upper == NO_LIMIT else f" for less than {goal.price_upper:.2f} dollars"
        thought = f"It should be {', '.join((*goal.attributes, *goal.options))}{limit}. I know one by its name."
        for query in itertools.cycle(queries):
            yield Move(thought, f"search[{_BRACKETS.sub(' ', query)}]")
            for _ in range(_PAGES - 1):
                if _button(environment, goal.asin) or not _button(environment, NEXT):
                    break
                yield Move("It is not on this page.", f"click[{NEXT}]")
            if _button(environment, goal.asin):
                break
            thought = "It is not among the results. I search with more words."
            yield Move("", f"click[{BACK}]")
        yield Move(f"{goal.asin} is what I am looking for. I open it.", f"click[{goal.asin}]")
        thought = "It has all that was asked for."
        if options := [option for option in goal.options if _button(environment, option)]:
            thought = f"{thought[:-1]}, and I choose {' and '.join(options)}."
        for option in options:
            yield Move(thought, f"click[{option}]")
            thought = ""
        yield Move(thought, f"click[{BUY}]")

    return Planned(plan)


def random_shopper(environment: ShopEnvironment, rng: random.Random) -> Planned:
    """Return who searches for a word of the wish and clicks on anything that can be clicked."""

    def plan(observation: str) -> Plan:
        words = _WORD.findall(environment.goal.instruction)
        while True:
            buttons = list(environment.buttons())
            yield Move("", f"click[{rng.choice(buttons)}]" if buttons else f"search[{rng.choice(words)}]")

    return Planned(plan)


def scripted(environment: ShopEnvironment, rng: random.Random) -> Planned:
    """Return who searches for the wish, opens the first product within the price, and clicks options named in the wish."""

    def plan(observation: str) -> Plan:
        pieces = _read(observation)
        wish = pieces[next(place for place, piece in enumerate(pieces) if piece.startswith("Instruction:")) + 1]
        found = _LIMIT.search(wish)
        limit = float(found[1]) if found else NO_LIMIT
        wish = _BRACKETS.sub(" ", _LIMIT.sub("", wish))
        observation = yield Move("", f"search[{wish}]")
        pieces = _read(observation)
        products = [
            (asin, float(price.split("$")[-1]))
            for asin, _, price in zip(pieces, pieces[1:], pieces[2:], strict=False)
            if _ASIN.fullmatch(asin) and price.startswith("$")
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
